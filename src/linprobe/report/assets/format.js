// Numbers and elements. Text from the record is only ever set as text.

const data = JSON.parse(document.getElementById("data").textContent);

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const known = (value) => typeof value === "number";
const rate = (value) => (known(value) ? value.toFixed(4) : "none");
const tiny = (value) => (known(value) ? value.toExponential(1) : "none");
const whole = (value) => (known(value) ? Math.round(value).toLocaleString("en") : "none");
const span = (pair) =>
  pair && known(pair[0]) && known(pair[1]) ? `${rate(pair[0])}\u2013${rate(pair[1])}` : "none";
const penalty = (value) => (known(value) ? value.toExponential(0) : "none");

// For plotly's labels, which read a few tags.
const escaped = (text) =>
  text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

const colour = (name) =>
  getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const faded = (name, share) => {
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(colour(name).slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${share})`;
};

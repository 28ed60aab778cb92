// Data, elements and colours. Text from the record is only ever set as text.

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

// "@name" or "@name/opacity", from the palette of the day, the night or paper.
function colour(text) {
  const [name, opacity] = text.slice(1).split("/");
  const found = getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  if (!opacity) return found;
  const [r, g, b] = [1, 3, 5].map((i) => parseInt(found.slice(i, i + 2), 16));
  return `rgba(${r},${g},${b},${opacity})`;
}

// A copy of plotly's JSON in which whatever is called a colour is one.
function coloured(value, key = "") {
  if (Array.isArray(value)) return value.map((item) => coloured(item, key));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, coloured(item, name)]));
  }
  return /color$/.test(key) && value[0] === "@" ? colour(value) : value;
}

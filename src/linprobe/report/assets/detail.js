// One layer: its facts, its certificate, its confusion matrix.

const LARGEST_TABLE = 30; // classes

const className = (i) => (data.classes && data.classes[i]) || String(i);
// For plotly's labels, which read a few tags.
const escaped = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const total = (row) => row.reduce((sum, count) => sum + count, 0) || 1;

const facts = (names, texts) => make("dl", { class: "facts" }, ...names.flatMap((name, i) =>
  (texts[i] === null ? [] : [make("div", {}, make("dt", {}, name), make("dd", {}, texts[i]))])));

function cell(count, inRow, onDiagonal) {
  const share = count / inRow;
  const strength = onDiagonal ? 0.08 + 0.3 * share : Math.min(0.75, 0.12 + 4 * share);
  const element = make("td", {}, count ? String(count) : "");
  if (count) element.style.backgroundColor = colour(`${onDiagonal ? "@blue" : "@vermilion"}/${strength}`);
  return element;
}

// Classes are numbered, so that narrow columns can go by the numbers.
function confusionTable({ confusion, classErrors }) {
  const head = make("tr", {}, make("td"), ...confusion.map((_, i) =>
    make("th", { scope: "col", title: className(i) }, String(i))),
  make("th", { scope: "col", class: "class-error" }, "error"));
  const rows = confusion.map((row, i) => make("tr", {},
    make("th", { scope: "row", class: data.classes ? "class-name" : null }, data.classes ? `${className(i)} (${i})` : String(i)),
    ...row.map((count, j) => cell(count, total(row), i === j)),
    make("td", { class: "class-error" }, classErrors[i])));
  const table = make("table", { class: "confusion" }, make("thead", {}, head), make("tbody", {}, ...rows));
  return make("div", { class: "matrix", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, table);
}

function heatmap(confusion) {
  const box = make("div", { id: "heatmap" });
  const clear = "rgba(0,0,0,0)";
  queueMicrotask(() => Plotly.newPlot(box, coloured([{
    type: "heatmap", z: confusion.map((row) => row.map((count) => count / total(row))), showscale: false,
    text: confusion.map((row, i) => row.map((count, j) => escaped(`${className(i)} \u2192 ${className(j)}: ${count}`))),
    hoverinfo: "text",
    colorscale: [[0, colour("@surface")], [0.1, colour("@blue/0.5")], [1, colour("@blue")]],
  }]), coloured({
    paper_bgcolor: clear, plot_bgcolor: clear, font: { color: "@ink" }, dragmode: false,
    margin: { l: 45, r: 10, t: 10, b: 35 }, xaxis: { title: { text: "predicted class" }, constrain: "domain" },
    yaxis: { title: { text: "true class" }, autorange: "reversed", scaleanchor: "x", constrain: "domain" },
  }), { displayModeBar: false, responsive: true }));
  return box;
}

function confusionPart(probe) {
  const { confusion, mistakes } = probe;
  if (confusion === undefined) return [make("p", { class: "note" }, "The record holds no confusion matrix for this probe.")];
  const parts = [make("h3", {}, "Confusion on the test split")];
  if (confusion) {
    parts.push(make("p", { class: "note" }, "Rows are true classes, columns predicted ones; counts of test samples."));
    parts.push(confusion.length <= LARGEST_TABLE ? confusionTable(probe) : heatmap(confusion));
  }
  if (mistakes.length) parts.push(make("p", { class: "note" }, `Most frequent mistakes: ${mistakes.join(", ")}.`));
  return parts;
}

function drawDetail(view) {
  const { probes, label, beside } = data.checkpoints[view.checkpoint];
  const probe = probes.find(({ place }) => place === view.layer);
  byId("detail").classList.toggle("empty", !probe);
  byId("detail-hint").hidden = Boolean(probe);
  byId("detail-body").replaceChildren(...(probe ? [
    make("h3", {}, data.layers[probe.place] + (data.checkpoints.length > 1 ? ` (${label})` : "")),
    make("p", probe.failed ? { class: "warn" } : {}, probe.certificate),
    facts(data.facts, probe.facts),
    ...(probe.steps[view.measure] ? [make("p", {}, probe.steps[view.measure][1])] : []),
    ...(beside.length ? [make("h3", {}, "What to compare its test error with"), facts(beside, probe.beside)] : []),
    ...confusionPart(probe),
  ] : []));
}

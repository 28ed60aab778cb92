// All layers of the checkpoint in view: sorted by a click on a column's name, searched by layer.

const numeric = (key, label, text) => ({ key, label, value: (probe) => probe[key], text: (probe) => text(probe[key]) });
const has = (test) => data.checkpoints.some(({ probes }) => probes.some(test));

const columns = [
  { key: "layer", label: "layer", value: (probe) => probe.place },
  { key: "test", label: "test error, 95\u00a0%\u00a0interval", value: (probe) => probe.test, text: (probe) => rate(probe.test), below: (probe) => span(probe.interval) },
  { key: "verdict", label: "step", left: true, value: (probe) => probe.verdict, text: (probe) => probe.verdict || "", when: (probe) => probe.verdict },
  { key: "measure", value: (probe, view) => probe.values[view.measure], text: (probe, view) => rate(probe.values[view.measure]) },
  numeric("train", "train error", rate),
  numeric("width", "width", whole),
  { key: "l2", label: "l2", value: (probe) => probe.l2, text: (probe) => penalty(probe.l2) + (probe.edge ? " (end)" : "") },
  numeric("gap", "gap, nats", tiny),
  numeric("passes", data.passes, whole),
  { key: "certificate", label: "what is guaranteed", left: true, words: true, value: (probe) => probe.certificate, text: (probe) => probe.certificate },
].filter((column) => !column.when || has(column.when));

const order = { key: "layer", down: false };

// What the curve shows has a column of its own, unless it has one anyway.
const spare = (column, view) => column.key === "measure" && view.measure < 2;

// Unknown values come last in either direction.
function compare(one, other, view) {
  const { value } = columns.find((column) => column.key === order.key);
  const [a, b] = [value(one, view), value(other, view)];
  const [lost, alsoLost] = [a === null || a === undefined, b === null || b === undefined];
  if (lost || alsoLost) return lost - alsoLost || one.place - other.place;
  const sign = order.down ? -1 : 1;
  const least = typeof a === "string" ? a.localeCompare(b) : a - b;
  return sign * least || one.place - other.place;
}

function drawHead(redraw) {
  const row = make("tr");
  for (const column of columns) {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      order.down = order.key === column.key && !order.down;
      order.key = column.key;
      redraw();
    });
    const kind = column.key === "layer" ? "name" : column.left ? "left" : null;
    row.append(make("th", { scope: "col", class: kind, "data-key": column.key }, button));
  }
  document.querySelector("#table thead").replaceChildren(row);
}

function drawBody(view, select) {
  for (const head of document.querySelectorAll("#table thead th")) {
    const chosen = head.dataset.key === order.key;
    const column = columns.find(({ key }) => key === head.dataset.key);
    head.setAttribute("aria-sort", chosen ? (order.down ? "descending" : "ascending") : "none");
    head.hidden = spare(column, view);
    const label = column.label || data.measures[view.measure].label;
    head.dataset.label = label;
    head.firstChild.textContent = label + (chosen ? (order.down ? " \u25bc" : " \u25b2") : "");
  }
  const { probes } = data.checkpoints[view.checkpoint];
  const wanted = view.search.trim().toLowerCase();
  const shown = probes.filter((probe) => data.layers[probe.place].toLowerCase().includes(wanted));
  const rows = [...shown].sort((one, other) => compare(one, other, view)).map((probe) => tableRow(probe, view, select));
  document.querySelector("#table tbody").replaceChildren(...rows);
  byId("count").textContent = `${shown.length} of ${probes.length} layers`;
}

function tableRow(probe, view, select) {
  const button = make("button", { type: "button" }, data.layers[probe.place]);
  button.addEventListener("click", () => select(probe.place, true));
  const row = make("tr", probe.place === view.layer ? { class: "selected" } : {},
    make("th", { scope: "row", class: "name" }, button));
  for (const column of columns.slice(1)) {
    const element = make("td", {}, column.text(probe, view));
    element.hidden = spare(column, view);
    if (column.below) element.append(make("div", { class: "note" }, column.below(probe)));
    if (column.words) element.className = probe.standing === "failed" ? "words warn" : "words";
    else if (column.left) element.className = "left";
    row.append(element);
  }
  return row;
}

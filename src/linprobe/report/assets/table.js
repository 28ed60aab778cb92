// All layers of the checkpoint in view: sorted by a click on a column's name, searched by layer.

const order = { column: 0, down: false };

// A value to sort by and a text. What the curve shows has a column unless it has one anyway.
function cellOf(probe, i, view) {
  const { key } = data.columns[i];
  if (key === "layer") return [probe.place, data.layers[probe.place]];
  if (key === "verdict") return Array(2).fill((probe.steps[view.measure] || [null])[0]);
  return key === "measure" ? probe.values[view.measure] : probe.cells[i];
}

const spare = ({ key, hidden }, view) => hidden || (key === "measure" && view.measure < 2);

// Unknown values come last in either direction.
function compare(one, other, view) {
  const [a, b] = [one, other].map((probe) => cellOf(probe, order.column, view)[0]);
  if (a === null || b === null) return (a === null) - (b === null) || one.place - other.place;
  const least = typeof a === "string" ? a.localeCompare(b) : a - b;
  return (order.down ? -least : least) || one.place - other.place;
}

function drawHead(redraw) {
  const heads = data.columns.map(({ key, left }, i) => {
    const button = make("button", { type: "button" });
    button.addEventListener("click", () => {
      order.down = order.column === i && !order.down;
      order.column = i;
      redraw();
    });
    return make("th", { scope: "col", class: key === "layer" ? "name" : left ? "left" : null, "data-key": key }, button);
  });
  document.querySelector("#table thead").replaceChildren(make("tr", {}, ...heads));
}

function drawBody(view, select) {
  document.querySelectorAll("#table thead th").forEach((head, i) => {
    const chosen = i === order.column;
    head.setAttribute("aria-sort", chosen ? (order.down ? "descending" : "ascending") : "none");
    head.hidden = spare(data.columns[i], view);
    head.dataset.label = data.columns[i].label || data.measures[view.measure].label;
    head.firstChild.textContent = head.dataset.label + (chosen ? (order.down ? " \u25bc" : " \u25b2") : "");
  });
  const { probes } = data.checkpoints[view.checkpoint];
  const wanted = view.search.trim().toLowerCase();
  const shown = probes.filter(({ place }) => data.layers[place].toLowerCase().includes(wanted));
  const rows = shown.sort((one, other) => compare(one, other, view)).map((probe) => tableRow(probe, view, select));
  document.querySelector("#table tbody").replaceChildren(...rows);
  byId("count").textContent = `${shown.length} of ${probes.length} layers`;
}

function tableRow(probe, view, select) {
  const row = make("tr", probe.place === view.layer ? { class: "selected" } : {});
  data.columns.forEach((column, i) => {
    const { key, left } = column;
    const text = cellOf(probe, i, view)[1];
    if (key === "layer") {
      const button = make("button", { type: "button" }, text);
      button.addEventListener("click", () => select(probe.place, true));
      row.append(make("th", { scope: "row", class: "name" }, button));
    } else {
      const words = key === "certificate" && text.length > 20;
      const kind = words ? (probe.failed ? "words warn" : "words") : left ? "left" : null;
      row.append(make("td", { class: kind, title: key === "certificate" ? probe.certificate : null }, text));
      row.lastChild.hidden = spare(column, view);
    }
  });
  return row;
}

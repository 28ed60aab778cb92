// One layer: its facts, its certificate, its confusion matrix.

const LARGEST_TABLE = 30; // classes

const className = (i) => (data.classes && data.classes[i]) || String(i);

// Names are numbered, so that narrow columns can go by the numbers.
const rowName = (i) => (data.classes ? `${className(i)} (${i})` : String(i));

function facts(pairs) {
  const list = make("dl", { class: "facts" });
  for (const [name, value] of pairs) list.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  return list;
}

function cell(count, inRow, onDiagonal) {
  const share = inRow ? count / inRow : 0;
  const strength = onDiagonal ? 0.08 + 0.3 * share : Math.min(0.75, count ? 0.12 + 4 * share : 0);
  const element = make("td", {}, count ? String(count) : "");
  if (count) element.style.backgroundColor = faded(onDiagonal ? "blue" : "vermilion", strength);
  return element;
}

function confusionTable({ confusion, classErrors }) {
  const header = (_, i) => make("th", { scope: "col", title: className(i) }, String(i));
  const table = make("table", { class: "confusion" });
  table.append(make("thead", {}, make("tr", {}, make("td"), ...confusion.map(header),
    make("th", { scope: "col", class: "class-error" }, "error"))));
  const body = make("tbody");
  confusion.forEach((row, i) => {
    const inRow = row.reduce((sum, count) => sum + count, 0);
    body.append(make("tr", {}, make("th", { scope: "row", class: data.classes ? "class-name" : null }, rowName(i)),
      ...row.map((count, j) => cell(count, inRow, i === j)),
      make("td", { class: "class-error" }, rate(classErrors[i]))));
  });
  table.append(body);
  return make("div", { class: "matrix", tabindex: "0", role: "region", "aria-label": "Confusion matrix" }, table);
}

function heatmap(confusion) {
  const box = make("div", { id: "heatmap" });
  box.style.height = "26rem";
  const shares = confusion.map((row) => {
    const sum = row.reduce((total, count) => total + count, 0) || 1;
    return row.map((count) => count / sum);
  });
  queueMicrotask(() => Plotly.newPlot(box, [{
    type: "heatmap", z: shares, showscale: false, hoverinfo: "text",
    text: confusion.map((row, i) => row.map((count, j) =>
      escaped(`${className(i)} read as ${className(j)}: ${count}`))),
    colorscale: [[0, colour("surface")], [0.1, faded("blue", 0.5)], [1, colour("blue")]],
  }], {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font: { color: colour("ink") },
    margin: { l: 45, r: 10, t: 10, b: 35 }, dragmode: false,
    xaxis: { title: { text: "predicted class" } },
    yaxis: { title: { text: "true class" }, autorange: "reversed" },
  }, { displayModeBar: false, responsive: true }));
  return box;
}

function confusionPart({ confusion, classErrors, mistakes }) {
  const parts = [make("h3", {}, "Confusion on the test split")];
  if (confusion) {
    parts.push(make("p", { class: "note" }, "A row a true class, a column a predicted one; counts of test samples."));
    parts.push(confusion.length <= LARGEST_TABLE ? confusionTable({ confusion, classErrors }) : heatmap(confusion));
  }
  const worst = mistakes.map(([count, truth, read]) => `${className(truth)} read as ${className(read)} (${whole(count)})`);
  if (worst.length) parts.push(make("p", { class: "note" }, `Most frequent mistakes: ${worst.join(", ")}.`));
  return parts;
}

// What stands beside a layer's error in the curve, for those who can't point at it.
function comparisons(references, place) {
  const parts = references.flatMap((item) => {
    if (known(item.value)) return [[item.label, rate(item.value)]];
    const point = item.points.find((candidate) => candidate.place === place);
    if (!point) return [];
    const draws = point.draws > 1 ? `, mean of ${point.draws}` : "";
    const gain = known(point.selectivity) ? `, selectivity ${rate(point.selectivity)}` : "";
    return [[item.label, rate(point.value) + draws + gain]];
  });
  return parts.length ? [make("h3", {}, "What to compare its test error with"), facts(parts)] : [];
}

function drawDetail(view) {
  const { probes, label, references } = data.checkpoints[view.checkpoint];
  const probe = probes.find((candidate) => candidate.place === view.layer);
  byId("detail").classList.toggle("empty", !probe);
  byId("detail-hint").hidden = Boolean(probe);
  byId("detail-body").replaceChildren();
  if (!probe) return;
  const found = probe.evaluation;
  byId("detail-body").append(
    make("h3", {}, data.layers[probe.place] + (data.checkpoints.length > 1 ? ` (${label})` : "")),
    make("p", probe.standing === "failed" ? { class: "warn" } : {}, probe.certificate),
    facts([
      ["test error", rate(probe.test)],
      ["95 % interval", span(probe.interval)],
      ...(probe.optimum ? [[data.optimum.label, span(probe.optimum)]] : []),
      ["training error", rate(probe.train)],
      ["width", whole(probe.width) + (probe.reducer ? `, reduced: ${probe.reducer}` : "")],
      ["l2", penalty(probe.l2) + (probe.edge ? ", end of the path" : "")],
      [`${data.passes} over the features`, whole(probe.passes)],
      ...data.facts.map((name, i) => [name, found ? found.facts[i] : null])
        .filter(([, value]) => known(value))
        .map(([name, value]) => [name, value > 100 || name.startsWith("samples") ? whole(value) : rate(value)]),
    ]),
  );
  if (probe.step) byId("detail-body").append(make("p", {}, `Against ${data.layers[probe.after]}, the layer before: ${probe.step}.`));
  byId("detail-body").append(...comparisons(references, probe.place));
  if (found) byId("detail-body").append(...confusionPart(found));
  else byId("detail-body").append(make("p", { class: "note" }, "The record holds no confusion matrix for this probe."));
}

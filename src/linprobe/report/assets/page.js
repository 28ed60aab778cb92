// The page's state, and what changes it.

const SPREAD = 20; // values that differ by more than this factor open on a logarithmic scale
const PLAY_MS = 1400;
const PAPER_WIDTH = "680px"; // of A4 and of Letter, less margins

const view = {
  checkpoint: Math.max(0, data.checkpoints.length - 1), measure: 0, layer: null, search: "",
  others: true, log: false, optimum: data.optimum.shown,
};
let playing = null;

// Markers of the key, as in the curve; a circle is drawn as one.
const SHAPES = {
  D: "17,2 21,6 17,10 13,6", s: "13.5,2.5 20.5,2.5 20.5,9.5 13.5,9.5",
  "^": "17,2 21,9.5 13,9.5", v: "17,10 21,2.5 13,2.5",
};

function spread() {
  const values = data.checkpoints.flatMap(({ probes, references }) => [
    ...probes.map((probe) => probe.values[view.measure]),
    ...(view.measure === 0 ? references.flatMap((item) =>
      known(item.value) ? [item.value] : item.points.map((point) => point.value)) : []),
  ]).filter((value) => known(value) && value > 0);
  return values.length ? Math.max(...values) / Math.min(...values) : 1;
}

function sample(dash, name, marker) {
  const box = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  box.setAttribute("width", "34");
  box.setAttribute("height", "12");
  box.setAttribute("aria-hidden", "true");
  const add = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    box.append(element);
  };
  if (dash) {
    add("line", { x1: 0, x2: 34, y1: 6, y2: 6, stroke: `var(--${name})`, "stroke-width": 2,
      "stroke-dasharray": dash.join(" ") });
  }
  if (marker === "bar") add("rect", { x: 12, y: 0, width: 10, height: 12, fill: `var(--${name})`, opacity: 0.45 });
  if (SHAPES[marker]) add("polygon", { points: SHAPES[marker], fill: `var(--${name})` });
  if (marker === "full" || marker === "o") add("circle", { cx: 17, cy: 6, r: 4.5, fill: `var(--${name})` });
  if (marker === "diamond") add("path", { d: "M11 6L17 0L23 6L17 12Z", fill: `var(--${name})` });
  if (marker === "hollow") {
    add("circle", { cx: 17, cy: 6, r: 4.5, fill: "var(--surface)", stroke: `var(--${name})`, "stroke-width": 2 });
  }
  return box;
}

function drawKey() {
  const { probes, references } = data.checkpoints[view.checkpoint];
  const entry = (...parts) => make("li", {}, ...parts);
  const shape = ({ filled, marker }) => (!filled ? "hollow" : marker === "D" ? "diamond" : "full");
  const entries = Object.entries(data.looks)
    .filter(([standing]) => probes.some((probe) => probe.standing === standing))
    .map(([, look]) => entry(sample([], look.colour, shape(look)), look.label));
  if (view.measure === 0) {
    if (probes.some((probe) => probe.verdict === "can't tell")) {
      entries.push(entry(sample([2, 4], "blue"), "no change found"));
    }
    if (view.optimum && probes.some((probe) => probe.optimum)) {
      entries.push(entry(sample(null, "orange", "bar"), data.optimum.label));
    }
    for (const item of references) {
      const marker = known(item.value) ? null : item.marker;
      entries.push(entry(sample(item.dash.map((length) => 2 * length), item.colour, marker),
        known(item.value) ? `${item.label}, ${rate(item.value)}` : item.label));
    }
  }
  if (view.others && data.checkpoints.length > 1) entries.push(entry(sample([], "muted"), "other checkpoints"));
  byId("key").replaceChildren(...entries);
}

function draw() {
  const checkpoint = data.checkpoints[view.checkpoint];
  const place = `${view.checkpoint + 1} of ${data.checkpoints.length}`;
  byId("slider").value = view.checkpoint;
  byId("slider").setAttribute("aria-valuetext", `${checkpoint.label}; ${place}`);
  byId("checkpoint-name").textContent = checkpoint.label;
  byId("print-checkpoint").textContent = `Checkpoint ${checkpoint.label}; ${place}`;
  byId("steps").textContent = checkpoint.steps;
  const { label } = data.measures[view.measure];
  byId("curve-title").textContent = `${label[0].toUpperCase()}${label.slice(1)} along the depth`;
  const bounded = view.measure === 0 && has((probe) => probe.optimum);
  byId("optimum-label").style.display = bounded ? "" : "none";
  byId("log").checked = view.log;
  drawKey();
  drawDetail(view);
  drawBody(view, select);
  return drawChart(view);
}

function select(layer, show) {
  view.layer = layer;
  const shown = draw();
  if (show) byId("detail").scrollIntoView({ block: "nearest" });
  return shown;
}

function goTo(checkpoint) {
  view.checkpoint = checkpoint;
  draw();
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
}

function play() {
  if (playing !== null) return stop();
  const last = data.checkpoints.length - 1;
  goTo(view.checkpoint === last ? 0 : view.checkpoint + 1);
  byId("play").textContent = "Pause";
  playing = setInterval(() => {
    if (view.checkpoint === last) return stop();
    goTo(view.checkpoint + 1);
    if (view.checkpoint === last) stop();
  }, PLAY_MS);
}

// Arrow keys on the curve: the next layer is selected and its label shown, as a pointer would.
async function onKey(event) {
  const { probes } = data.checkpoints[view.checkpoint];
  const at = probes.findIndex((probe) => probe.place === view.layer);
  const last = probes.length - 1;
  const next = {
    ArrowRight: Math.min(last, at + 1), ArrowLeft: at < 0 ? last : Math.max(0, at - 1),
    Home: 0, End: last,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  await select(probes[next].place, false);
  const chart = byId("chart");
  const curve = chart.data.findIndex((trace) => trace.meta === "targets");
  const point = chart.data[curve].customdata.indexOf(view.layer);
  if (point >= 0) Plotly.Fx.hover(chart, [{ curveNumber: curve, pointNumber: point }]);
  else Plotly.Fx.unhover(chart);
}

// The curve has its size and colours from the screen, and is not laid out anew by the printer.
function forPaper(printing) {
  document.documentElement.classList.toggle("printing", printing);
  byId("chart").style.width = printing ? PAPER_WIDTH : "";
  draw();
}

function start() {
  const several = data.checkpoints.length > 1;
  byId("slider").max = data.checkpoints.length - 1;
  byId("player").style.display = several ? "" : "none";
  byId("others-label").style.display = several ? "" : "none";
  data.measures.forEach(({ label }, i) => byId("measure").append(make("option", { value: i }, label)));
  byId("measure").addEventListener("change", (event) => {
    view.measure = Number(event.target.value);
    view.log = spread() > SPREAD;
    draw();
  });
  byId("log").addEventListener("change", (event) => { view.log = event.target.checked; draw(); });
  byId("optimum").checked = view.optimum;
  byId("optimum").addEventListener("change", (event) => { view.optimum = event.target.checked; draw(); });
  byId("others").addEventListener("change", (event) => { view.others = event.target.checked; draw(); });
  byId("slider").addEventListener("input", (event) => { stop(); goTo(Number(event.target.value)); });
  byId("play").addEventListener("click", play);
  byId("search").addEventListener("input", (event) => { view.search = event.target.value; drawBody(view, select); });
  drawHead(() => drawBody(view, select));
  view.log = spread() > SPREAD;
  draw();
  byId("chart").addEventListener("keydown", onKey);
  byId("chart").on("plotly_click", ({ points: [point] }) => select(point.customdata, false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
}

if (data.checkpoints.some(({ probes }) => probes.length)) start();
else byId("curve-section").textContent = "The run has no probes yet.";

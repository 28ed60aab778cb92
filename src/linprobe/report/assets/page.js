// The page's state, and what changes it.

const PLAY_MS = 1400;
const PAPER_WIDTH = "680px"; // of A4 and of Letter, less margins

const last = data.checkpoints.length - 1;
const view = {
  checkpoint: Math.max(0, last), measure: data.first, layer: null, search: "", others: true, log: false, optimum: data.optimum,
};
let playing = null;

function draw() {
  const { label, steps, figures, probes } = data.checkpoints[view.checkpoint];
  const place = `${view.checkpoint + 1} of ${last + 1}`;
  byId("slider").value = view.checkpoint;
  byId("slider").setAttribute("aria-valuetext", `${label}; ${place}`);
  byId("checkpoint-name").textContent = label;
  byId("print-checkpoint").textContent = `Checkpoint ${label}; ${place}`;
  byId("steps").textContent = steps[view.measure];
  const measure = data.measures[view.measure].label;
  byId("curve-title").textContent = `${measure[0].toUpperCase()}${measure.slice(1)} along the depth`;
  const { traces: drawn, key } = figures[view.measure];
  byId("optimum-label").style.display = drawn.some(({ meta }) => meta === "optimum") ? "" : "none";
  byId("log").checked = view.log;
  byId("key").querySelectorAll("li").forEach((entry, i) => {
    entry.hidden = !key.includes(i) || view[entry.dataset.toggle] === false;
  });
  const probe = probes.find((candidate) => candidate.place === view.layer);
  byId("selected").textContent = probe
    ? `${data.layers[view.layer]}: ${measure} ${probe.values[view.measure][1]}; more below.` : "";
  drawDetail(view);
  drawBody(view, select);
  return drawChart(view);
}

function update(change) {
  Object.assign(view, change);
  return draw();
}

function select(layer, show) {
  const shown = update({ layer });
  if (show) byId("detail").scrollIntoView({ block: "nearest" });
  return shown;
}

function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "Play";
}

function play() {
  if (playing !== null) return stop();
  const next = () => update({ checkpoint: view.checkpoint === last ? 0 : view.checkpoint + 1 });
  next();
  byId("play").textContent = "Pause";
  playing = setInterval(() => {
    if (view.checkpoint !== last) next();
    if (view.checkpoint === last) stop();
  }, PLAY_MS);
}

// Arrow keys on the curve: the next layer is selected and its label shown, as a pointer would.
async function onKey(event) {
  const { probes } = data.checkpoints[view.checkpoint];
  const at = probes.findIndex(({ place }) => place === view.layer);
  const end = probes.length - 1;
  const next = {
    ArrowRight: Math.min(end, at + 1), ArrowLeft: at < 0 ? end : Math.max(0, at - 1), Home: 0, End: end,
  }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  await select(probes[next].place, false);
  const found = byId("chart").data.flatMap(({ meta, x }, curveNumber) =>
    (meta === "targets" ? [{ curveNumber, pointNumber: x.indexOf(view.layer) }] : []));
  Plotly.Fx.hover("chart", found.filter(({ pointNumber }) => pointNumber >= 0));
}

// The curve has its size and colours from the screen, and is not laid out anew by the printer.
function forPaper(printing) {
  document.documentElement.classList.toggle("printing", printing);
  byId("chart").style.width = printing ? PAPER_WIDTH : "";
  draw();
}

function start() {
  const on = (id, event, change) => byId(id).addEventListener(event, ({ target }) => update(change(target)));
  byId("slider").max = last;
  for (const id of ["player", "others-label"]) byId(id).style.display = last ? "" : "none";
  byId("measure").append(...data.measures.map(({ label }, i) => make("option", { value: i }, label)));
  byId("measure").value = view.measure;
  byId("optimum").checked = view.optimum;
  on("measure", "change", ({ value }) => ({ measure: Number(value), log: data.measures[value].log }));
  for (const id of ["log", "optimum", "others"]) on(id, "change", ({ checked }) => ({ [id]: checked }));
  byId("slider").addEventListener("input", stop);
  on("slider", "input", ({ value }) => ({ checkpoint: Number(value) }));
  byId("search").addEventListener("input", ({ target }) => { view.search = target.value; drawBody(view, select); });
  byId("play").addEventListener("click", play);
  drawHead(() => drawBody(view, select));
  update({ log: data.measures[view.measure].log, layer: data.best });
  byId("chart").addEventListener("keydown", onKey);
  byId("chart").on("plotly_click", ({ points: [point] }) => select(point.x, false));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  addEventListener("beforeprint", () => forPaper(true));
  addEventListener("afterprint", () => forPaper(false));
}

if (data.frame) start();
else byId("curve-section").textContent = "The run has no probes yet.";

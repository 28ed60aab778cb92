// The curve as Python wrote it: colours filled in, zeros lifted onto a logarithmic scale.

const narrow = () => byId("chart").clientWidth < 560;

function traces(view) {
  const { floor, others } = data.measures[view.measure];
  const lifted = (trace) => (view.log && trace.yaxis !== "y2"
    ? { ...trace, y: trace.y.map((value) => (value === null ? null : Math.max(value, floor))) } : trace);
  const beside = view.others ? others.filter((_, i) => i !== view.checkpoint) : [];
  const { figures, probes } = data.checkpoints[view.checkpoint];
  const notes = Object.fromEntries(probes.map(({ place, note }) => [place, note]));
  const told = ({ x, text, meta }) => text.map((words, i) =>
    (data.frame.heads[x[i]] + words + (meta === "targets" ? notes[x[i]] : "")).replace(/\n/g, "<br>"));
  const labelled = (trace) => (trace.hoverinfo === "text" ? { ...trace, text: told(trace) } : trace);
  return [...beside, ...figures[view.measure].traces.filter(({ meta }) => view.optimum || meta !== "optimum")]
    .map((trace) => coloured(labelled(lifted(trace))));
}

function layout(view) {
  const { layout: base, log, ticks, selection } = data.frame;
  const selected = { ...selection, x0: view.layer - 0.25, x1: view.layer + 0.25 };
  const title = { text: data.measures[view.measure].axis, standoff: 8, font: { size: 13 } };
  return coloured({
    ...base,
    dragmode: matchMedia("(pointer: fine)").matches ? base.dragmode : false,
    shapes: view.layer === null ? base.shapes : [selected, ...base.shapes],
    xaxis: { ...base.xaxis, ...ticks[Number(narrow())] },
    // Zoom stays until another scale is chosen.
    yaxis: { ...base.yaxis, ...(view.log ? log : { type: "linear" }), title, uirevision: `${view.measure} ${view.log}` },
  });
}

const drawChart = (view) => Plotly.react("chart", traces(view), layout(view), {
  displaylogo: false, responsive: true, displayModeBar: narrow() ? false : "hover",
  // Named one by one: the default set has a button that uploads the chart.
  modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]], showSendToCloud: false,
  toImageButtonOptions: { format: "svg", filename: "linprobe" },
});

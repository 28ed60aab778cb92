// The curve. Everything that is drawn comes from `view`: checkpoint, measure, scale, selection.

const SYMBOLS = { D: "diamond", s: "square", "^": "triangle-up", v: "triangle-down", o: "circle" };
const FONT = "system-ui, Arial, DejaVu Sans, sans-serif";
const narrow = () => byId("chart").clientWidth < 560;
const css = (dash) => dash.map((length) => `${2 * length}px`).join(",");
// A logarithmic scale has no zero.
const placed = (value, view) =>
  (known(value) && view.log ? Math.max(value, data.measures[view.measure].floor) : value);

function hoverText(probe, view) {
  const { label } = data.measures[view.measure];
  const lines = [
    `<b>${escaped(data.layers[probe.place].replace(/(.{38})/g, "$1\n")).replace(/\n/g, "<br>")}</b>`,
    `${label} ${rate(probe.values[view.measure])}`,
  ];
  if (view.measure === 0) lines.push(`95 % interval ${span(probe.interval)}`);
  if (view.measure === 0 && probe.optimum) lines.push(`exact optimum ${span(probe.optimum)}`);
  lines.push(
    `l2 ${penalty(probe.l2)}${probe.edge ? " (end of the path)" : ""}`,
    `gap ${tiny(probe.gap)} nats${probe.standing === "failed" ? ", NOT certified" : ""}`,
    `${whole(probe.passes)} ${data.passes}, width ${whole(probe.width)}`,
  );
  return lines.join("<br>");
}

const lineOf = (x, y, line, more = {}) => ({
  type: "scatter", mode: "lines", x, y, line, hoverinfo: "skip", ...more,
});

// Solid where the paired test finds a change, dotted where it doesn't; all solid without tests.
function curves(probes, view) {
  const value = (probe) => placed(probe.values[view.measure], view);
  const tested = view.measure === 0 && probes.some((probe) => probe.verdict);
  const solid = { x: [], y: [] };
  const dotted = { x: [], y: [] };
  probes.slice(1).forEach((probe, i) => {
    const before = probes[i];
    const sure = !tested || probe.verdict === "falls" || probe.verdict === "rises";
    const part = sure ? solid : dotted;
    part.x.push(before.place, probe.place, null);
    part.y.push(value(before), value(probe), null);
  });
  return [
    lineOf(solid.x, solid.y, { color: colour("blue"), width: 2.5 }),
    lineOf(dotted.x, dotted.y, { color: colour("blue"), width: 2, dash: "1px,4px" }),
  ];
}

function points(probes, view) {
  const shown = probes.filter((probe) => known(probe.values[view.measure]));
  const looks = shown.map((probe) => data.looks[probe.standing]);
  const crowded = probes.length > 40;
  const bars = view.measure === 0;
  const y = shown.map((probe) => placed(probe.values[view.measure], view));
  const away = (i, end) => Math.abs(placed(shown[i].interval[end], view) - y[i]);
  return {
    type: "scatter", mode: "markers", x: shown.map((probe) => probe.place), y,
    hoverinfo: "skip",
    marker: {
      opacity: 1,
      size: shown.map((probe) => (probe.place === view.layer ? 13 : crowded ? 5 : 9)),
      symbol: looks.map((look) => SYMBOLS[look.marker]),
      color: looks.map((look) => colour(look.filled ? look.colour : "surface")),
      line: { width: looks.map((look) => (look.filled ? 0 : 2)), color: colour("vermilion") },
    },
    error_y: {
      type: "data", symmetric: false, visible: bars, color: faded("blue", 0.75),
      thickness: crowded ? 1 : 1.5, width: crowded ? 0 : 4,
      array: y.map((_, i) => away(i, 1)), arrayminus: y.map((_, i) => away(i, 0)),
    },
  };
}

// Where points lie on each other the smallest and last one is hit: the probe's.
function targets(probes, view) {
  const shown = probes.filter((probe) => known(probe.values[view.measure]));
  return {
    type: "scatter", mode: "markers", meta: "targets", marker: { size: 1, opacity: 0 },
    x: shown.map((probe) => probe.place),
    y: shown.map((probe) => placed(probe.values[view.measure], view)),
    customdata: shown.map((probe) => probe.place),
    text: shown.map((probe) => hoverText(probe, view)), hoverinfo: "text",
  };
}

// Where the exact optimum's test error must lie: a wide pale bar.
function optimum(probes, view) {
  const shown = probes.filter((probe) => probe.optimum);
  if (view.measure !== 0 || !view.optimum || !shown.length) return [];
  const x = shown.flatMap((probe) => [probe.place, probe.place, null]);
  const y = shown.flatMap((probe) => [...probe.optimum.map((end) => placed(end, view)), null]);
  const width = probes.length > 40 ? 4 : 10;
  return [lineOf(x, y, { color: faded("orange", 0.45), width })];
}

function unsolved(probes, view) {
  const lost = probes.filter((probe) => !known(probe.values[view.measure]));
  if (!lost.length) return [];
  const least = Math.min(
    ...probes.map((probe) => placed(probe.values[view.measure], view)).filter(known), 1);
  return [{
    type: "scatter", mode: "markers", x: lost.map((probe) => probe.place),
    y: lost.map(() => (view.log ? least : 0)), customdata: lost.map((probe) => probe.place),
    text: lost.map((probe) => `${hoverText(probe, view)}<br>no value`), hoverinfo: "text",
    marker: { symbol: "x-thin", size: 12, line: { width: 3, color: colour("vermilion") } },
  }];
}

function reference(item, view) {
  const line = { color: colour(item.colour), width: 1.5, dash: css(item.dash) };
  const name = escaped(item.label);
  if (known(item.value)) {
    const x = [-0.5, data.layers.length - 0.5];
    return lineOf(x, x.map(() => placed(item.value, view)), line);
  }
  const y = item.points.map((point) => placed(point.value, view));
  const text = item.points.map((point) =>
    [`<b>${escaped(data.short[point.place])}</b>`, `${name} ${rate(point.value)}`]
      .concat(point.draws > 1 ? [`${point.draws} draws, ${span([point.low, point.high])}`] : [])
      .concat(known(point.selectivity) ? [`selectivity ${rate(point.selectivity)}`] : [])
      .join("<br>"));
  return {
    type: "scatter", mode: narrow() && data.layers.length > 40 ? "lines" : "lines+markers",
    x: item.points.map((point) => point.place), y, line,
    text, hoverinfo: "text", customdata: item.points.map((point) => point.place),
    marker: {
      symbol: SYMBOLS[item.marker] || "circle", size: data.layers.length > 40 ? 3 : 6,
      color: line.color,
    },
    error_y: {
      type: "data", symmetric: false, thickness: 1, width: 0, color: line.color,
      visible: item.points.some((point) => point.draws > 1),
      array: item.points.map((point, i) => placed(point.high, view) - y[i]),
      arrayminus: item.points.map((point, i) => y[i] - placed(point.low, view)),
    },
  };
}

function otherCurves(view) {
  if (!view.others) return [];
  return data.checkpoints.flatMap((checkpoint, i) =>
    i === view.checkpoint ? [] : [lineOf(
      checkpoint.probes.map((probe) => probe.place),
      checkpoint.probes.map((probe) => placed(probe.values[view.measure], view)),
      { color: faded("muted", 0.55), width: 1.2 })]);
}

function traces(view) {
  const { probes, references } = data.checkpoints[view.checkpoint];
  return [
    ...otherCurves(view),
    ...(view.measure === 0 ? references.map((item) => reference(item, view)) : []),
    ...optimum(probes, view), ...curves(probes, view), points(probes, view),
    targets(probes, view), ...unsolved(probes, view),
  ];
}

// All names where they fit; else the first, the last and some at even distances.
function ticks() {
  const count = data.layers.length;
  const room = Math.max(3, Math.floor(byId("chart").clientWidth / (count > 12 ? 60 : 24)));
  const round = [1, 2, 5, 10, 16, 32, 64, 128, 256, 512, count];
  const step = round.find((distance) => (count - 1) / distance <= room) || 1;
  const places = data.layers.map((_, i) => i).filter((i) => i % step === 0 && count - 1 - i > step / 2);
  return [...places, count - 1];
}

// 1, 2 and 5 of each power of ten, with their whole value.
const LOG_TICKS = [-6, -5, -4, -3, -2, -1, 0, 1, 2].flatMap((power) =>
  [1, 2, 5].map((digit) => Number(`${digit}e${power}`)));

function layout(view) {
  const places = ticks();
  const axis = {
    color: colour("ink"), gridcolor: colour("line"), linecolor: colour("muted"), zeroline: false,
    tickfont: { size: narrow() ? 11 : 12 }, automargin: true,
  };
  const mark = data.mark ? [{
    x: 0.5, y: 0.5, xref: "paper", yref: "paper", showarrow: false, text: data.mark,
    textangle: -15, opacity: 0.3, font: { size: narrow() ? 30 : 50, color: colour("vermilion") },
  }] : [];
  const skip = known(data.skip) ? {
    shapes: [{
      type: "line", x0: data.skip, x1: data.skip, y0: 0, y1: 1, yref: "paper",
      line: { color: colour("ink"), width: 1, dash: "dot" },
    }],
    annotations: [...mark, {
      x: data.skip, y: 1, yref: "paper", yanchor: "bottom", showarrow: false,
      text: escaped(`skip enters ${data.short[data.skip]}`), font: { size: 11 },
    }],
  } : { annotations: mark };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
    font: { family: FONT, size: 13, color: colour("ink") },
    margin: { l: 8, r: 12, t: known(data.skip) ? 24 : 10, b: 8 }, hovermode: "closest",
    hoverdistance: 30,
    hoverlabel: {
      bgcolor: colour("raised"), bordercolor: colour("muted"), align: "left",
      font: { family: FONT, size: 13, color: colour("ink") },
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("muted"), activecolor: colour("ink") },
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    xaxis: {
      ...axis, tickvals: places, ticktext: places.map((i) => escaped(data.short[i])),
      tickangle: data.layers.length > 5 || narrow() ? -40 : 0, showgrid: false, ticks: "outside",
      range: [-0.5, data.layers.length - 0.5],
    },
    yaxis: {
      ...axis, type: view.log ? "log" : "linear", rangemode: view.log ? "normal" : "tozero",
      ...(view.log ? { tickvals: LOG_TICKS, ticktext: LOG_TICKS.map(String) } : {}),
      title: { text: data.measures[view.measure].axis, standoff: 8, font: { size: 13 } },
    },
    ...skip,
  };
}

const drawChart = (view) => Plotly.react("chart", traces(view), layout(view), {
  displaylogo: false, responsive: true, displayModeBar: narrow() ? false : "hover",
  // Named one by one: the default set has a button that uploads the chart.
  modeBarButtons: [["toImage", "zoom2d", "resetScale2d"]], showSendToCloud: false,
  toImageButtonOptions: { format: "svg", filename: "linprobe" },
});

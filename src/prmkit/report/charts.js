"use strict";
// Curves as small multiples on one step axis; pointing at one shows the step in all of them.

const PLOT = { left: 40, right: 42, top: 8, bottom: 20 };
const DASHES = { dashed: "5 3", rings: "2 3" };

let columnWidth = 300;

/** All columns of curves are equally wide; a figure in a closed section has no width of its own yet. */
function widthOf(figure) {
  columnWidth = figure.clientWidth || columnWidth;
  return columnWidth;
}

/** Round numbers from low to high: about `count`, and at least two. */
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  if (last - first < 1) return ticks(low, high, count * 1.5);
  return Array.from({ length: last - first + 1 }, (_, i) => +((first + i) * step).toPrecision(12));
}

/** An interval around the values, never empty; shares start at 0 and end at 1 where they come near it. */
function range(values, unit) {
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (unit === "share") {
    low = 0;
    high = high > 0.5 ? Math.max(1, high) : high;
  } else if (low >= 0 && low < 0.4 * high) low = 0;
  const pad = high > low ? (high - low) * 0.06 : Math.abs(high) * 0.1 || 0.01;
  return [low === 0 ? 0 : low - pad, high === 1 && unit === "share" ? 1 : high + pad];
}

/** An SVG with its axes. Returns the drawing and its two scales. */
function frame({ width, height, x, y, xTicks, yTicks, xLabel = format, label, plot = PLOT }) {
  const px = (v) => plot.left + ((v - x[0]) / (x[1] - x[0])) * (width - plot.left - plot.right);
  const py = (v) => height - plot.bottom - ((v - y[0]) / (y[1] - y[0])) * (height - plot.top - plot.bottom);
  const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
  for (const tick of yTicks ?? ticks(...y, 3)) {
    svg.append(shape("line", { class: "grid", x1: plot.left, x2: width - plot.right, y1: py(tick), y2: py(tick) }),
      shape("text", { class: "tick", x: plot.left - 5, y: py(tick) + 3.5, "text-anchor": "end" }, format(tick)));
  }
  for (const tick of xTicks) {
    svg.append(shape("line", { class: "axis", x1: px(tick), x2: px(tick), y1: height - plot.bottom, y2: height - plot.bottom + 3 }),
      shape("text", { class: "tick", x: px(tick), y: height - 5, "text-anchor": "middle" }, xLabel(tick)));
  }
  svg.append(shape("line", { class: "axis", x1: plot.left, x2: width - plot.right, y1: height - plot.bottom, y2: height - plot.bottom }));
  return { svg, px, py };
}

/** The points of one curve: {from, to, x, y, low, high}; steps without a number are left out. */
function pointsOf(run, series) {
  const source = run.curves[series.source];
  const [low, high] = (series.band ?? []).map((key) => source.values[key]);
  return (source.values[series.key] ?? []).flatMap((y, i) => y === null ? [] : [{
    from: source.from[i], to: source.to[i], x: (source.from[i] + source.to[i]) / 2, y,
    low: low?.[i] ?? y, high: high?.[i] ?? y,
  }]);
}

const path = (points, px, py, key = "y") => points.map((p, i) => `${i ? "L" : "M"}${px(p.x).toFixed(1)} ${py(p[key]).toFixed(1)}`).join("");

function area(upper, lower, px, py) {
  return `${path(upper, px, py, "high")}L${path([...lower].reverse(), px, py, "low").slice(1)}Z`;
}

/** Whether a curve goes up and down so much that a running mean reads better: it travels far more than it covers. */
function isNoisy(points) {
  if (points.length < 40) return false;
  const ys = points.map((p) => p.y);
  const travelled = ys.slice(1).reduce((sum, y, i) => sum + Math.abs(y - ys[i]), 0);
  return travelled > 3 * (Math.max(...ys) - Math.min(...ys));
}

/** Mean over a window of a tenth of the points, cut off at the ends. */
function smooth(points) {
  const reach = Math.ceil(points.length / 20);
  return points.map((p, i) => {
    const near = points.slice(Math.max(0, i - reach), i + reach + 1);
    return { ...p, y: near.reduce((sum, q) => sum + q.y, 0) / near.length };
  });
}

function drawLine(parent, curve, px, py) {
  const { points, series } = curve;
  const group = shape("g", { class: `curve ${series.style}`, style: `--c: ${curve.colour}` });
  if (series.band && points.some((p) => p.high > p.low)) group.append(shape("path", { class: "band", d: area(points, points, px, py) }));
  const noisy = isNoisy(points);
  if (noisy) group.append(shape("path", { class: "line raw", d: path(points, px, py) }));
  if (points.length > 1) group.append(shape("path", { class: "line", d: path(noisy ? smooth(points) : points, px, py), "stroke-dasharray": DASHES[series.style] }));
  if (points.length === 1 || series.style === "dots" || series.style === "rings") {
    for (const p of points) group.append(shape("circle", { cx: px(p.x), cy: py(p.y), r: 2.4 }));
  }
  parent.append(group);
}

/** Last values at the right edge, pushed apart so that none covers another. */
function endLabels(svg, curves, px, py, width) {
  const perRun = curves.length > 4;
  const seen = new Set();
  const labels = [];
  for (const curve of curves) {
    if (perRun && seen.has(curve.run)) continue;
    seen.add(curve.run);
    labels.push({ y: py(curve.points.at(-1).y), text: format(curve.points.at(-1).y), colour: curve.colour });
  }
  labels.sort((a, b) => a.y - b.y);
  labels.forEach((label, i) => { if (i) label.y = Math.max(label.y, labels[i - 1].y + 11); });
  const floor = svg.viewBox.baseVal.height - PLOT.bottom;
  for (let i = labels.length - 1; i >= 0; i -= 1) labels[i].y = Math.min(labels[i].y, labels[i + 1] ? labels[i + 1].y - 11 : floor);
  for (const label of labels.slice(0, 8)) {
    svg.append(shape("text", { class: "end", x: width - PLOT.right + 5, y: label.y + 3.5, style: `--c: ${label.colour}` }, label.text));
  }
}

const keyLine = (style, colour) => shape("svg", { class: "key", viewBox: "0 0 22 8", "aria-hidden": "true" },
  style === "fill"
    ? shape("rect", { x: 2, y: 0, width: 18, height: 8, style: `fill: ${colour}` })
    : shape("g", { class: `curve ${style}`, style: `--c: ${colour}` },
      shape("path", { class: "line", d: "M1 4L21 4", "stroke-dasharray": DASHES[style] }),
      style === "dots" || style === "rings" ? shape("circle", { cx: 11, cy: 4, r: 2.4 }) : null));

function caption(title, keys) {
  return node("figcaption", {}, node("span", { class: "title" }, title),
    keys.length > 1 ? node("span", { class: "keys" }, ...keys.map((k) => node("span", {}, keyLine(k.style, k.colour), k.label))) : null);
}

const stepsOf = (p) => (p.from === p.to ? `${p.from}` : `${p.from}\u2013${p.to}`);

/** One run: a row a curve, with its interval. */
function rowPerCurve(rows, lead, unit) {
  return rows.map(({ curve, point }) => node("tr", {},
    node("td", {}, keyLine(curve.series.style, curve.colour)),
    node("td", {}, curve.series.label),
    node("td", { class: "value" }, withUnit(point.y, unit)),
    node("td", { class: "aside" }, [
      curve.series.band ? `[${format(point.low)}, ${format(point.high)}]` : "",
      point.x === lead.x ? "" : `at step ${stepsOf(point)}`].filter(Boolean).join(" "))));
}

/** Several runs: a row a run, a column a kind of curve. */
function rowPerRun(rows, lead, unit) {
  const labels = [...new Set(rows.map((row) => row.curve.series.label))];
  const runs = [...new Set(rows.map((row) => row.curve.run))];
  const cell = (run, label) => {
    const row = rows.find((r) => r.curve.run === run && r.curve.series.label === label);
    if (!row) return node("td", {});
    const away = row.point.x === lead.x ? null : node("span", { class: "aside" }, ` at ${stepsOf(row.point)}`);
    return node("td", { class: "value" }, withUnit(row.point.y, unit), away);
  };
  const colour = (run) => rows.find((row) => row.curve.run === run).curve.colour;
  return [node("tr", {}, ...["", ...labels].map((label) => node("td", { class: "aside" }, label))),
    ...runs.map((run) => node("tr", { style: `--c: ${colour(run)}` },
      node("td", {}, node("span", { class: "chip" }), run.name), ...labels.map((label) => cell(run, label))))];
}

/** What the tooltip says near x, and the step that it snapped to. */
function readout(curves, x, unit) {
  const closer = (a, b) => (Math.abs(b.x - x) < Math.abs(a.x - x) ? b : a);
  const rows = curves.map((curve) => ({ curve, point: curve.points.reduce(closer) }));
  const lead = rows.map((row) => row.point).reduce(closer);
  const several = new Set(curves.map((c) => c.run)).size > 1;
  const title = lead.from === lead.to ? `step ${lead.from}` : `mean of steps ${stepsOf(lead)}`;
  const lines = (several ? rowPerRun : rowPerCurve)(rows, lead, unit);
  return { x: lead.x, content: [node("div", { class: "tip-title" }, title), node("table", {}, ...lines)] };
}

/** Crosshair and readout, by pointer and by arrow keys; `all` holds the crosshairs of every panel. */
function interactive(figure, svg, curves, panel, x, width, all) {
  let at = x[1];
  const show = (step, clientX, clientY) => {
    const read = readout(curves, step, panel.unit);
    at = read.x;
    for (const cross of all) cross.move(at);
    tooltip.show(clientX, clientY, ...read.content);
  };
  const hide = () => { for (const cross of all) cross.move(null); tooltip.hide(); };
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect();
    const position = ((event.clientX - box.left) / box.width) * width;
    const step = x[0] + ((position - PLOT.left) / (width - PLOT.left - PLOT.right)) * (x[1] - x[0]);
    show(Math.min(Math.max(step, x[0]), x[1]), event.clientX, event.clientY);
  });
  svg.addEventListener("pointerleave", hide);
  svg.addEventListener("blur", hide);
  svg.setAttribute("tabindex", "0");
  svg.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!way) return;
    event.preventDefault();
    const steps = [...new Set(curves.flatMap((c) => c.points.map((p) => p.x)))].sort((a, b) => a - b);
    const next = way > 0 ? steps.find((s) => s > at) : steps.findLast((s) => s < at);
    const box = svg.getBoundingClientRect();
    show(next ?? at, box.right - PLOT.right, box.top);
  });
}

function crosshair(svg, px, height) {
  const line = shape("line", { class: "cross", y1: PLOT.top, y2: height - PLOT.bottom, visibility: "hidden" });
  svg.append(line);
  return {
    move(x) {
      line.setAttribute("visibility", x === null ? "hidden" : "visible");
      if (x !== null) { line.setAttribute("x1", px(x)); line.setAttribute("x2", px(x)); }
    },
  };
}

const spoken = (title, curves) => `${title} by step. ${curves.map((c) =>
  `${c.run.name}, ${c.series.label}: first ${format(c.points[0].y)}, last ${format(c.points.at(-1).y)}`).join(". ")}`;

function finish(figure, title, panel, curves, drawing, width, height, x, all) {
  all.push(crosshair(drawing.svg, drawing.px, height));
  interactive(figure, drawing.svg, curves, panel, x, width, all);
  figure.append(drawing.svg);
}

function lineFigure(figure, panel, curves, x, all) {
  const [width, height] = [widthOf(figure), 138];
  const several = new Set(curves.map((c) => c.run)).size > 1;
  const styles = panel.series.map((s) => ({ ...s, colour: several ? "var(--muted)" : curves[0].colour }));
  figure.append(caption(panel.title, styles));
  const y = range([...curves.flatMap((c) => c.points.flatMap((p) => [p.low, p.high])), ...(panel.mark === null ? [] : [panel.mark])], panel.unit);
  const drawing = frame({ width, height, x, y, xTicks: ticks(...x, 4).filter(Number.isInteger), label: spoken(panel.title, curves) });
  const { svg, px, py } = drawing;
  if (panel.mark !== null) svg.append(shape("line", { class: "mark", x1: PLOT.left, x2: width - PLOT.right, y1: py(panel.mark), y2: py(panel.mark) }));
  for (const curve of [...curves].reverse()) drawLine(svg, curve, px, py);
  endLabels(svg, curves, px, py, width);
  finish(figure, panel.title, panel, curves, drawing, width, height, x, all);
}

/** Layers on top of each other, for one run. All runs share the height `top`. */
function stackFigure(figure, panel, curves, x, all, title, top) {
  const [width, height] = [widthOf(figure), 138];
  figure.append(caption(title, curves.map((c) => ({ style: "fill", colour: c.colour, label: c.series.label }))));
  const drawing = frame({ width, height, x, y: [0, top * 1.06 || 0.01], xTicks: ticks(...x, 4).filter(Number.isInteger), label: spoken(title, curves) });
  const { svg, px, py } = drawing;
  const floor = new Map();
  for (const curve of curves) {
    const layer = curve.points.map((p) => ({ x: p.x, low: floor.get(p.x) ?? 0, high: (floor.get(p.x) ?? 0) + p.y }));
    for (const p of layer) floor.set(p.x, p.high);
    const wide = layer.length > 1 ? layer : [{ ...layer[0], x: x[0] }, { ...layer[0], x: x[1] }];
    svg.append(shape("path", { class: "curve layer", style: `--c: ${curve.colour}`, d: area(wide, wide, px, py) }));
  }
  finish(figure, title, panel, curves, drawing, width, height, x, all);
}

/** Draw every panel for the runs that are not hidden. Returns how many curves there are. */
function drawCurves(data, container, hidden) {
  const open = new Set([...container.querySelectorAll("details[open]")].map((d) => d.dataset.group));
  container.replaceChildren();
  const steps = data.runs.flatMap((run) => Object.values(run.curves).flatMap((s) => (s.from.length ? [s.from[0], s.to.at(-1)] : [])));
  const span = [Math.min(...steps), Math.max(...steps)];
  const x = span[0] === span[1] ? [span[0] - 0.5, span[1] + 0.5] : span;
  const all = [];
  for (const name of new Set(data.panels.map((p) => p.group))) {
    const grid = node("div", { class: "grid" });
    container.append(name === "Other"
      ? node("details", { "data-group": name, open: open.has(name) }, node("summary", {}, "Other numbers that the runs wrote"), grid)
      : node("div", { class: "group" }, node("h3", {}, name), grid));
    for (const panel of data.panels.filter((p) => p.group === name)) drawPanel(data, panel, grid, hidden, x, all);
  }
  return container.querySelectorAll("figure .curve:not(.key *)").length;
}

function drawPanel(data, panel, grid, hidden, x, all) {
  const curvesOf = (run, index) => panel.series.map((series, s) => ({
    run, series, points: pointsOf(run, series), colour: panel.kind === "stack" ? `var(--phase-${s % 5})` : runColour(index),
  })).filter((curve) => curve.points.length);
  const perRun = data.runs.map((run, i) => (hidden.has(i) ? [] : curvesOf(run, i))).filter((curves) => curves.length);
  if (!perRun.length) return;
  const add = () => grid.appendChild(node("figure", { class: panel.kind }));
  if (panel.kind === "line") return lineFigure(add(), panel, perRun.flat(), x, all);
  const total = (curves) => {
    const sums = new Map();
    for (const p of curves.flatMap((c) => c.points)) sums.set(p.x, (sums.get(p.x) ?? 0) + p.y);
    return Math.max(...sums.values());
  };
  const top = Math.max(...perRun.map(total));
  for (const curves of perRun) {
    const title = data.runs.length > 1 ? `${panel.title}: ${curves[0].run.name}` : panel.title;
    stackFigure(add(), panel, curves, x, all, title, top);
  }
}

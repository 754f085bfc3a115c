"use strict";
// Right and wrong responses side by side: one row per question, one column per recorded step.

const SMALL = { left: 40, right: 10, top: 14, bottom: 20 };
const HEIGHT = 132;

const KINDS = [
  { key: "response", title: "Per response", note: "Mean process reward of each response. Right upwards, wrong downwards, each as shares of its own.", draw: histogram },
  { key: "step_mean", title: "Per step", note: "The same for each reasoning step, whether of a right or of a wrong response.", draw: histogram },
  { key: "position", title: "Along the response", note: "Mean step reward from the start to the end of the response, with 95% intervals over responses.", draw: alongResponse },
  { key: "around", title: "Around the first wrong step", note: "Wrong responses only, aligned at the step that is known to be the first wrong one.", draw: aroundError },
];

const total = (counts) => counts.reduce((a, b) => a + b, 0);
const classStyle = (verdict) => `--c: var(--${verdict})`;

function smallFrame(figure, options) {
  const width = figure.clientWidth || 300;
  const drawing = frame({ width, height: HEIGHT, plot: SMALL, ...options });
  figure.append(drawing.svg);
  return { ...drawing, width };
}

/** A line at zero: where a process reward says nothing. */
function zeroLine({ svg, px, py, width }, x, y, vertical) {
  if (vertical && x[0] < 0 && x[1] > 0) svg.append(shape("line", { class: "mark", x1: px(0), x2: px(0), y1: SMALL.top, y2: HEIGHT - SMALL.bottom }));
  if (!vertical && y[0] < 0 && y[1] > 0) svg.append(shape("line", { class: "mark", x1: SMALL.left, x2: width - SMALL.right, y1: py(0), y2: py(0) }));
}

function histogram(figure, kind, at, compared) {
  const found = at[kind.key];
  const edges = compared[kind.key === "response" ? "response_edges" : "step_edges"];
  const shares = (step, verdict) => step[kind.key][verdict].map((n) => n / Math.max(1, total(step[kind.key][verdict])));
  const most = Math.max(...compared.steps.flatMap((step) => [...shares(step, "right"), ...shares(step, "wrong")]));
  const x = [edges[0], edges.at(-1)];
  const y = [-most * 1.05, most * 1.05];
  const counts = { right: total(found.right), wrong: total(found.wrong) };
  const told = found.auc === null ? "" : `AUC ${found.auc.toFixed(2)}`;
  const drawing = smallFrame(figure, { x, y, xTicks: ticks(...x, 4), yTicks: [], label: `${kind.title}, step ${at.step}: ${counts.right} right, ${counts.wrong} wrong. ${told}` });
  const { svg, px, py, width } = drawing;
  for (const verdict of ["right", "wrong"]) {
    shares(at, verdict).forEach((share, i) => {
      if (!share) return;
      const end = verdict === "right" ? share : -share;
      svg.append(shape("rect", {
        class: "bar", style: classStyle(verdict), x: px(edges[i]) + 0.5, width: Math.max(1, px(edges[i + 1]) - px(edges[i]) - 1),
        y: Math.min(py(0), py(end)), height: Math.abs(py(end) - py(0)),
        onpointermove: (e) => tooltip.show(e.clientX, e.clientY, `${format(edges[i])} to ${format(edges[i + 1])}: ${found[verdict][i]} of ${counts[verdict]} ${verdict}`),
        onpointerleave: tooltip.hide,
      }));
    });
  }
  svg.append(shape("line", { class: "axis", x1: SMALL.left, x2: width - SMALL.right, y1: py(0), y2: py(0) }),
    shape("text", { class: "end", style: classStyle("right"), x: 0, y: py(0) - 22 }, "right"),
    shape("text", { class: "tick", x: 0, y: py(0) - 10 }, String(counts.right)),
    shape("text", { class: "end", style: classStyle("wrong"), x: 0, y: py(0) + 18 }, "wrong"),
    shape("text", { class: "tick", x: 0, y: py(0) + 30 }, String(counts.wrong)),
    shape("text", { class: "tick", x: width - SMALL.right, y: 10, "text-anchor": "end" }, told));
  zeroLine(drawing, x, y, true);
}

function profileLine({ svg, px, py }, points, verdict, name) {
  const group = shape("g", { class: "curve solid", style: classStyle(verdict) });
  const shown = points.map((p) => ({ ...p, y: p.mean, low: p.low ?? p.mean, high: p.high ?? p.mean }));
  group.append(shape("path", { class: "band", d: area(shown, shown, px, py) }), shape("path", { class: "line", d: path(shown, px, py) }));
  for (const p of shown) {
    group.append(shape("circle", {
      cx: px(p.x), cy: py(p.y), r: 2.4,
      onpointermove: (e) => tooltip.show(e.clientX, e.clientY, `${name(p.x)}, ${verdict}: ${signed(p.mean)} [${format(p.low)}, ${format(p.high)}], ${p.n} responses`),
      onpointerleave: tooltip.hide,
    }));
  }
  svg.append(group);
}

/** One vertical range for all recorded steps, so that the columns can be compared. */
const profileRange = (lists) => range(lists.flat().flatMap((p) => [p.low ?? p.mean, p.high ?? p.mean, 0]), "");

function alongResponse(figure, kind, at, compared) {
  const y = profileRange(compared.steps.flatMap((step) => Object.values(step.position)));
  const last = Math.max(...Object.values(at.position).flat().map((p) => p.x));
  const name = (x) => (x === 0 ? "start" : x === last ? "end" : `${Math.round((100 * (x + 0.5)) / (last + 1))}%`);
  const drawing = smallFrame(figure, { x: [-0.3, last + 0.3], y, xTicks: [0, last], xLabel: name, label: `${kind.title}, step ${at.step}` });
  zeroLine(drawing, [0, 0], y, false);
  for (const verdict of ["right", "wrong"]) if (at.position[verdict].length) profileLine(drawing, at.position[verdict], verdict, name);
}

function aroundError(figure, kind, at, compared) {
  const y = profileRange(compared.steps.map((step) => step.around));
  const name = (x) => (x === 0 ? "first wrong" : signed(x));
  const drawing = smallFrame(figure, { x: [-3.3, 3.3], y, xTicks: [-3, -2, -1, 0, 1, 2, 3], xLabel: (x) => (x ? signed(x) : "wrong"), label: `${kind.title}, step ${at.step}` });
  zeroLine(drawing, [0, 0], y, false);
  drawing.svg.append(shape("line", { class: "mark", x1: drawing.px(0), x2: drawing.px(0), y1: SMALL.top, y2: HEIGHT - SMALL.bottom }));
  profileLine(drawing, at.around, "wrong", name);
}

function drawCompare(run, container) {
  container.replaceChildren();
  if (!run.compare) {
    container.append(node("p", { class: "note" }, "This run recorded no process rewards of judged responses, so there is nothing to compare."));
    return;
  }
  const steps = run.compare.steps;
  for (const kind of KINDS) {
    if (kind.key === "around" && !steps.some((step) => step.around.length)) continue;
    const columns = node("div", { class: "columns", style: `--n: ${steps.length}` });
    container.append(node("div", { class: "row" }, node("div", { class: "row-head" }, node("h4", {}, kind.title), node("p", { class: "note" }, kind.note)), columns));
    for (const at of steps) {
      const figure = columns.appendChild(node("figure", {}, node("figcaption", {}, node("span", { class: "title" }, `step ${at.step}`))));
      if (kind.key === "around" && !at.around.length) figure.append(node("p", { class: "note" }, "No wrong response whose first wrong step is known."));
      else kind.draw(figure, kind, at, run.compare);
    }
  }
}

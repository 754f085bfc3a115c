"use strict";
// Recorded responses, coloured by what each token or step was given.

const MODES = [
  { value: "token", label: "reward per token" },
  { value: "step", label: "reward per step" },
  { value: "advantage", label: "advantage" },
];
const BADGES = { right: "\u2713 right", wrong: "\u2717 wrong" };

const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const valuesOf = (response, mode) => (mode === "advantage" ? response.advantages : response.rewards);

/** Token indices by step, in order. */
function tokensBySteps(response) {
  const steps = new Map();
  response.step_of.forEach((step, i) => steps.set(step, [...(steps.get(step) ?? []), i]));
  return [...steps];
}

/** What full colour stands for: the 98th percentile of the absolute value over all that the run shows. */
function fullScale(run, mode) {
  const responses = run.rollouts.flatMap((r) => r.shown).filter((r) => valuesOf(r, mode));
  const sizes = responses.flatMap((r) => (mode === "step"
    ? tokensBySteps(r).map(([, tokens]) => Math.abs(mean(tokens.map((i) => r.rewards[i]))))
    : valuesOf(r, mode).map(Math.abs))).sort((a, b) => a - b);
  return sizes.length ? sizes[Math.floor((sizes.length - 1) * 0.98)] || 1 : 1;
}

/** Colour on a scale symmetric about 0, where nothing is coloured. */
function tint(element, value, scale) {
  element.classList.add(value < 0 ? "negative" : "positive");
  element.style.setProperty("--a", Math.min(1, Math.abs(value) / scale).toFixed(3));
  return element;
}

const visible = (piece, isLast) => (piece === "" ? (isLast ? "\u25a1" : "\u25e6") : piece.replace(/\n/g, "\u21b5\n"));

function responseText(response, mode, scale) {
  const characters = Array.from(response.text); // ends count characters, not UTF-16 units
  const values = valuesOf(response, mode);
  const piece = (i) => characters.slice(i ? response.ends[i - 1] : 0, response.ends[i]).join("");
  const box = node("div", { class: "text" });
  for (const [step, tokens] of tokensBySteps(response)) {
    const isError = step === response.first_error;
    const group = box.appendChild(node("span", { class: isError ? "step first-error" : "step" }));
    if (isError) group.append(node("span", { class: "flag", title: "first wrong step" }, "first wrong"));
    for (const i of tokens) {
      const token = node("span", { class: piece(i) ? "token" : "token empty", "data-i": i }, visible(piece(i), i === response.ends.length - 1));
      group.append(values && mode !== "step" ? tint(token, values[i], scale) : token);
    }
    if (mode !== "step" || !values) continue;
    const value = mean(tokens.map((i) => values[i]));
    tint(group, value, scale).append(node("span", { class: "step-value" }, signed(+value.toPrecision(2))));
  }
  const rest = characters.slice(response.ends.at(-1) ?? 0).join("");
  if (rest) box.append(rest);
  box.addEventListener("pointerover", (event) => tokenTip(event, response, piece));
  box.addEventListener("pointerleave", tooltip.hide);
  return box;
}

function tokenTip(event, response, piece) {
  const i = Number(event.target.closest(".token")?.dataset.i ?? NaN);
  if (Number.isNaN(i)) return tooltip.hide();
  const row = (label, value) => node("tr", {}, node("td", {}, label), node("td", { class: "value" }, value));
  const step = response.step_of[i];
  const siblings = response.step_of.flatMap((s, j) => (s === step ? [j] : []));
  const rows = [];
  if (response.rewards) rows.push(row("process reward", signed(response.rewards[i])), row(`mean of step ${step}`, signed(mean(siblings.map((j) => response.rewards[j])))));
  if (response.advantages) rows.push(row("advantage", signed(response.advantages[i])));
  const title = piece(i) === "" ? `token ${i}, no characters` : `token ${i} ${JSON.stringify(piece(i))}`;
  tooltip.show(event.clientX, event.clientY, node("div", { class: "tip-title" }, title), node("table", {}, ...rows));
}

function responseRow(response, mode, scale) {
  const notes = [];
  if (response.outcome !== null && response.outcome !== 0 && response.outcome !== 1) notes.push(`outcome ${format(response.outcome)}`);
  if (response.finish === "length") notes.push("cut at the limit");
  if (response.finish === "error") notes.push("sampling failed");
  if (response.rewards?.length) notes.push(`mean ${signed(+mean(response.rewards).toPrecision(2))}`);
  if (response.detail) notes.push(response.detail);
  const badge = BADGES[response.verdict] ?? `? ${response.status === "ok" ? "undecided" : response.status}`;
  return node("li", { class: `response ${response.verdict}` },
    node("div", { class: "verdict" }, node("span", { class: "badge" }, badge), ...notes.map((text) => node("span", { class: "aside" }, text))),
    responseText(response, mode, scale));
}

const scaleBar = (scale) => node("div", { class: "scale" },
  node("span", {}, signed(-scale)), node("span", { class: "bar", "aria-hidden": "true" }), node("span", {}, signed(scale)),
  node("span", { class: "aside" }, "\u25a1 end token"));

/** Show the responses that the choices leave. Returns how many. */
function drawRollouts(run, container, { step, verdict, mode }) {
  container.replaceChildren();
  const recorded = run.rollouts.find((r) => r.step === step);
  if (!recorded) {
    container.append(node("p", { class: "note" }, "This run recorded no rollouts."));
    return 0;
  }
  const shown = recorded.shown.filter((r) => verdict === "all" || r.verdict === verdict);
  const scale = fullScale(run, mode);
  const of = shown.length < recorded.recorded ? ` of the ${recorded.recorded} recorded` : "";
  container.append(node("div", { class: "status" },
    node("span", { role: "status" }, `${shown.length} responses${of} at step ${step}`),
    shown.some((r) => valuesOf(r, mode)) ? scaleBar(scale) : node("span", { class: "aside" }, mode === "advantage" ? "no advantages recorded" : "no process rewards recorded")));
  let list = null;
  shown.forEach((response, i) => {
    if (!list || shown[i - 1].id !== response.id) {
      list = node("ul", {});
      container.append(node("article", { class: "prompt" },
        node("header", {}, node("p", { class: "prompt-text" }, response.prompt),
          node("p", { class: "aside" }, `${response.id} \u00b7 answer ${response.answer}`)), list));
    }
    list.append(responseRow(response, mode, scale));
  });
  return shown.length;
}

"use strict";
// Scored solutions: each step in the colour of its reward, filtered and sorted by aggregates.

const BADGES = { right: "\u2713 right", wrong: "\u2717 wrong", unknown: "? outcome unknown" };

/** From -1 (wholly red) over 0 (no colour) to 1 (wholly green). */
function shade(value, scale, kind) {
  const at = kind === "logit" ? 1 / (1 + Math.exp(-value)) : value;
  const reach = at < scale.middle ? scale.middle - scale.low : scale.high - scale.middle;
  return reach > 0 ? Math.max(-1, Math.min(1, (at - scale.middle) / reach)) : Math.sign(at - scale.middle);
}

const shownReward = (value, kind) => (kind === "probability" ? format(value) : signed(value));

function labelMark(label, right) {
  if (label === null || label === undefined) return null;
  if (label === "neutral") return node("span", { class: "label", title: "labelled neutral" }, "\u25cb");
  const text = (right ? "\u2713" : "\u2717") + (label === 0 || label === 1 ? "" : format(label));
  return node("span", { class: `label ${right ? "right" : "wrong"}`, title: `labelled ${right ? "right" : "wrong"} (${format(label)})` }, text);
}

function solutionText(row, data, mode) {
  const perToken = mode === "token_rewards";
  const values = row[perToken ? "rewards" : mode];
  const lowest = row.rewards.indexOf(Math.min(...row.rewards));
  const box = node("div", { class: "text" });
  row.steps.forEach((text, k) => {
    const strength = perToken ? 0 : shade(values[k], data.scales[mode], mode === "rewards" ? data.kind : "log_ratio");
    const names = ["step", strength < 0 ? "negative" : "positive"];
    if (k === lowest && row.steps.length > 1) names.push("lowest");
    if (k === row.first_error) names.push("first-error");
    const step = node("span", { class: names.join(" "), "data-k": k });
    step.style.setProperty("--a", Math.abs(strength).toFixed(3));
    if (k === row.first_error) step.append(node("span", { class: "flag", title: "first step that is labelled wrong" }, "first wrong"));
    const mark = labelMark(row.labels?.[k], row.right[k]);
    if (perToken) { // the text between steps belongs to tokens
      if (mark) step.append(mark);
      step.append(...tokenSpans(row, k, data));
      return box.append(step);
    }
    step.append(text, node("span", { class: "step-value" }, shownReward(values[k], data.kind)));
    if (mark) step.append(mark);
    box.append(step, k + 1 < row.steps.length ? (/\n/.test(row.separator) ? "\n" : row.separator || " ") : "");
  });
  box.addEventListener("pointerover", (event) => stepTip(event, row, data));
  box.addEventListener("pointerleave", tooltip.hide);
  return box;
}

/** The tokens of step k, each in the colour of its own reward. */
function tokenSpans(row, k, data) {
  return row.tokens.flatMap((text, i) => {
    if (row.step_of_token[i] !== k) return [];
    const strength = shade(row.token_rewards[i], data.scales.token_rewards, data.kind);
    const token = node("span", { class: `token ${strength < 0 ? "negative" : "positive"}`, "data-i": i }, text || "\u25a1");
    if (!text) token.classList.add("empty");
    token.style.setProperty("--a", Math.abs(strength).toFixed(3));
    return [token];
  });
}

function stepTip(event, row, data) {
  const k = Number(event.target.closest(".step")?.dataset.k ?? NaN);
  if (Number.isNaN(k)) return tooltip.hide();
  const line = (label, value) => node("tr", {}, node("td", {}, label), node("td", { class: "value" }, value));
  const rows = [line("reward", shownReward(row.rewards[k], data.kind)), line("sum up to here", shownReward(row.cumulative[k], data.kind))];
  const label = row.labels?.[k];
  if (label !== null && label !== undefined) rows.push(line("label", String(label)));
  const i = event.target.closest(".token")?.dataset.i;
  if (i !== undefined) rows.unshift(line(`token ${i}`, signed(row.token_rewards[i])));
  tooltip.show(event.clientX, event.clientY, node("div", { class: "tip-title" }, `step ${k + 1} of ${row.steps.length}`), node("table", {}, ...rows));
}

function solutionRow(row, data, view) {
  const numbers = Object.entries(row.aggregates).map(([name, value]) =>
    node("div", { class: name === view.aggregate ? "chosen" : null }, node("dt", {}, name), node("dd", {}, shownReward(value, name === "prod" ? "probability" : data.kind))));
  const notes = [];
  if (row.answer !== null && row.answer !== undefined) notes.push(`answer ${row.answer}`);
  if (row.outcome !== null && row.outcome !== 0 && row.outcome !== 1) notes.push(`outcome ${format(row.outcome)}`);
  return node("li", { class: `response ${row.verdict}`, "data-id": row.id },
    node("div", { class: "verdict" }, node("span", { class: "badge" }, BADGES[row.verdict]),
      node("span", { class: "aside" }, row.id), ...notes.map((text) => node("span", { class: "aside" }, text)),
      node("dl", { class: "numbers" }, ...numbers)),
    solutionText(row, data, view.mode));
}

/** What the colours mean: three numbers under a bar, and where they come from. */
function legend(data, mode) {
  const { low, middle, high } = data.scales[mode];
  const absolute = data.kind !== "log_ratio";
  const show = (value) => (absolute ? format(value) : signed(+value.toPrecision(3)));
  const origin = data.kind === "logit" ? "sigmoid of the reward" : absolute ? "probability that the step is right"
    : `5%, 50% and 95% of all ${{ rewards: "step rewards", cumulative: "prefix sums", token_rewards: "token rewards" }[mode]} in the file`;
  return node("div", { class: "scale" }, node("span", {}, show(low)), node("span", { class: "bar", "aria-hidden": "true" }),
    node("span", {}, show(high)), node("span", { class: "aside" }, `no colour at ${show(middle)} \u00b7 ${origin}`));
}

/** The rows that the choices leave, in the order chosen. */
function chosenRows(data, view) {
  const value = (row) => row.aggregates[view.aggregate];
  const rows = data.rows.filter((row) => (view.verdict === "all" || row.verdict === view.verdict)
    && (view.least === null || value(row) >= view.least) && (view.most === null || value(row) <= view.most));
  if (view.order !== "file") rows.sort((a, b) => (view.order === "lowest" ? 1 : -1) * (value(a) - value(b)));
  return rows;
}

/** Show the solutions that the choices leave. Returns how many. */
function drawSolutions(data, container, view) {
  const rows = chosenRows(data, view);
  const of = data.num_rows > data.rows.length ? ` \u00b7 the page holds the first ${data.rows.length} of ${data.num_rows}` : "";
  container.replaceChildren(node("div", { class: "status" },
    node("span", { role: "status" }, `${rows.length} solution${rows.length === 1 ? "" : "s"}${of}`), legend(data, view.mode)));
  let list = null;
  rows.forEach((row, i) => {
    if (!list || rows[i - 1].prompt !== row.prompt) {
      list = node("ul", {});
      container.append(node("article", { class: "prompt" }, node("header", {}, node("p", { class: "prompt-text" }, row.prompt),
        row.reference ? node("p", { class: "aside" }, `reference answer ${row.reference}`) : null), list));
    }
    list.append(solutionRow(row, data, view));
  });
  return rows.length;
}

function main() {
  const data = JSON.parse(byId("data").textContent);
  const view = { mode: "rewards", verdict: "all", aggregate: "min", order: "file", least: null, most: null };
  const draw = () => { document.body.dataset.solutions = String(drawSolutions(data, byId("solutions"), view)); };
  const pick = (key) => (value) => { view[key] = value; draw(); };
  const bound = (key, label) => node("input", { type: "number", step: "any", "aria-label": label, placeholder: label, oninput: (event) => {
    view[key] = event.target.value === "" ? null : Number(event.target.value);
    draw();
  } });
  const named = (values) => values.map((value) => ({ value, label: value }));
  const verdicts = new Set(data.rows.map((row) => row.verdict));
  const safe = node("input", { type: "checkbox", onchange: (event) => document.body.classList.toggle("safe", event.target.checked) });
  byId("controls").append(...[
    data.kind === "log_ratio" ? choice("colour", [{ value: "rewards", label: "reward of a step" }, { value: "cumulative", label: "sum up to the step" },
      ...(data.rows.every((row) => row.tokens) ? [{ value: "token_rewards", label: "reward of a token" }] : [])], view.mode, pick("mode")) : null,
    verdicts.size > 1 ? choice("outcome", named(["all", "right", "wrong", "unknown"].filter((v) => v === "all" || verdicts.has(v))), "all", pick("verdict")) : null,
    choice("aggregate", named(Object.keys(data.rows[0].aggregates)), view.aggregate, pick("aggregate")),
    node("div", { class: "range" }, bound("least", "at least"), bound("most", "at most")),
    choice("order", [{ value: "file", label: "as in the file" }, { value: "lowest", label: "lowest first" }, { value: "highest", label: "highest first" }], view.order, pick("order")),
    node("label", { class: "check" }, safe, "blue and orange"),
  ].filter((control) => control !== null));
  draw();
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tooltip.hide(); });
}

window.addEventListener("error", (event) => { document.body.dataset.error = String(event.message); });
try {
  main();
  document.body.dataset.ready = "true";
} catch (error) {
  document.body.dataset.error = String(error.stack ?? error);
  throw error;
}

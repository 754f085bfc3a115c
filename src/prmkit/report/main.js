"use strict";
// Puts the page together, and says on <body> what came of it.

function main() {
  const data = JSON.parse(byId("data").textContent);
  const hidden = new Set();
  const view = { run: 0, step: null, verdict: "all", mode: "step", safe: false };
  const run = () => data.runs[view.run];
  const report = (name, count) => { document.body.dataset[name] = String(count); };

  const curves = () => report("curves", drawCurves(data, byId("curves"), hidden));
  const rollouts = () => report("rollouts", drawRollouts(run(), byId("rollouts"), view));

  function controls() {
    const recorded = run().rollouts;
    const has = (mode) => recorded.some((r) => r.shown.some((s) => valuesOf(s, mode)));
    if (!recorded.some((r) => r.step === view.step)) view.step = recorded.at(-1)?.step ?? null;
    if (!has(view.mode)) view.mode = has("step") ? "step" : "advantage";
    const pick = (key) => (value) => { view[key] = value; rollouts(); };
    const safe = node("input", { type: "checkbox", checked: view.safe, onchange: (event) => {
      view.safe = event.target.checked;
      document.body.classList.toggle("safe", view.safe);
    } });
    byId("rollout-controls").replaceChildren(...(recorded.length ? [
      choice("at step", recorded.map((r) => ({ value: r.step, label: String(r.step) })), view.step, pick("step")),
      choice("verdict", ["all", "right", "wrong", "undecided"].map((v) => ({ value: v, label: v })), view.verdict, pick("verdict")),
      choice("colour", MODES.map((m) => ({ ...m, disabled: !has(m.value) })), view.mode, pick("mode")),
      node("label", { class: "check" }, safe, "blue and orange"),
    ] : []));
  }

  function inside() {
    controls();
    drawCompare(run(), byId("compare"));
    rollouts();
  }

  if (data.runs.length > 1) {
    const options = data.runs.map((r, i) => ({ value: i, label: r.name, colour: runColour(i) }));
    byId("run-picker").append(choice("run", options, 0, (i) => { view.run = i; inside(); }));
    byId("legend").append(node("div", { class: "choice", role: "group", "aria-label": "runs shown" },
      node("span", { class: "choice-label", "aria-hidden": "true" }, "runs shown"),
      ...options.map((option) => node("button", { type: "button", "aria-pressed": "true", style: `--c: ${option.colour}`, onclick: (event) => {
        const show = hidden.has(option.value);
        if (show) hidden.delete(option.value); else hidden.add(option.value);
        event.currentTarget.setAttribute("aria-pressed", String(show));
        curves();
      } }, node("span", { class: "chip", "aria-hidden": "true" }), option.label))));
  }
  curves();
  inside();

  let width = window.innerWidth;
  let timer = 0;
  window.addEventListener("resize", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (window.innerWidth === width) return;
      width = window.innerWidth;
      curves();
      drawCompare(run(), byId("compare"));
    }, 120);
  });
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

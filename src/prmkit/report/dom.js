"use strict";
// Elements, numbers as text, groups of buttons and the tooltip. Text is only ever set as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

const node = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const shape = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);
const byId = (id) => document.getElementById(id);
const runColour = (index) => `var(--run-${index % 8})`;

/** A number in three significant digits, with a real minus sign. */
function format(value) {
  const size = Math.abs(value);
  let text;
  if (value === 0) text = "0";
  else if (size >= 1e6) text = `${+(value / 1e6).toPrecision(3)}M`;
  else if (size >= 1e4) text = `${+(value / 1e3).toPrecision(3)}k`;
  else if (size >= 100) text = value.toFixed(0);
  else if (size < 1e-3) text = value.toExponential(1).replace(".0e", "e").replace("e-", "e\u2212");
  else text = String(+value.toPrecision(3));
  return text.replace(/^-/, "\u2212");
}

/** As `format`, with its sign always there: for rewards. */
const signed = (value) => (value > 0 ? "+" : "") + format(value);

const UNITS = { share: "", tokens: " tokens", s: " s" };
const withUnit = (value, unit) => format(value) + (UNITS[unit] ?? "");

/** Buttons of which one is pressed. `options`: {value, label, disabled}. */
function choice(label, options, chosen, pick) {
  const buttons = options.map((option) =>
    node("button", {
      type: "button",
      "aria-pressed": String(option.value === chosen),
      disabled: option.disabled,
      style: option.colour ? `--c: ${option.colour}` : null,
      onclick: () => {
        buttons.forEach((button, i) => button.setAttribute("aria-pressed", String(options[i].value === option.value)));
        pick(option.value);
      },
    }, option.colour ? node("span", { class: "chip", "aria-hidden": "true" }) : null, option.label));
  return node("div", { class: "choice", role: "group", "aria-label": label },
    node("span", { class: "choice-label", "aria-hidden": "true" }, label), ...buttons);
}

const tooltip = {
  show(x, y, ...content) {
    const box = byId("tooltip");
    box.replaceChildren(...content);
    box.hidden = false;
    const left = x + 14 + box.offsetWidth > window.innerWidth ? x - 14 - box.offsetWidth : x + 14;
    const top = Math.min(y + 14, window.innerHeight - box.offsetHeight - 6);
    box.style.left = `${Math.max(4, left)}px`;
    box.style.top = `${Math.max(4, top)}px`;
  },
  hide() {
    byId("tooltip").hidden = true;
  },
};

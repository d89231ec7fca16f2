// The threshold: a slider with what each setting would have cost and brought on validation data drawn above it.

import { byId, el, share, similarity } from "./parts.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 1000;
const HEIGHT = 100;
const RUG = 14;

function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

/** Rates at a threshold: between two points of the curve, on the line that joins them. */
export function ratesAt(curve, threshold) {
  if (!curve.length) return { false_filter_rate: null, caught: null };
  const after = curve.findIndex((point) => point.threshold >= threshold);
  if (after < 0) return curve.at(-1);
  if (after === 0 || curve[after].threshold === threshold) return curve[after];
  const [low, high] = [curve[after - 1], curve[after]];
  const part = (threshold - low.threshold) / (high.threshold - low.threshold);
  const between = (name) => (low[name] === null || high[name] === null ? null : low[name] + part * (high[name] - low[name]));
  return { false_filter_rate: between("false_filter_rate"), caught: between("caught") };
}

/** The slider. `moved(threshold, settled)` is called with a number, or null for "as calibrated". */
export class Dial {
  constructor(moved) {
    this.input = byId("threshold");
    this.svg = byId("curve");
    this.svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT + RUG}`);
    this.flag = el("span", { class: "flag", hidden: true }, "calibrated");
    this.svg.parentElement.append(el("div", { class: "rail", "aria-hidden": "true" }, this.flag));
    this.curve = [];
    this.measured = null; // what the calibration itself did on validation data
    this.calibrated = 1;
    this.value = null;
    this.ticks = [];
    this.input.addEventListener("input", () => moved(this.#read(), false));
    this.input.addEventListener("change", () => moved(this.#read(), true));
    byId("calibrated").addEventListener("click", () => moved(null, true));
  }

  /** Lowest similarity of the slider; lower ones lie at its left end. */
  get low() {
    return Number(this.input.min);
  }

  /** Where a similarity lies on the slider, from 0 to 1. */
  place(value) {
    return Math.min(1, Math.max(0, (value - this.low) / (1 - this.low)));
  }

  /** What is applied. */
  get threshold() {
    return this.value ?? this.calibrated;
  }

  #read() {
    const step = Number(this.input.step);
    const value = Number(this.input.value);
    return Math.abs(value - this.calibrated) <= step / 2 ? null : value;
  }

  /** Take the calibration of a model. */
  setCalibration({ threshold, curve, calibrated, keeps_everything: keepsAll }) {
    this.curve = curve;
    this.measured = calibrated;
    this.calibrated = threshold === null ? 1 : Math.min(threshold, 1);
    const real = curve.map((point) => point.threshold).filter((one) => one > -1);
    const lowest = Math.min(this.calibrated, ...(real.length ? real : [0]));
    this.input.min = Math.max(-1, Math.min(0.95, Math.floor(lowest * 20) / 20));
    this.flag.hidden = keepsAll;
    const place = this.place(this.calibrated);
    this.flag.style.left = `${place * 100}%`;
    this.flag.classList.toggle("at-end", place > 0.93);
    this.flag.classList.toggle("at-start", place < 0.07);
    byId("calibrated").textContent = keepsAll ? "Back to: keep everything" : `Back to calibrated, ${similarity(this.calibrated)}`;
    this.#draw(keepsAll);
    this.set(this.value);
  }

  /** Move the slider; null: to the calibrated threshold. */
  set(value) {
    this.value = value;
    this.input.value = this.threshold;
    const rates = value === null && this.measured ? this.measured : ratesAt(this.curve, this.threshold);
    byId("threshold-value").textContent = similarity(this.threshold);
    byId("false-rate").textContent = share(rates.false_filter_rate);
    byId("caught-rate").textContent = share(rates.caught);
    byId("calibrated").disabled = value === null;
    this.input.setAttribute("aria-valuetext", `${similarity(this.threshold)}${value === null ? ", as calibrated" : ""}`);
    if (this.now) for (const end of ["x1", "x2"]) this.now.setAttribute(end, this.place(this.threshold) * WIDTH);
  }

  /** One tick below the curve for each similarity. */
  setTicks(values) {
    for (const tick of this.ticks) tick.remove();
    this.ticks = values.map((value) => {
      const x = value === null ? 0 : this.place(value) * WIDTH;
      return shape("line", { class: "tick", x1: x, x2: x, y1: HEIGHT + 2, y2: value === null ? HEIGHT + 2 : HEIGHT + RUG });
    });
    this.svg.append(...this.ticks);
  }

  /** Say of each tick whether it is dropped. */
  markTicks(dropped) {
    this.ticks.forEach((tick, position) => tick.classList.toggle("gone", dropped[position]));
  }

  #draw(keepsAll) {
    const x = (value) => (this.place(value) * WIDTH).toFixed(1);
    const line = (name) =>
      this.curve
        .filter((point) => point[name] !== null)
        .map((point, position) => `${position ? "L" : "M"}${x(point.threshold)} ${((1 - point[name]) * HEIGHT).toFixed(1)}`)
        .join("");
    const made = [shape("line", { class: "ground", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT })];
    for (const [name, kind] of [["caught", "disliked"], ["false_filter_rate", "liked"]]) {
      const path = line(name);
      if (path) made.push(shape("path", { class: `line ${kind}`, d: path }));
    }
    const upright = (kind, at) => shape("line", { class: kind, x1: x(at), x2: x(at), y1: 0, y2: HEIGHT });
    if (!keepsAll) made.push(upright("mark", this.calibrated));
    this.now = upright("now", this.threshold);
    this.svg.replaceChildren(...made, this.now, ...this.ticks);
    byId("curve-words").textContent = this.curve.length
      ? "Two curves over the threshold: the share of liked candidates that would be dropped and the share of disliked candidates that would be caught, on validation data. Both fall as the threshold rises; the figures below say them for the slider's place."
      : "The calibration of this model has no curve.";
  }
}

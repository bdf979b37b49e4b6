/* What happens when: a strip to go to any time, and a lane for each class with its score and its segments. */

import { clock, make, percent, svg } from "./dom.js";

const COLOURS = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7f7f7f"]; // as in the reports
const MOST_LANES = 8;
const FINE = 0.5, COARSE = 5; // seconds of the arrow keys, and of Page Up and Page Down

/* {name, segments, points} of the classes that are seen longest; points are [seconds, score]. */
function lanesOf({ segments, curve, rules }) {
  const lanes = new Map();
  const lane = (name) => lanes.get(name) ?? lanes.set(name, { name, segments: [], points: [] }).get(name);
  for (const one of segments) lane(one.label).segments.push(one);
  for (const { label, scores } of curve.classes) {
    lane(label).points = scores.map((score, place) => [(curve.start_seconds[place] + curve.end_seconds[place]) / 2, score]);
  }
  const seconds = ({ segments: own }) => own.reduce((sum, one) => sum + one.end_seconds - one.start_seconds, 0);
  const best = ({ points }) => Math.max(0, ...points.map(([, score]) => score));
  const isSeen = (one) => one.segments.length > 0 || best(one) >= rules.off; // others would be lines along the floor
  return [...lanes.values()].filter(isSeen).sort((a, b) => seconds(b) - seconds(a) || best(b) - best(a)).slice(0, MOST_LANES);
}

/* The area below a curve; it goes on evenly to both ends. */
function area(points, duration) {
  const at = (seconds, score) => `${((1000 * seconds) / duration).toFixed(1)},${(100 - 100 * score).toFixed(1)}`;
  const [first, last] = [points[0], points.at(-1)];
  const line = [[0, first[1]], ...points, [duration, last[1]]].map(([seconds, score]) => at(seconds, score));
  const drawing = svg("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", "aria-hidden": "true" });
  drawing.append(svg("polygon", { points: ["0,100", ...line, "1000,100"].join(" ") }));
  return drawing;
}

export class Timeline {
  #duration = 1;
  #seek;

  /* `seek` is called with seconds when somebody wants to go there. */
  constructor(place, seek) {
    this.place = place;
    this.#seek = seek;
  }

  show(answer) {
    this.#duration = Math.max(answer.duration_seconds, 0.001);
    this.segments = [];
    this.needle = make("div", { className: "needle" });
    this.strip = this.#strip();
    const lanes = lanesOf(answer).map((lane, place) => this.#lane(lane, COLOURS[place % COLOURS.length]));
    const ends = [0, 0.5, 1].map((part) => make("span", { textContent: clock(part * this.#duration) }));
    this.place.replaceChildren(this.needle, this.strip, ...lanes, make("div", { className: "ends" }, ...ends));
    this.place.classList.toggle("lasting", lanes.length > 0);
    this.moveTo(0);
  }

  /* The needle, and which segments are now. */
  moveTo(seconds) {
    if (!this.needle) return;
    const part = Math.min(Math.max(seconds / this.#duration, 0), 1);
    this.now = part * this.#duration;
    this.needle.style.left = `${100 * part}%`;
    const now = this.segments.filter(({ one }) => one.start_seconds <= seconds && seconds < one.end_seconds);
    for (const { one, button } of this.segments) button.classList.toggle("now", now.some((each) => each.one === one));
    this.strip.setAttribute("aria-valuenow", this.now.toFixed(1));
    this.strip.setAttribute("aria-valuetext", [clock(this.now), ...now.map(({ one }) => one.label)].join(", "));
  }

  #go(seconds) {
    this.moveTo(seconds);
    this.#seek(this.now);
  }

  #strip() {
    const strip = make("div", { className: "strip", tabIndex: 0 });
    const names = { role: "slider", "aria-label": "Time in the video", "aria-valuemin": 0, "aria-valuemax": this.#duration.toFixed(1) };
    for (const [name, value] of Object.entries(names)) strip.setAttribute(name, value);
    const steps = { ArrowLeft: -FINE, ArrowDown: -FINE, ArrowRight: FINE, ArrowUp: FINE, PageDown: -COARSE, PageUp: COARSE };
    strip.addEventListener("keydown", (event) => {
      if (event.key in steps) this.#go(this.now + steps[event.key]);
      else if (event.key === "Home") this.#go(0);
      else if (event.key === "End") this.#go(this.#duration);
      else return;
      event.preventDefault();
    });
    const drag = (event) => {
      const box = strip.getBoundingClientRect();
      this.#go((this.#duration * (event.clientX - box.left)) / box.width);
    };
    strip.addEventListener("pointerdown", (event) => { strip.setPointerCapture(event.pointerId); drag(event); });
    strip.addEventListener("pointermove", (event) => { if (strip.hasPointerCapture(event.pointerId)) drag(event); });
    return strip;
  }

  #lane({ name, segments, points }, colour) {
    const track = make("div", { className: "track" });
    if (points.length) track.append(area(points, this.#duration));
    for (const one of segments) {
      const words = `${one.label}, ${clock(one.start_seconds)} to ${clock(one.end_seconds)}, ${percent(one.score)}`;
      const button = make("button", { type: "button", className: "segment", title: words });
      button.setAttribute("aria-label", words);
      button.style.left = `${(100 * one.start_seconds) / this.#duration}%`;
      button.style.width = `${(100 * (one.end_seconds - one.start_seconds)) / this.#duration}%`;
      button.addEventListener("click", (event) => { event.stopPropagation(); this.#go(one.start_seconds); });
      this.segments.push({ one, button });
      track.append(button);
    }
    track.addEventListener("click", (event) => {
      const box = track.getBoundingClientRect();
      this.#go((this.#duration * (event.clientX - box.left)) / box.width);
    });
    const lane = make("div", { className: "lane" }, make("span", { className: "lane-name", textContent: name }), track);
    lane.style.setProperty("--colour", colour);
    return lane;
  }
}

/* What a timeline says in a sentence. */
export function summary({ segments, nothing, rules }) {
  if (!segments.length) return `No class is sure anywhere: none reaches ${percent(rules.on)}.`;
  const classes = new Set(segments.map((one) => one.label)).size;
  const parts = `${segments.length} ${segments.length === 1 ? "segment" : "segments"} of ${classes} ${classes === 1 ? "class" : "classes"}`;
  return `${parts}. Click one, or go along the strip with the arrow keys.${nothing.length ? " Where no lane has a bar, no class is sure." : ""}`;
}

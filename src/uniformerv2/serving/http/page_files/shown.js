/* What was found in a video, as words, bars and rows. */

import { find, inSeconds, make, percent } from "./dom.js";

const STEP_COLOURS = ["#56b4e9", "#8c959f", "#e69f00", "#cc79a7", "#009e73"];
const SURE = 0.5; // below, the best class is called a guess

/* What happens to something that was asked, as a sentence. */
export function inWords({ state, part, seconds, answer, problem }) {
  if (state === "waiting") return "It waits for its turn.";
  if (state === "sending") return `Sending: ${Math.round(100 * part)}\u00a0%`;
  if (state === "computing") return "The model looks at it.";
  if (state === "busy") return `The service is busy; it is asked again in ${seconds}\u00a0s.`;
  if (state === "failed") return problem.title;
  const [best] = answer.top;
  return `${best.name}: ${percent(best.score)}`;
}

/* A problem as its title and its sentence. */
export function tellProblem(place, problem) {
  place.hidden = !problem;
  place.replaceChildren(...(problem ? [make("b", { textContent: problem.title }), problem.detail] : []));
}

/* The best class in large letters, and the five best as bars. */
export function showBars(prediction, model) {
  const [best] = prediction.top;
  const how = best.score >= SURE ? percent(best.score) : `A guess: only ${percent(best.score)}`;
  find("best").replaceChildren(best.name, make("span", { textContent: how }));
  const known = model.class_names.length;
  find("known").textContent = model.is_multi_label
    ? `The model knows ${known} classes, of which several may be seen at once.`
    : `The model knows ${known} classes; the scores of all of them make 100\u00a0%.`;
  find("bars").replaceChildren(...prediction.top.map(({ name, score }) => {
    const bar = make("i");
    requestAnimationFrame(() => { bar.style.width = `${100 * score}%`; });
    const track = make("span", { className: "track" }, bar);
    track.setAttribute("aria-hidden", "true");
    return make("li", {}, make("span", { textContent: name }), make("span", { textContent: percent(score) }), track);
  }));
}

/* Where the time went: one bar of all steps, and each in words. */
export function showTimes({ steps, total }) {
  const spent = make("div", { className: "spent" });
  spent.setAttribute("aria-hidden", "true");
  const words = make("dl", { className: "spent-words" });
  steps.forEach(([name, seconds], place) => {
    const colour = STEP_COLOURS[place], part = make("i"), mark = make("i");
    part.style.flex = `${1000 * seconds} 0 0`;
    part.style.background = mark.style.background = colour;
    spent.append(part);
    words.append(make("div", {}, make("dt", {}, mark, name), make("dd", { textContent: inSeconds(seconds) })));
  });
  words.append(make("div", {}, make("dt", { textContent: "In all" }), make("dd", { textContent: inSeconds(total) })));
  find("times").replaceChildren(spent, words);
}

/* The row of a video in the list. */
export class Row {
  constructor(video) {
    this.file = make("span", { className: "file", textContent: video.name });
    this.words = make("span");
    this.score = make("span");
    this.way = make("span", { className: "way" });
    this.element = make("li", { id: video.id, role: "option", title: video.name }, this.file,
      make("span", { className: "news" }, this.words, this.score), this.way);
  }

  show(classes, isSelected) {
    const best = classes.answer?.top[0];
    this.words.textContent = best ? best.name : inWords(classes);
    this.score.textContent = best ? percent(best.score) : "";
    const part = { sending: 0.5 * classes.part, computing: 0.75, busy: 0.1 }[classes.state] ?? 0;
    this.way.style.width = `${100 * part}%`;
    this.element.className = classes.state;
    this.element.setAttribute("aria-selected", isSelected);
  }
}

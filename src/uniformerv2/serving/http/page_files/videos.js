/* The videos of this page, what was found in each by each model, and the work that is still to do. */

import { ask } from "./service.js";

const AT_A_TIME = 2; // requests; a service on two cores is not faster with more

/*
  What one model found in one video. `state` is "waiting", "sending", "computing", "busy", "done" or "failed"; timeline
  and look (where the model looked) are {state, ...} of their own, or null before they are asked for.
*/
class Result {
  state = "waiting";
  part = 0;
  seconds = 0;
  prediction = null;
  times = null;
  problem = null;
  timeline = null;
  look = null;
}

let count = 0;

export class Video {
  constructor(file) {
    count += 1;
    this.id = `video-${count}`;
    this.file = file;
    this.name = file.name;
    this.results = new Map();
    this.control = new AbortController();
  }

  of(model) {
    if (!this.results.has(model)) this.results.set(model, new Result());
    return this.results.get(model);
  }
}

/* Work that waits; what the selected video needs comes first, then predictions in their order. */
export class Work {
  #waiting = [];
  #running = 0;

  constructor({ isUrgent, changed }) {
    this.isUrgent = isUrgent;
    this.changed = changed;
  }

  /* What happens in a video, as its classes. */
  predict(video, model) {
    const result = video.of(model);
    Object.assign(result, { state: "waiting", problem: null });
    this.#add(video, model, async (signal, tell) => {
      const found = await ask("v1/predict", { model }, video.file, { signal, tell });
      result.prediction = found.answer;
      result.times = timesOf(found);
    }, result);
  }

  /* What happens in it when. */
  timeline(video, model) {
    const part = { state: "waiting", problem: null, answer: null };
    video.of(model).timeline = part;
    this.#add(video, model, async (signal, tell) => {
      part.answer = (await ask("v1/timeline", { model, scores: true }, video.file, { signal, tell })).answer;
    }, part);
  }

  #add(video, model, run, part) {
    this.#waiting.push({ video, model, run, part });
    this.changed(video);
    queueMicrotask(() => this.#next());
  }

  #next() {
    while (this.#running < AT_A_TIME && this.#waiting.length) {
      const urgent = this.#waiting.findIndex(({ video, model }) => this.isUrgent(video, model));
      const [one] = this.#waiting.splice(Math.max(urgent, 0), 1);
      if (!one.video.control.signal.aborted) this.#run(one);
    }
  }

  async #run({ video, run, part }) {
    this.#running += 1;
    const tell = (news) => { Object.assign(part, news); this.changed(video); };
    try {
      await run(video.control.signal, tell);
      part.state = "done";
    } catch (problem) {
      part.state = "failed";
      part.problem = problem;
    }
    this.#running -= 1;
    if (!video.control.signal.aborted) this.changed(video);
    this.#next();
  }
}

/* Seconds of each step, in their order. What the answer does not name is waiting and the way there and back. */
function timesOf({ answer, uploadSeconds, totalSeconds, waitedSeconds }) {
  const { decode_seconds: decode, preprocess_seconds: preprocess, compute_seconds: compute } = answer.timings;
  const known = uploadSeconds + decode + preprocess + compute;
  return {
    total: totalSeconds + waitedSeconds,
    steps: [
      ["Upload", uploadSeconds],
      ["Wait", waitedSeconds + Math.max(totalSeconds - known, 0)],
      ["Decode", decode],
      ["Prepare", preprocess],
      ["Compute", compute],
    ],
  };
}

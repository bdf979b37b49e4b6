/* The videos of this page, what was found in each by each model, and the work that is still to do. */

import { ask } from "./service.js";

const AT_A_TIME = 2; // requests; a service on two cores is not faster with more

/* One thing that the service is asked. `state` is "waiting", "sending", "computing", "busy", "done" or "failed". */
class Part {
  state = "waiting";
  part = 0; // of the bytes, while they are sent
  seconds = 0; // until a busy service is asked again
  answer = null;
  problem = null;
}

/* What one model found in one video; the timeline and the look are null before they are asked for. */
class Result {
  classes = new Part();
  times = null;
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

/* Work that waits. What the selected video needs comes first, then the classes of the others, in their order. */
export class Work {
  #waiting = [];
  #running = new Set();

  constructor({ isSelected, changed }) {
    this.isSelected = isSelected;
    this.changed = changed;
  }

  /* Which classes a video shows. */
  classify(video, model) {
    const result = video.of(model);
    result.classes = new Part();
    this.#add({ video, model, part: result.classes, path: "v1/predict", parameters: { model } }, (found) => {
      result.times = timesOf(found);
    });
  }

  /* What happens in it when; given up where another video is selected before it is done. */
  timeline(video, model) {
    const result = video.of(model);
    result.timeline = new Part();
    const forget = () => { result.timeline = null; };
    this.#add({ video, model, part: result.timeline, path: "v1/timeline", parameters: { model, scores: true }, forget });
  }

  /* Where the model looked for the best class: as numbers ("json"), or as a video in time with the file ("mp4"). */
  look(video, model, format) {
    const result = video.of(model);
    result.look = Object.assign(new Part(), { format });
    const parameters = format === "mp4" ? { model, format, pace: "video" } : { model, format };
    const type = format === "mp4" ? "blob" : "json";
    const forget = () => { result.look = null; };
    this.#add({ video, model, part: result.look, path: "v1/explain", parameters, type, forget });
  }

  /* Another video is selected: what only the one before needed is given up. */
  forget() {
    for (const one of this.#running) if (one.forget && !this.#isUrgent(one)) one.control.abort(new DOMException("Another is selected.", "AbortError"));
  }

  #isUrgent({ video, model }) {
    return this.isSelected(video, model);
  }

  #add(one, done = () => {}) {
    this.#waiting.push({ ...one, done, control: new AbortController() });
    this.changed(one.video);
    queueMicrotask(() => this.#next());
  }

  #next() {
    while (this.#running.size < AT_A_TIME && this.#waiting.length) {
      const urgent = this.#waiting.findIndex((one) => this.#isUrgent(one));
      const [one] = this.#waiting.splice(Math.max(urgent, 0), 1);
      if (one.video.control.signal.aborted) continue;
      if (one.forget && urgent < 0) one.forget();
      else this.#run(one);
    }
  }

  async #run(one) {
    const { video, part, path, parameters, type } = one;
    const signal = AbortSignal.any([video.control.signal, one.control.signal]);
    const tell = (news) => { Object.assign(part, news); this.changed(video); };
    this.#running.add(one);
    try {
      const found = await ask(path, parameters, video.file, { signal, tell, type });
      part.answer = found.answer;
      one.done(found);
      part.state = "done";
    } catch (problem) {
      if (one.control.signal.aborted) one.forget();
      else Object.assign(part, { state: "failed", problem });
    }
    this.#running.delete(one);
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

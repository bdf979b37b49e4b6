/* Where the model looked: the map of its attention on top of the player, in time with it. */

import { find } from "./dom.js";

const COLOURS = [[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]]; // as in explanations/pictures.py
const COVER = 0.85, OUTSIDE = 0.6; // how far the strongest colour covers the frame; what the model did not see is darkened
const STRONG = 0.99; // the quantile that has the last colour

const canvas = find("map"), player = find("player");

/* 0 to 1 -> red, green, blue */
function colour(heat) {
  const place = heat * (COLOURS.length - 1), low = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[low].map((value, part) => value + (place - low) * (COLOURS[low + 1][part] - value));
}

/* A small picture of one step, a pixel for each patch. */
function drawStep(rows, strongest) {
  const small = document.createElement("canvas");
  [small.width, small.height] = [rows[0].length, rows.length];
  const context = small.getContext("2d"), picture = context.createImageData(small.width, small.height);
  rows.flat().forEach((value, place) => {
    const heat = Math.min(Math.max(value / strongest, 0), 1);
    picture.data.set([...colour(heat), 255 * COVER * Math.sqrt(heat)], 4 * place);
  });
  context.putImageData(picture, 0, 0);
  return small;
}

export class Look {
  #explanation = null;
  #steps = [];

  /* An answer of /v1/explain; null: the player alone. */
  show(explanation) {
    find("screen").classList.toggle("looking", Boolean(explanation));
    canvas.hidden = !explanation;
    if (explanation && explanation !== this.#explanation) {
      const sorted = explanation.map.flat(2).sort((a, b) => a - b);
      const strongest = sorted[Math.floor(STRONG * (sorted.length - 1))] || sorted.at(-1) || 1;
      this.#steps = explanation.map.map((rows) => drawStep(rows, strongest));
    }
    this.#explanation = explanation;
    this.moveTo(player.currentTime);
  }

  /* The map of the frame that is nearest in time. */
  moveTo(seconds) {
    if (!this.#explanation || !player.videoWidth) return;
    const { view } = this.#explanation, frames = view.frame_seconds ?? view.frame_indices.map(() => 0);
    const nearest = frames.reduce((best, time, place) => (Math.abs(time - seconds) < Math.abs(frames[best] - seconds) ? place : best), 0);
    this.#draw(this.#steps[Math.floor((nearest * this.#steps.length) / frames.length)], view);
  }

  #draw(step, { box: [top, left, height, width], frame_height: frameHeight, frame_width: frameWidth }) {
    const { clientWidth, clientHeight } = player, dense = devicePixelRatio || 1;
    const scale = Math.min(clientWidth / player.videoWidth, clientHeight / player.videoHeight);
    const shown = [player.videoWidth * scale, player.videoHeight * scale];
    const corner = [(clientWidth - shown[0]) / 2, (clientHeight - shown[1]) / 2];
    const across = shown[0] / frameWidth, down = shown[1] / frameHeight;
    const crop = [corner[0] + left * across, corner[1] + top * down, width * across, height * down];
    [canvas.width, canvas.height] = [clientWidth * dense, clientHeight * dense];
    const context = canvas.getContext("2d");
    context.scale(dense, dense);
    context.fillStyle = `rgb(0 0 0 / ${OUTSIDE})`;
    context.fillRect(...corner, ...shown);
    context.clearRect(...crop);
    context.imageSmoothingQuality = "high";
    context.drawImage(step, ...crop);
  }
}

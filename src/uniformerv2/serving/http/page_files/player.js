/* The player: one video at a time, of which one address is held. A video that no browser plays is said to be so. */

import { find } from "./dom.js";

const player = find("player"), screen = find("screen");
let address = null, original = null, isLost = false;

function load(file) {
  player.pause();
  player.removeAttribute("src");
  if (address) URL.revokeObjectURL(address);
  address = file && URL.createObjectURL(file);
  screen.hidden = !file;
  if (file) player.src = address;
  else player.load();
}

/* Show a file; null: none. */
export function play(file) {
  original = file;
  isLost = false;
  load(file);
}

/* Show what the service made of a file that cannot be played; null: nothing. */
export const playInstead = (made) => load(made);

/* Whether the browser was given a file that it cannot play. */
export const cannotPlay = () => isLost;

/* Go to a time. */
export function seek(seconds) {
  if (!screen.hidden && player.readyState > 0) player.currentTime = Math.min(Math.max(seconds, 0), player.duration || seconds);
}

/* Call with the time in seconds whenever it changes; while the video plays, with every picture of the screen. */
export function onTime(tell) {
  let isRunning = false;
  const step = () => {
    tell(player.currentTime);
    isRunning = !player.paused && !player.ended;
    if (isRunning) requestAnimationFrame(step);
  };
  for (const event of ["play", "seeking", "seeked", "timeupdate", "loadeddata"]) {
    player.addEventListener(event, () => { if (!isRunning) step(); });
  }
  new ResizeObserver(() => tell(player.currentTime)).observe(player);
}

/* Call when a file turns out to be one that the browser cannot play. */
export function onLoss(tell) {
  const lose = () => {
    if (!address || isLost) return;
    isLost = true;
    load(null);
    tell(original);
  };
  player.addEventListener("error", lose);
  player.addEventListener("loadedmetadata", () => { if (!player.videoWidth) lose(); }); // its sound alone can be played
}

/* A recording has no end of its own: only when it is sent far beyond it, the browser looks for it. */
player.addEventListener("loadedmetadata", () => {
  if (player.duration !== Infinity) return;
  const back = () => {
    if (player.duration === Infinity) return;
    player.removeEventListener("durationchange", back);
    player.currentTime = 0;
  };
  player.addEventListener("durationchange", back);
  player.currentTime = 1e9;
});

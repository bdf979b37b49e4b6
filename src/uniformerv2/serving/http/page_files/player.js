/* The player: one video at a time, of which one address is held. A video that no browser plays is said to be so. */

import { find } from "./dom.js";

const player = find("player"), screen = find("screen"), note = find("no-player");
let address = null;

/* Show a file; null: none. */
export function play(file) {
  player.pause();
  player.removeAttribute("src");
  if (address) URL.revokeObjectURL(address);
  address = file && URL.createObjectURL(file);
  screen.hidden = !file;
  note.hidden = true;
  if (file) player.src = address;
  else player.load();
}

export const canPlay = () => !screen.hidden && player.readyState > 0;

/* Go to a time. */
export function seek(seconds) {
  if (canPlay()) player.currentTime = Math.min(Math.max(seconds, 0), player.duration || seconds);
}

/* Call with the time in seconds whenever it changes; while the video plays, with every picture of the screen. */
export function onTime(tell) {
  const step = () => {
    tell(player.currentTime);
    if (!player.paused && !player.ended) requestAnimationFrame(step);
  };
  for (const event of ["play", "seeking", "seeked", "timeupdate", "loadeddata"]) player.addEventListener(event, step);
}

function cannot() {
  if (!address) return;
  screen.hidden = true;
  note.hidden = false;
}

player.addEventListener("error", cannot);
player.addEventListener("loadedmetadata", () => {
  if (!player.videoWidth) cannot(); // the sound alone can be played
  if (player.duration === Infinity) { // a recording without an end: going far beyond it makes the browser look for it
    player.addEventListener("durationchange", () => { player.currentTime = 0; }, { once: true });
    player.currentTime = 1e9;
  }
});

/* The camera: a few seconds of it become a file like any other. */

import { find, make } from "./dom.js";

const TYPES = ["video/webm;codecs=vp8", "video/webm", "video/mp4"]; // the first that the browser can write
const dialog = find("camera"), preview = find("preview"), button = find("record"), bar = find("recorded");
let stream = null, recorder = null, timer = 0;

/* Whether this browser has one to offer, at this address: without TLS only one of this machine does. */
export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia && globalThis.MediaRecorder);

function tell(text) {
  find("camera-problem").hidden = !text;
  find("camera-problem").textContent = text;
}

async function open() {
  tell("");
  button.disabled = true;
  dialog.showModal();
  try {
    const given = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 640 }, frameRate: { ideal: 30 } } });
    if (!dialog.open) { // it was closed while the browser asked
      given.getTracks().forEach((track) => track.stop());
      return;
    }
    stream = given;
    preview.srcObject = stream;
    await preview.play();
    button.disabled = false;
    button.focus();
  } catch (error) {
    const reason = error.name === "NotAllowedError" ? "The browser does not let this page use it: allow it, and try again." : "There is none, or another program uses it.";
    tell(`The camera cannot be used. ${reason}`);
  }
}

function close() {
  clearInterval(timer);
  if (recorder?.state === "recording") { recorder.ondataavailable = recorder.onstop = null; recorder.stop(); }
  stream?.getTracks().forEach((track) => track.stop());
  stream = recorder = preview.srcObject = null;
  bar.hidden = true;
  button.textContent = "Record";
}

function record(give) {
  const seconds = Number(dialog.querySelector("input:checked").value), begin = performance.now(), parts = [];
  const type = TYPES.find((one) => MediaRecorder.isTypeSupported(one));
  recorder = new MediaRecorder(stream, { mimeType: type, videoBitsPerSecond: 2_500_000 });
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.onstop = () => {
    const kind = type.split(";")[0], time = new Date().toTimeString().slice(0, 8).replaceAll(":", ".");
    dialog.close();
    give(new File(parts, `camera ${time}.${kind.split("/")[1]}`, { type: kind }));
  };
  recorder.start();
  button.disabled = true;
  bar.hidden = false;
  const step = () => {
    const passed = (performance.now() - begin) / 1000;
    bar.value = Math.min(passed / seconds, 1);
    button.textContent = `Recording, ${Math.max(Math.ceil(seconds - passed), 0)}\u00a0s left`;
    if (passed >= seconds) { clearInterval(timer); recorder.stop(); }
  };
  timer = setInterval(step, 100);
  step();
}

/* Call `give` with each recording. */
export function listenToCamera(give) {
  const opener = find("camera-open");
  if (!hasCamera()) {
    opener.replaceWith(make("span", { className: "muted", textContent: isSecureContext ? "" : "The camera needs an address with TLS (https)." }));
    return;
  }
  opener.addEventListener("click", open);
  button.addEventListener("click", () => record(give));
  find("camera-close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", close);
}

/* The service: what it offers, and a video sent to it, with progress, patience and the token. */

const BASE = new URL("../", import.meta.url);
const BUSY = new Set([429, 503]);
const MOST_WAITING = 600; // seconds of waiting for a busy service, over all tries
const KEPT = "uniformerv2-token"; // in this tab alone

let token = read();

function read() {
  try {
    return sessionStorage.getItem(KEPT) || "";
  } catch {
    return ""; // a browser that keeps nothing
  }
}

/* Remember a token until the tab is closed. */
export function keepToken(given) {
  token = given;
  try {
    if (given) sessionStorage.setItem(KEPT, given);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // it is kept until the page is left
  }
}

export const hasToken = () => token !== "";

/* Something that the service, or the way to it, refused: a title, a sentence, the status of HTTP (0: no answer). */
export class Problem extends Error {
  constructor(title, detail, status) {
    super(detail);
    Object.assign(this, { title, detail, status });
  }
}

const unreachable = () => new Problem("The service does not answer.", "It may be stopped, or the connection is cut.", 0);

function problemOf(status, text) {
  try {
    const { title, detail } = JSON.parse(text);
    if (title && detail) return new Problem(title, detail, status);
  } catch {
    // a proxy in between answered in its own words
  }
  return new Problem(`The service answered ${status}.`, "It gave no reason that this page understands.", status);
}

const headers = () => (token ? { authorization: `Bearer ${token}` } : {});

async function getJSON(path) {
  let found;
  try {
    found = await fetch(new URL(path, BASE), { headers: headers() });
  } catch {
    throw unreachable();
  }
  if (!found.ok) throw problemOf(found.status, await found.text());
  return found.json();
}

/* The models by their names, and the addresses that this service has. */
export async function whatThereIs() {
  const [{ models: names }, document] = await Promise.all([getJSON("v2/models"), getJSON("openapi.json")]);
  const models = await Promise.all(names.map((name) => getJSON(`v2/models/${encodeURIComponent(name)}`)));
  return { models: new Map(models.map((one) => [one.name, one])), addresses: new Set(Object.keys(document.paths)) };
}

export const exampleNames = () => getJSON("page/examples.json");

/* A bundled clip as a file. */
export async function example(name) {
  const found = await fetch(new URL(`page/examples/${encodeURIComponent(name)}`, BASE));
  if (!found.ok) throw problemOf(found.status, await found.text());
  return new File([await found.blob()], name, { type: "video/mp4" });
}

/* Wait, unless it is given up before. */
function pause(seconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, 1000 * seconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); fail(signal.reason); }, { once: true });
  });
}

/* One try: {status, text or blob, retryAfter, uploadSeconds}. */
function post(path, parameters, file, { signal, tell, type }) {
  return new Promise((done, fail) => {
    const address = new URL(path, BASE), request = new XMLHttpRequest(), begin = performance.now();
    address.search = new URLSearchParams(parameters);
    const stop = () => request.abort();
    const end = (how, what) => { signal.removeEventListener("abort", stop); how(what); };
    let sent = null;
    request.open("POST", address);
    request.responseType = "blob";
    request.setRequestHeader("content-type", "application/octet-stream");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) tell({ state: "sending", part: event.loaded / event.total });
    });
    request.upload.addEventListener("load", () => { sent = performance.now(); tell({ state: "computing" }); });
    request.addEventListener("error", () => end(fail, unreachable()));
    request.addEventListener("abort", () => end(fail, signal.reason));
    request.addEventListener("load", async () => {
      const answered = performance.now(), { status, response } = request;
      const isAnswer = status === 200 && type === "blob";
      end(done, {
        status,
        answer: isAnswer ? response : await response.text(),
        retryAfter: Number(request.getResponseHeader("retry-after")),
        uploadSeconds: ((sent ?? answered) - begin) / 1000,
        totalSeconds: (answered - begin) / 1000,
      });
    });
    signal.addEventListener("abort", stop);
    tell({ state: "sending", part: 0 });
    request.send(file);
  });
}

/*
  Send a video and return {answer, uploadSeconds, totalSeconds, waitedSeconds}. A busy service is asked again when it
  said so. `tell` hears of {state: "sending", part}, {state: "computing"} and {state: "busy", seconds}.
*/
export async function ask(path, parameters, file, { signal, tell = () => {}, type = "json" }) {
  for (let waited = 0; ;) {
    signal.throwIfAborted();
    const found = await post(path, parameters, file, { signal, tell, type });
    if (found.status === 200) {
      const answer = type === "json" ? JSON.parse(found.answer) : found.answer;
      return { answer, uploadSeconds: found.uploadSeconds, totalSeconds: found.totalSeconds, waitedSeconds: waited };
    }
    if (!BUSY.has(found.status) || waited > MOST_WAITING) throw problemOf(found.status, found.answer);
    const seconds = Math.min(Math.max(found.retryAfter || 1, 1), 60);
    tell({ state: "busy", seconds });
    await pause(seconds, signal);
    waited += seconds;
  }
}

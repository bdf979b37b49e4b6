/* The page: videos come in, each is asked about, one is shown large. */

import { listenToCamera } from "./camera.js";
import { find, inBytes, make, save } from "./dom.js";
import { play } from "./player.js";
import { example, exampleNames, hasToken, keepToken, whatThereIs } from "./service.js";
import { Row, inWords, showBars, showTimes, tellProblem } from "./shown.js";
import { Video, Work } from "./videos.js";

const videos = [], rows = new Map();
let offered = { models: new Map(), addresses: new Set() }, model = "", selected = null;
const work = new Work({ isUrgent: (video, asked) => video === selected && asked === model, changed });

/* -- videos ------------------------------------------------------------------------------------------------------ */

/* Files from wherever they came; the first of them is shown. */
function add(files) {
  const come = Array.from(files, (file) => new Video(file));
  if (!come.length) return;
  for (const video of come) {
    const row = new Row(video);
    videos.push(video);
    rows.set(video, row);
    row.element.addEventListener("click", () => select(video));
    find("list").append(row.element);
  }
  document.body.classList.add("busy");
  find("workspace").hidden = false;
  select(come[0]);
  for (const video of come) work.predict(video, model);
}

function select(video, { focus = false } = {}) {
  const before = selected;
  selected = video;
  if (before !== video) play(video?.file ?? null);
  for (const one of [before, video]) if (rows.has(one)) changed(one);
  if (video) {
    find("list").setAttribute("aria-activedescendant", video.id);
    if (focus) rows.get(video).element.scrollIntoView({ block: "nearest" });
  }
  showCounts();
}

function remove(video) {
  const place = videos.indexOf(video);
  video.control.abort(new DOMException("It was removed.", "AbortError"));
  videos.splice(place, 1);
  rows.get(video).element.remove();
  rows.delete(video);
  if (video === selected) select(videos[place] ?? videos.at(-1) ?? null);
  if (!videos.length) {
    document.body.classList.remove("busy");
    find("workspace").hidden = true;
    find("files").focus();
  }
  showCounts();
}

/* -- what is shown ----------------------------------------------------------------------------------------------- */

const stale = new Set(); // videos whose news are shown with the next picture of the screen
let told = new WeakSet(); // predictions that were said aloud

function changed(video) {
  if (!stale.size) requestAnimationFrame(showNews);
  stale.add(video);
}

function showNews() {
  for (const video of stale) {
    rows.get(video)?.show(video.of(model), video === selected);
    if (video === selected) showSelected();
  }
  stale.clear();
  showCounts();
}

function showCounts() {
  const isMany = videos.length > 1;
  find("workspace").classList.toggle("many", isMany);
  find("videos").hidden = !isMany;
  const results = videos.map((video) => video.of(model).state);
  const done = results.filter((state) => state === "done").length, failed = results.filter((state) => state === "failed").length;
  find("counted").textContent = `${done} of ${videos.length} done${failed ? `, ${failed} could not be read` : ""}`;
}

let shown = null; // the prediction whose bars stand there

function showSelected() {
  const result = selected.of(model), { state, prediction, problem } = result;
  const isOnItsWay = !["done", "failed"].includes(state);
  find("name").textContent = `${selected.name}, ${inBytes(selected.file.size)}`;
  find("progress-line").hidden = !isOnItsWay;
  find("progress-words").textContent = isOnItsWay ? inWords(result) : "";
  if (state === "sending") find("progress").value = result.part;
  else find("progress").removeAttribute("value");
  tellProblem(find("problem"), problem);
  find("again").hidden = state !== "failed";
  find("answer").hidden = !prediction;
  if (prediction && shown !== prediction) {
    showBars(prediction, offered.models.get(model));
    showTimes(result.times);
    find("json").textContent = asJSON(selected);
  }
  shown = prediction;
  if (!isOnItsWay && !told.has(prediction ?? problem)) {
    told.add(prediction ?? problem);
    find("status").textContent = `${selected.name}: ${problem ? `${problem.title} ${problem.detail}` : inWords(result)}`;
  }
}

/* -- JSON -------------------------------------------------------------------------------------------------------- */

const found = (video) => ({ file: video.name, ...video.of(model).prediction });
const asJSON = (video) => JSON.stringify(found(video), null, 1);

async function copy() {
  const text = asJSON(selected);
  try {
    await navigator.clipboard.writeText(text);
  } catch { // an address without TLS has no clipboard
    getSelection().selectAllChildren(find("json"));
    document.execCommand("copy");
  }
  find("copy").textContent = "Copied";
  setTimeout(() => { find("copy").textContent = "Copy"; }, 1500);
}

/* -- begin ------------------------------------------------------------------------------------------------------- */

async function begin() {
  try {
    offered = await whatThereIs();
  } catch (problem) {
    if (problem.status === 401) askForToken();
    else tellProblem(find("trouble"), problem);
    return;
  }
  find("entrance").hidden = true;
  find("add").hidden = false;
  const names = [...offered.models.keys()];
  find("model").replaceChildren(...names.map((name) => make("option", { textContent: name })));
  find("model-choice").hidden = names.length < 2;
  [model] = names;
  showExamples(await exampleNames());
}

function askForToken() {
  const problem = find("token-problem");
  problem.hidden = !hasToken();
  problem.textContent = "The service does not know this token.";
  keepToken("");
  find("entrance").hidden = false;
  find("token").value = "";
  find("token").focus();
}

async function showExamples(names) {
  const files = await Promise.all(names.map(example));
  find("examples").hidden = !files.length;
  find("examples").querySelector("ul").replaceChildren(...files.map((file) => {
    const video = make("video", { muted: true, loop: true, playsInline: true, src: URL.createObjectURL(file) });
    video.setAttribute("aria-hidden", "true");
    video.tabIndex = -1;
    video.addEventListener("loadedmetadata", () => { video.currentTime = video.duration / 2; }, { once: true });
    const name = file.name.replace(/\.[^.]*$/, ""), title = name[0].toUpperCase() + name.slice(1);
    const button = make("button", { type: "button" }, video, title);
    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    for (const event of ["mouseenter", "focus"]) button.addEventListener(event, () => { if (!calm.matches) video.play().catch(() => {}); });
    for (const event of ["mouseleave", "blur"]) button.addEventListener(event, () => video.pause());
    button.addEventListener("click", () => { video.pause(); add([file]); });
    return make("li", {}, button);
  }));
}

function listen() {
  find("files").addEventListener("change", (event) => { add(event.target.files); event.target.value = ""; });
  find("entrance").addEventListener("submit", (event) => { event.preventDefault(); keepToken(find("token").value.trim()); begin(); });
  find("model").addEventListener("change", (event) => {
    model = event.target.value;
    const missing = videos.filter((video) => !video.results.has(model));
    for (const video of videos) changed(video);
    for (const video of missing) work.predict(video, model);
  });
  find("again").addEventListener("click", () => work.predict(selected, model));
  find("copy").addEventListener("click", copy);
  find("save").addEventListener("click", () => save(`${selected.name}.json`, asJSON(selected)));
  find("save-all").addEventListener("click", () => {
    const done = videos.filter((video) => video.of(model).prediction);
    save("videos.json", JSON.stringify(done.map(found), null, 1));
  });
  find("remove").addEventListener("click", () => remove(selected));
  find("clear").addEventListener("click", () => { for (const video of videos.slice()) remove(video); });
  const list = find("list");
  list.tabIndex = 0;
  list.addEventListener("keydown", (event) => {
    const place = videos.indexOf(selected), last = videos.length - 1;
    const next = { ArrowDown: Math.min(place + 1, last), ArrowUp: Math.max(place - 1, 0), Home: 0, End: last }[event.key];
    if (next !== undefined) select(videos[next], { focus: true });
    else if (event.key === "Delete") remove(selected);
    else return;
    event.preventDefault();
  });
  listenToCamera((file) => add([file]));
  listenForDrops();
}

/* Anywhere on the page. */
function listenForDrops() {
  let depth = 0; // elements that the files were dragged into and not yet out of
  const isFiles = (event) => event.dataTransfer?.types.includes("Files") && !find("add").hidden;
  const show = (change) => {
    depth = change ? Math.max(depth + change, 0) : 0;
    document.body.classList.toggle("dragged", depth > 0);
  };
  addEventListener("dragenter", (event) => { if (isFiles(event)) show(1); });
  addEventListener("dragleave", (event) => { if (isFiles(event)) show(-1); });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    show(0);
    if (isFiles(event)) add(event.dataTransfer.files);
  });
}

const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
find("where").textContent = isHere
  ? "They stay on this machine, and are deleted as soon as they are answered."
  : `They are sent to ${location.host} alone, and deleted there as soon as they are answered.`;
find("command").textContent = `curl --data-binary @clip.mp4 ${new URL("v1/predict", document.baseURI)}`;
listen();
begin();

/* The page: videos come in, each is asked about, one is shown large. */

import { listenToCamera } from "./camera.js";
import { find, inBytes, make, save } from "./dom.js";
import { dropped } from "./dropped.js";
import { Look } from "./look.js";
import { cannotPlay, onLoss, onTime, play, playInstead, seek } from "./player.js";
import { example, exampleNames, hasToken, keepToken, whatThereIs } from "./service.js";
import { Row, inWords, showBars, showTimes, tellProblem } from "./shown.js";
import { Timeline, summary } from "./timeline.js";
import { Video, Work } from "./videos.js";

const videos = [], rows = new Map();
let offered = { models: new Map(), addresses: new Set() }, model = "", selected = null;
const work = new Work({ isSelected: (video, asked) => video === selected && asked === model, changed });

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
  for (const video of come) work.classify(video, model);
}

function select(video, { focus = false } = {}) {
  const before = selected;
  selected = video;
  if (before !== video) {
    play(video?.file ?? null);
    work.forget();
  }
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
const told = new WeakSet(); // what was said aloud

function changed(video) {
  if (!stale.size) requestAnimationFrame(showNews);
  stale.add(video);
}

function showNews() {
  for (const video of stale) rows.get(video)?.show(video.of(model).classes, video === selected);
  if (stale.has(selected)) showSelected(selected.of(model));
  stale.clear();
  showCounts();
}

function showCounts() {
  const isMany = videos.length > 1, states = videos.map((video) => video.of(model).classes.state);
  const count = (state) => states.filter((one) => one === state).length;
  find("workspace").classList.toggle("many", isMany);
  find("videos").hidden = !isMany;
  find("counted").textContent = `${count("done")} of ${videos.length} done${count("failed") ? `, ${count("failed")} failed` : ""}`;
}

const mayGoWell = (status) => status === 0 || status === 408 || status === 429 || status >= 500; // it may go well the next time
const isOnItsWay = ({ state }) => state !== "done" && state !== "failed";

/* A part of the result is drawn anew only where it is another one. */
const drawn = { bars: null, timeline: null, look: null };
function isNew(part, answer) {
  const before = drawn[part];
  drawn[part] = answer;
  return before !== answer;
}

function showSelected(result) {
  const { classes } = result, { state, answer, problem } = classes;
  find("name").textContent = `${selected.name}, ${inBytes(selected.file.size)}`;
  find("progress-line").hidden = !isOnItsWay(classes);
  find("progress-words").textContent = isOnItsWay(classes) ? inWords(classes) : "";
  if (state === "sending") find("progress").value = classes.part;
  else find("progress").removeAttribute("value");
  tellProblem(find("problem"), problem);
  find("again").hidden = !problem || !mayGoWell(problem.status);
  find("answer").hidden = find("more").hidden = !answer;
  find("no-player").hidden = !answer || !cannotPlay();
  if (isNew("bars", answer) && answer) {
    showBars(answer, offered.models.get(model));
    showTimes(result.times);
  }
  if (!isOnItsWay(classes) && !told.has(classes)) {
    told.add(classes);
    find("status").textContent = `${selected.name}: ${problem ? `${problem.title} ${problem.detail}` : inWords(classes)}`;
  }
  showTimeline(result);
  showLook(result);
  showJSON();
}

/* -- what happens when, and where the model looked ------------------------------------------------------------------- */

const timeline = new Timeline(find("lanes"), seek), look = new Look();

function showTimeline(result) {
  const isOffered = offered.addresses.has("/v1/timeline") && Boolean(result.classes.answer);
  find("timeline").hidden = !isOffered;
  if (isOffered && !result.timeline) work.timeline(selected, model);
  const { answer = null, problem, ...part } = result.timeline ?? {};
  find("lanes").hidden = !answer;
  if (isNew("timeline", answer) && answer) timeline.show(answer);
  if (!isOffered) return;
  if (answer) find("timeline-note").textContent = summary(answer);
  else find("timeline-note").textContent = problem ? problem.detail : inWords(part);
}

function showLook(result) {
  const isOffered = offered.addresses.has("/v1/explain") && Boolean(result.classes.answer);
  const isWanted = isOffered && find("overlay").checked, format = cannotPlay() ? "mp4" : "json";
  find("look").hidden = !isOffered;
  if (isWanted && result.look?.format !== format) work.look(selected, model, format);
  const { answer = null, problem, ...part } = (isWanted && result.look) || {};
  if (isNew("look", answer)) {
    look.show(format === "json" ? answer : null);
    if (cannotPlay()) playInstead(answer);
  }
  if (!isWanted) find("look-note").textContent = "";
  else if (answer) find("look-note").textContent = `Light is what spoke for \u201c${result.classes.answer.top[0].name}\u201d.`;
  else find("look-note").textContent = problem ? problem.detail : inWords(part);
}

/* -- JSON -------------------------------------------------------------------------------------------------------- */

/* All that was found in a video, but for the map, which is large. */
function found(video) {
  const { classes, timeline: moments } = video.of(model);
  return { file: video.name, ...classes.answer, ...(moments?.answer ? { timeline: moments.answer } : {}) };
}

const asJSON = (video) => JSON.stringify(found(video), null, 1);

function showJSON() {
  if (find("json").parentElement.open) find("json").textContent = asJSON(selected);
}

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
    else tellProblem(find("trouble"), { title: problem.title, detail: `${problem.detail} Reload this page to try again.` });
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
    for (const video of missing) work.classify(video, model);
  });
  find("again").addEventListener("click", () => work.classify(selected, model));
  find("overlay").addEventListener("change", () => changed(selected));
  find("json").parentElement.addEventListener("toggle", showJSON);
  onTime((seconds) => { timeline.moveTo(seconds); look.moveTo(seconds); });
  onLoss(() => changed(selected));
  find("copy").addEventListener("click", copy);
  find("save").addEventListener("click", () => save(`${selected.name}.json`, asJSON(selected)));
  find("save-all").addEventListener("click", () => {
    const done = videos.filter((video) => video.of(model).classes.answer);
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
  addEventListener("drop", async (event) => {
    event.preventDefault();
    show(0);
    if (isFiles(event)) add(await dropped(event.dataTransfer));
  });
}

const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
find("where").textContent = isHere
  ? "They stay on this machine, and are deleted as soon as they are answered."
  : `They are sent to ${location.host} alone, and deleted there as soon as they are answered.`;
find("command").textContent = `curl --data-binary @clip.mp4 ${new URL("v1/predict", document.baseURI)}`;
listen();
begin();

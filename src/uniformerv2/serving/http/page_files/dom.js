/* Small things that every part of the page needs. Text is always set as text, never as HTML. */

export const find = (id) => document.getElementById(id);

/* An element with properties and children. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export const svg = (tag, attributes) => {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

/* 0.9661 -> "96.6 %"; a space that does not break. */
export const percent = (score) => `${(100 * score).toFixed(1)}\u00a0%`;

/* 0.0213 -> "0.02 s" */
export const inSeconds = (seconds) => `${seconds.toFixed(seconds < 10 ? 2 : 1)}\u00a0s`;

/* 83.25 -> "1:23.2" */
export function clock(seconds) {
  const tenths = Math.floor(10 * Math.max(seconds, 0) + 1e-6), rest = tenths % 600;
  return `${Math.floor(tenths / 600)}:${String(Math.floor(rest / 10)).padStart(2, "0")}.${rest % 10}`;
}

/* 1234567 -> "1.2 MB" */
export const inBytes = (count) => (count < 1e6 ? `${Math.ceil(count / 1e3)}\u00a0kB` : `${(count / 1e6).toFixed(1)}\u00a0MB`);

/* A file for the folder of downloads. */
export function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

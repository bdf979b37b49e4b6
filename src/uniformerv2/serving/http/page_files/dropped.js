/* Files out of what was dropped: those of folders too, but for hidden ones. */

const looksLikeVideo = (file) => file.type.startsWith("video/") || /\.(mkv|avi|mov|flv|wmv|ts|mpe?g|ogv|webm|mp4|m4v|3gp|gif)$/i.test(file.name);

const fileOf = (entry) => new Promise((done, fail) => { entry.file(done, fail); });

async function inFolder(folder) {
  const reader = folder.createReader(), found = [];
  for (;;) { // a reader gives a hundred at a time
    const entries = await new Promise((done, fail) => { reader.readEntries(done, fail); });
    if (!entries.length) break;
    for (const entry of entries.filter(({ name }) => !name.startsWith("."))) {
      if (entry.isDirectory) found.push(...(await inFolder(entry)));
      else found.push(await fileOf(entry));
    }
  }
  return found.filter(looksLikeVideo).sort((a, b) => a.name.localeCompare(b.name));
}

export async function dropped(transfer) {
  const items = [...transfer.items].filter(({ kind }) => kind === "file"); // they are gone after the first pause
  const given = items.map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  const found = await Promise.all(given.map(({ entry, file }) => (entry?.isDirectory ? inFolder(entry) : [file])));
  return found.flat();
}

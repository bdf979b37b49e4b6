"use strict";
for (const film of document.querySelectorAll(".timeline")) {
  const video = film.querySelector("video"), needle = film.querySelector(".needle"), lanes = film.querySelector(".lanes");
  const start = Number(film.dataset.start), length = Number(film.dataset.length);
  const seek = (seconds) => {
    video.currentTime = seconds;
    show(seconds);
    video.scrollIntoView({ block: "nearest" });
  };
  const show = (seconds) => {
    const track = film.querySelector(".track");
    if (!track) return;
    const part = Math.min(Math.max((seconds - start) / length, 0), 1);
    const box = track.getBoundingClientRect();
    needle.style.left = `${box.left - lanes.getBoundingClientRect().left + part * box.width}px`;
    needle.hidden = false;
    for (const row of film.querySelectorAll("tbody tr"))
      row.classList.toggle("now", Number(row.dataset.from) <= seconds && seconds < Number(row.dataset.to));
  };
  film.addEventListener("click", (event) => {
    const button = event.target.closest(".seek"), track = event.target.closest(".track");
    if (button) seek(Number(button.dataset.seconds));
    else if (track) {
      const box = track.getBoundingClientRect();
      seek(start + (length * (event.clientX - box.left)) / box.width);
    }
  });
  video.addEventListener("timeupdate", () => show(video.currentTime));
  video.addEventListener("error", () => { film.querySelector(".no-video").hidden = false; });
  film.querySelector("input[type=file]").addEventListener("change", (event) => {
    const [file] = event.target.files;
    if (file) { video.src = URL.createObjectURL(file); film.querySelector(".no-video").hidden = true; }
  });
}

"use strict";
document.documentElement.classList.add("scripted");

// Tables: a click on a heading sorts, a field above hides rows.
(function () {
  function key(row, column) {
    var cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : parseFloat(cell.dataset.value);
  }
  function compare(a, b) {
    return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  }
  function sort(table, header) {
    var ascending = header.getAttribute("aria-sort") !== "ascending";
    if (!header.hasAttribute("aria-sort")) ascending = header.dataset.first !== "descending";
    var rows = Array.from(table.tBodies[0].rows);
    rows.sort(function (a, b) {
      var x = key(a, header.cellIndex), y = key(b, header.cellIndex);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return ascending ? compare(x, y) : compare(y, x);
    });
    table.querySelectorAll("th[aria-sort]").forEach(function (other) { other.removeAttribute("aria-sort"); });
    header.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    table.tBodies[0].append.apply(table.tBodies[0], rows);
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead button").forEach(function (button) {
      button.addEventListener("click", function () { sort(table, button.closest("th")); });
    });
  });
  document.querySelectorAll("input[data-filters]").forEach(function (input) {
    var table = document.getElementById(input.dataset.filters);
    input.addEventListener("input", function () {
      var wanted = input.value.trim().toLowerCase();
      Array.from(table.tBodies[0].rows).forEach(function (row) {
        row.hidden = !row.textContent.toLowerCase().includes(wanted);
      });
    });
  });
})();

// Commands: a button selects and copies.
document.querySelectorAll(".command button").forEach(function (button) {
  button.addEventListener("click", function () {
    var text = button.parentNode.querySelector("pre");
    getSelection().selectAllChildren(text);
    if (navigator.clipboard) {
      navigator.clipboard.writeText(text.textContent).then(function () { button.textContent = "Copied"; }, function () {});
    }
  });
});

// The gallery: all videos, filtered by class, outcome, confidence and path; PAGE of them at a time.
var showInGallery = (function () {
  var PAGE = 60, form = document.getElementById("gallery-filter");
  if (!form) return null;
  var list = document.getElementById("gallery-videos"), told = document.getElementById("gallery-count");
  var more = document.getElementById("gallery-more");
  var videos = Array.from(list.children), field = form.elements, limit = PAGE;
  var ORDERS = {
    given: null,
    unsure: function (a, b) { return a.dataset.c - b.dataset.c; },
    sure: function (a, b) { return b.dataset.c - a.dataset.c; },
  };
  function has(numbers, wanted) { return wanted === "" || numbers.split(" ").includes(wanted); }
  function update() {
    var low = field.low.value / 100, high = field.high.value / 100, text = field.text.value.trim().toLowerCase();
    var order = ORDERS[field.order.value], sorted = order ? videos.slice().sort(order) : videos, found = 0;
    sorted.forEach(function (video) {
      var data = video.dataset, sure = parseFloat(data.c);
      var fits = has(data.t, field.label.value) && has(data.p, field.answer.value) && has(data.kind, field.kind.value) &&
        (Number.isNaN(sure) || (sure >= low && sure <= high)) && (!text || video.textContent.toLowerCase().includes(text));
      found += fits;
      video.hidden = !fits || found > limit;
    });
    list.append.apply(list, sorted);
    told.textContent = found + " of " + videos.length + " videos" + (found > limit ? ", the first " + limit + " shown" : "");
    more.hidden = found <= limit;
  }
  form.addEventListener("input", function () { limit = PAGE; update(); });
  form.addEventListener("reset", function () { setTimeout(function () { limit = PAGE; update(); }); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  more.addEventListener("click", function () { limit += PAGE; update(); });
  addEventListener("beforeprint", function () { limit = Infinity; update(); });
  addEventListener("afterprint", function () { limit = PAGE; update(); });
  update();
  return function (label, answer) {
    form.reset();
    field.label.value = label;
    field.answer.value = answer;
    limit = PAGE;
    update();
    document.getElementById("gallery").scrollIntoView();
  };
})();

document.querySelectorAll("button[data-label]").forEach(function (button) {
  button.addEventListener("click", function () { showInGallery(button.dataset.label, button.dataset.answer); });
});

// The confusion matrix: pointing reads a cell, a click shows its videos.
(function () {
  var data = document.getElementById("confusion-data"), map = document.querySelector("#confusion-figure image");
  if (!data || !map) return;
  var confusion = JSON.parse(data.textContent), size = confusion.names.length;
  var readout = document.getElementById("readout"), hint = readout.textContent;
  var cells = new Map(confusion.cells.map(function (cell) { return [cell[0] + "," + cell[1], cell[2]]; }));
  function place(share) { return Math.min(size - 1, Math.max(0, Math.floor(share * size))); }
  function cellAt(event) {
    var box = map.getBoundingClientRect();
    var row = place((event.clientY - box.top) / box.height), column = place((event.clientX - box.left) / box.width);
    var reach = Math.ceil(size / 160) - 1;  // a mistake among many classes is drawn larger than its cell
    for (var away = 0; away <= reach; away++) {
      for (var y = row - away; y <= row + away; y++) {
        for (var x = column - away; x <= column + away; x++) {
          if (cells.has(y + "," + x)) return [y, x];
        }
      }
    }
    return [row, column];
  }
  map.addEventListener("mousemove", function (event) {
    var cell = cellAt(event);
    readout.textContent = (cells.get(cell.join(",")) || 0) + " of " + confusion.totals[cell[0]] + " videos of \u201c" +
      confusion.names[cell[0]] + "\u201d are taken for \u201c" + confusion.names[cell[1]] + "\u201d";
  });
  map.addEventListener("mouseleave", function () { readout.textContent = hint; });
  map.addEventListener("click", function (event) {
    var cell = cellAt(event);
    if (showInGallery) showInGallery(confusion.numbers[cell[0]], confusion.numbers[cell[1]]);
  });
})();

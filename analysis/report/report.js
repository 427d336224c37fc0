// Sorts and filters tables, and enlarges pictures. Without it everything can still be read.
"use strict";

function valueOf(row, column) {
  const cell = row.cells[column];
  const given = cell.dataset.value;
  return given === undefined ? cell.textContent.trim().toLowerCase() : given === "" ? null : Number(given);
}

// Cells with nothing to tell come last, whichever way the others go.
function compare(one, other, up) {
  if (one === null || other === null) return (one === null) - (other === null);
  const order = typeof one === "number" ? one - other : String(one).localeCompare(String(other), "en", { numeric: true });
  return up ? order : -order;
}

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const up = head.getAttribute("aria-sort") !== "ascending";
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
  rows.sort((one, other) => compare(one[0], other[0], up));
  body.append(...rows.map((pair) => pair[1]));
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
}

function makeSortable(table) {
  Array.from(table.tHead.rows[0].cells).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sortBy(table, column));
    head.append(button);
  });
}

// Every word has to be somewhere in the row.
function makeFilter(table, place) {
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  input.type = "search";
  input.placeholder = "words, such as: partial 0.003";
  label.append("Show rows with ", input);
  place.append(label, count);
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of table.tBodies[0].rows) {
      const text = Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
      shown += !row.hidden;
    }
    count.textContent = words.length ? `${shown} of ${table.tBodies[0].rows.length}` : "";
  });
}

function makeEnlargeable(picture) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.setAttribute("aria-label", "Enlarge: " + picture.alt.slice(0, 80));
  picture.replaceWith(button);
  button.append(picture);
  button.addEventListener("click", () => {
    const dialog = document.getElementById("enlarged");
    const whole = picture.cloneNode();
    const caption = document.createElement("p");
    const figure = button.closest("figure");
    caption.textContent = figure && figure.querySelector("figcaption") ? figure.querySelector("figcaption").textContent : "";
    dialog.querySelector("div").replaceChildren(whole, caption);
    dialog.showModal();
  });
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
document.querySelectorAll(".filter").forEach((place) => makeFilter(document.getElementById(place.dataset.table), place));
document.querySelectorAll("figure img").forEach(makeEnlargeable);
const enlarged = document.getElementById("enlarged");
enlarged.addEventListener("click", (event) => {
  if (event.target.tagName !== "P") enlarged.close();
});
document.documentElement.classList.add("scripted");
// Folded parts are printed, too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));

// Sorts and filters tables, and enlarges images. Without it everything can still be read.
"use strict";

function valueOf(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value;
  return value === undefined ? cell.textContent.trim().toLowerCase() : value === "" ? null : Number(value);
}

// Missing values come last in either direction.
function compare(first, second, up) {
  if (first === null || second === null) return (first === null) - (second === null);
  const order =
    typeof first === "number" ? first - second : String(first).localeCompare(String(second), "en", { numeric: true });
  return up ? order : -order;
}

function sortBy(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const up = head.getAttribute("aria-sort") !== "ascending";
  const body = table.tBodies[0];
  const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
  rows.sort((first, second) => compare(first[0], second[0], up));
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

// Shows the rows that contain every word.
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

function makeEnlargeable(image) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "enlarge";
  button.setAttribute("aria-label", "Enlarge: " + image.alt.slice(0, 80));
  image.replaceWith(button);
  button.append(image);
  button.addEventListener("click", () => {
    const dialog = document.getElementById("enlarged");
    const caption = document.createElement("p");
    caption.textContent = button.closest("figure")?.querySelector("figcaption")?.textContent ?? "";
    dialog.querySelector("div").replaceChildren(image.cloneNode(), caption);
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
// Opens folded sections for printing.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));

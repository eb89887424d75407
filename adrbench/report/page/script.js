"use strict";
for (const box of document.querySelectorAll(".table")) {
  const body = box.querySelector("tbody");
  const search = box.querySelector("input");
  const count = box.querySelector("output");
  if (search) {
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of body.rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      }
      const shown = [...body.rows].filter((row) => !row.hidden).length;
      count.textContent = words.length ? `${shown} of ${body.rows.length} rows` : "";
    });
  }
  for (const heading of box.querySelectorAll("thead th")) {
    heading.querySelector("button").addEventListener("click", () => {
      const isAscending = heading.getAttribute("aria-sort") === "descending";
      const column = heading.cellIndex;
      for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      const rows = [...body.rows];
      rows.sort((one, other) => compare(one.cells[column], other.cells[column], isAscending));
      body.append(...rows);
    });
  }
}
function compare(one, other, isAscending) {
  const [first, second] = [one.dataset.order, other.dataset.order];
  if (first === "" || second === "") return (first === "") - (second === "");
  const [a, b] = [Number(first), Number(second)];
  const order = Number.isNaN(a) || Number.isNaN(b) ? first.localeCompare(second) : a - b;
  return isAscending ? order : -order;
}
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const one of opened) one.open = true;
});
addEventListener("afterprint", () => {
  for (const one of opened) one.open = false;
});

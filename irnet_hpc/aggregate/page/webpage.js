"use strict";
// Tables sort by a click on a heading: numbers as numbers, what holds none last, names as people order them (irnet-9, irnet-17).
(() => {
  const names = new Intl.Collator("en", { numeric: true });
  const key = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
  };
  const sort = (button) => {
    const head = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
    const column = head.cellIndex, down = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = Array.from(body.rows, (row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      const numeric = (typeof b === "number") - (typeof a === "number");
      if (numeric) return numeric;
      const order = typeof a === "number" ? a - b : names.compare(a, b);
      return down ? -order : order;
    });
    body.append(...rows.map(([, row]) => row));
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("table.sortable thead button");
    if (button) sort(button);
  });
  for (const field of document.querySelectorAll("input[data-filters]")) {
    const body = document.getElementById(field.dataset.filters).tBodies[0];
    field.addEventListener("input", () => {
      const words = field.value.toLowerCase().split(/\s+/);
      Array.from(body.rows).forEach((row) => {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
      });
    });
  }
  // Paper has no folds.
  const folds = () => Array.from(document.querySelectorAll("details:not(.screen)"));
  let closed = [];
  addEventListener("beforeprint", () => { closed = folds().filter((fold) => !fold.open); closed.forEach((fold) => { fold.open = true; }); });
  addEventListener("afterprint", () => closed.forEach((fold) => { fold.open = false; }));
})();

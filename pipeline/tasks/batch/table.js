// Sorts the table by a column, and hides the rows that do not match.
const table = document.getElementById("models");
const body = table.tBodies[0];
const rows = Array.from(body.rows);
const words = document.getElementById("words");
const verdict = document.getElementById("verdict");
const kind = document.getElementById("kind");
const shown = document.getElementById("shown");

function filter() {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !(
      wanted.every((word) => text.includes(word)) &&
      (!verdict.value || row.dataset.verdict === verdict.value) &&
      (!kind.value || row.dataset.kind === kind.value)
    );
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = `${count} of ${rows.length} shown`;
}

function key(row, column) {
  const cell = row.cells[column];
  const value = cell.dataset.value ?? cell.textContent.trim();
  return value !== "" && !Number.isNaN(Number(value)) ? Number(value) : value.toLowerCase();
}

function compare(one, other) {
  if (typeof one === typeof other) return one < other ? -1 : one > other ? 1 : 0;
  return typeof one === "number" ? -1 : 1;
}

for (const [column, head] of Array.from(table.tHead.rows[0].cells).entries()) {
  head.firstElementChild.addEventListener("click", () => {
    const isRising = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", isRising ? "ascending" : "descending");
    const keyed = rows.map((row) => [key(row, column), row]);
    keyed.sort((one, other) => compare(one[0], other[0]) * (isRising ? 1 : -1));
    body.append(...keyed.map(([, row]) => row));
  });
}

for (const control of [words, verdict, kind]) control.addEventListener("input", filter);
document.getElementById("controls").hidden = false;
filter();

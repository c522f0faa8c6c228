"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const read = id => JSON.parse(document.getElementById(id).textContent);

// Charts: what comes near is drawn at once, the rest when the browser has time.
// Until then, and without this script, its description stands in a chart's place.
const specs = read("specs");
// `ast` interprets Vega's expressions, so that the page may forbid eval
const options = { mode: "vega-lite", renderer: "svg", actions: false, ast: true, config: read("config") };
const waiting = new Set(all(".chart"));
// About the height to come, lest the page jump under its reader
for (const place of waiting) place.style.height = `${(Number(specs[place.id].height) || 200) + 49}px`;
const whenIdle = window.requestIdleCallback ?? (work => setTimeout(work, 30));
const near = new IntersectionObserver(
  seen => seen.forEach(one => one.isIntersecting && draw(one.target)), { rootMargin: "600px" });

async function draw(place) {
  if (!waiting.delete(place)) return;
  near.unobserve(place);
  await vegaEmbed(place, { ...specs[place.id], description: place.textContent }, options);
  place.style.height = "";
}

async function drawRest() {
  const next = [...waiting].find(place => place.clientWidth);
  document.documentElement.dataset.drawn = !next; // of all that the filter shows
  if (next) whenIdle(() => draw(next).finally(drawRest));
  else if (untouched) goToSection(); // its place has moved a little
}
let untouched = true;
for (const kind of ["wheel", "pointerdown", "keydown"]) addEventListener(kind, () => { untouched = false; });

// A section shows its first figures; a button shows the others
const FEW = 6;
function fold(grid) {
  const figures = all("figure:not([hidden])", grid), more = grid.nextElementSibling;
  const many = figures.length > FEW + 2 && !grid.dataset.whole;
  figures.forEach((figure, n) => figure.classList.toggle("over", many && n >= FEW));
  more.hidden = !many;
  more.textContent = `Show the other ${figures.length - FEW} figures`;
}
const refit = () => dispatchEvent(new Event("resize")); // charts take the width of their place
for (const grid of all(".charts")) grid.nextElementSibling.onclick = () => {
  const first = grid.querySelector(".over");
  grid.dataset.whole = "yes";
  fold(grid);
  refit();
  first.tabIndex = -1;
  first.focus({ preventScroll: true });
};

// Sorting: what has no value stays last
for (const button of all("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const down = head.ariaSort === "ascending", column = head.cellIndex, sign = down ? -1 : 1;
  for (const other of head.parentElement.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  const key = ({ cells: { [column]: cell } }) => cell.dataset.n ?? cell.textContent.replace("–", "");
  const compare = (a, b) => (a === "") - (b === "") || sign * (a - b || a.localeCompare(b));
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  document.getElementById("told").textContent = `sorted by ${button.textContent}, ${head.ariaSort}`;
};

// Filter: languages by name, script and family, systems by name
const bar = document.querySelector(".bar"), boxes = all("input", bar);
const kindOf = Object.fromEntries(
  boxes.filter(box => box.name === "system").map(box => [box.value, box.dataset.kind]));
const chosen = name => boxes.filter(box => box.name === name && box.checked).map(box => box.value);

function filter() {
  const facets = Object.fromEntries(["language", "script", "family", "system"].map(n => [n, chosen(n)]));
  const any = Object.values(facets).some(values => values.length);
  const allows = (name, value) => !facets[name].length || facets[name].includes(value);
  const ofLanguage = facets.language.length + facets.script.length + facets.family.length > 0;
  const languages = new Set(boxes.filter(box => box.name === "language" && allows("language", box.value)
    && allows("script", box.dataset.script) && allows("family", box.dataset.family)).map(box => box.value));
  const systems = new Set(facets.system), kinds = new Set(facets.system.map(name => kindOf[name]));
  const speaks = names => !ofLanguage || !names.length || names.some(name => languages.has(name));
  // Of a pair (E2E, cascade), a kind of which nothing is chosen does not count
  const runs = names => !systems.size || !names.length || (names.some(name => systems.has(name))
    && [...kinds].every(kind => !names.some(name => kindOf[name] === kind)
      || names.some(name => kindOf[name] === kind && systems.has(name))));

  const count = { rows: 0, ofRows: 0, figures: 0, ofFigures: 0 };
  for (const part of all(".charts figure, .examples [data-languages]")) {
    const { languages: of = "[]", systems: by = "[]" } = part.dataset;
    part.hidden = !(speaks(JSON.parse(of)) && runs(JSON.parse(by)));
    count.ofFigures += part.matches("figure");
    count.figures += part.matches("figure:not([hidden])");
  }
  for (const table of all("table")) {
    const names = [...table.tHead.rows[0].cells].map(cell => cell.textContent);
    const places = (...wanted) => wanted.map(name => names.indexOf(name)).filter(n => n >= 0);
    const spoken = places("language"), run = places("system", "E2E", "cascade");
    const values = (row, columns) => columns.map(n => row.cells[n].textContent).filter(text => text !== "–");
    const rows = [...table.tBodies[0].rows], before = count.rows;
    for (const row of rows) {
      row.hidden = !(speaks(values(row, spoken)) && runs(values(row, run)));
      count.rows += !row.hidden;
    }
    count.ofRows += rows.length;
    names.forEach((name, n) => {
      if (name in kindOf) for (const row of table.rows) row.cells[n].hidden = !runs([name]);
    });
    const told = table.parentElement.previousElementSibling, shown = count.rows - before;
    told.hidden = shown === rows.length;
    told.textContent = `${shown} of ${rows.length} rows: those that the filter lets through`;
  }
  for (const details of all("[data-facet]", bar)) {
    const names = facets[details.dataset.facet];
    const total = boxes.filter(box => box.name === details.dataset.facet).length;
    details.querySelector("span").textContent = names.length > 1 ? `: ${names.length} of ${total}` : names.map(name => `: ${name}`).join("");
  }
  bar.querySelector("output").textContent = any
    ? `${count.rows.toLocaleString("en")} of ${count.ofRows.toLocaleString("en")} rows, ${count.figures} of ${count.ofFigures} figures` : "";
  bar.querySelector("[type=reset]").hidden = !any;
  document.documentElement.style.setProperty("--bar", `${bar.offsetHeight}px`); // anchors stop below it
  all(".charts").forEach(fold);
  refit();
  drawRest();
}

// The address keeps the filter behind the name of a section: #languages&language=Tamil
const section = () => location.hash.slice(1).split("&").find(part => part && !part.includes("="));
const goToSection = () => document.getElementById(section())?.scrollIntoView();
function keep(name = section()) {
  const state = new URLSearchParams(boxes.filter(box => box.checked).map(box => [box.name, box.value]));
  const parts = [name, String(state)].filter(Boolean);
  history.replaceState(null, "", parts.length ? `#${parts.join("&")}` : location.pathname + location.search);
}
function restore() {
  const state = new URLSearchParams(location.hash.slice(1));
  for (const box of boxes) box.checked = state.getAll(box.name).includes(box.value);
  filter();
  goToSection();
}
bar.onsubmit = event => event.preventDefault();
bar.onchange = () => { filter(); keep(); };
bar.onreset = () => setTimeout(() => { filter(); keep(); bar.querySelector("summary").focus(); });
addEventListener("hashchange", restore);
addEventListener("click", event => {
  const link = event.target.closest("a[href^='#']");
  if (link) {
    event.preventDefault();
    keep(link.hash.slice(1));
    const place = document.querySelector(link.hash);
    place.scrollIntoView();
    place.tabIndex = -1;
    place.focus({ preventScroll: true });
  }
  for (const open of all("details[open]", bar)) if (!open.contains(event.target)) open.open = false;
});
bar.onkeydown = event => {
  const open = event.key === "Escape" && bar.querySelector("details[open]");
  if (open) { open.open = false; open.querySelector("summary").focus(); }
};

// Print shows what is folded away on the screen, but tables of many pages only where they are open
const MANY = 100;
let opened = [];
addEventListener("beforeprint", () => {
  opened = all("main details:not([open])").filter(one => all("tbody tr:not([hidden])", one).length <= MANY);
  opened.forEach(one => { one.open = true; });
});
addEventListener("afterprint", () => opened.forEach(one => { one.open = false; }));

bar.hidden = !boxes.length;
restore();
waiting.forEach(place => near.observe(place));

// One player at a time
addEventListener("play", e => document.querySelectorAll("audio").forEach(a => a !== e.target && a.pause()), true);

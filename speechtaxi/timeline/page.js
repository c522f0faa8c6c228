"use strict";
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// Player: a click on a time or on the bar plays from there, and what is played is marked
for (const section of all(".recording:has(audio)")) {
  const audio = section.querySelector("audio"), bar = section.querySelector(".bar");
  const places = all("[data-start]", section), links = all(".bar a", section);
  const play = seconds => {
    audio.currentTime = seconds;
    audio.play().catch(() => {}); // its error is told below
  };
  for (const button of all("[data-at]", section)) button.onclick = () => play(Number(button.dataset.at));
  audio.onplay = () => all("audio").forEach(other => other === audio || other.pause());
  if (!bar) continue;

  const cursor = section.querySelector(".cursor"), seconds = Number(bar.dataset.seconds);
  audio.onerror = () => { section.querySelector("[role=status]").hidden = false; };
  audio.ontimeupdate = audio.onseeking = () => {
    const now = audio.currentTime;
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x", `${Math.min(100 * now / seconds, 100)}%`);
    for (const place of places) {
      const here = Number(place.dataset.start) <= now && now < Number(place.dataset.end);
      place.classList.toggle("now", here);
      if (here) place.ariaCurrent = "time"; else place.removeAttribute("aria-current");
    }
    for (const link of links) link.classList.toggle("now", !!section.querySelector(`${link.hash}.now`));
  };
  bar.querySelector(".topics").onclick = event => {
    event.preventDefault();
    const { left, width } = bar.getBoundingClientRect();
    play(seconds * Math.min(Math.max((event.clientX - left) / width, 0), 1));
  };
}

// A bar names the topics that have the room
const names = new ResizeObserver(seen => seen.forEach(({ target }) => {
  for (const text of all("a text", target)) {
    const fits = text.getComputedTextLength() + 9 < text.parentElement.width.baseVal.value;
    text.setAttribute("visibility", fits ? "visible" : "hidden");
  }
}));
for (const bar of all(".bar")) names.observe(bar);

// Sorting: what has no value stays last
for (const button of all("th button")) button.onclick = () => {
  const head = button.parentElement, body = head.closest("table").tBodies[0];
  const down = head.ariaSort === "ascending", column = head.cellIndex, sign = down ? -1 : 1;
  for (const other of head.parentElement.cells) other.ariaSort = null;
  head.ariaSort = down ? "descending" : "ascending";
  const key = ({ cells: { [column]: cell } }) => cell.dataset.n ?? cell.textContent.trim().replace("–", "");
  const compare = (a, b) => (a === "") - (b === "") || sign * (a - b || a.localeCompare(b));
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
  document.getElementById("told").textContent = `sorted by ${button.textContent}, ${head.ariaSort}`;
};

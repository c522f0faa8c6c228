"use strict";
// How an answer looks: the words of the routes, bars, transcripts, the timeline. page.js asks for it
const $ = id => document.getElementById(id);

// What files, models and people say enters as text, never as markup
function fill(node, properties, children) {
  for (const [key, value] of Object.entries(properties)) {
    if (key in node && !(node instanceof SVGElement)) node[key] = value;
    else node.setAttribute(key, value);
  }
  node.append(...children.filter(child => child || child === 0));
  return node;
}
const make = (tag, properties = {}, ...children) => fill(document.createElement(tag), properties, children);
const draw = (tag, properties = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), properties, children);
const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);
const tell = text => { $("told").textContent = text; };

const two = n => String(n).padStart(2, "0");
function clock(seconds) {
  const s = Math.floor(seconds), minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes}:${two(s % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
}
const number = p => p == null ? "" : p.toFixed(2);

const UNKNOWN = "und", names = new Intl.DisplayNames("en", { type: "language", fallback: "none" });
function nameOf(code) {
  if (code === UNKNOWN) return "language not known";
  try { return names.of(code) ?? code; } catch { return code; } // a corpus code is no BCP 47
}
function tagOf(code, script = "") {
  try { return code === UNKNOWN ? "" : Intl.getCanonicalLocales(code)[0] + script; } catch { return ""; }
}

const labels = []; // in the order in which topics get their looks
const look = topic => {
  if (topic === "unknown") return ["unknown", "p6"];
  if (topic === "no speech") return ["silent", "p6"];
  if (!labels.includes(topic)) labels.push(topic);
  const n = labels.indexOf(topic);
  return [`c${n % 6}`, `p${(n + Math.floor(n / 6)) % 7}`];
};
const swatch = topic => draw("svg", { class: "swatch", "aria-hidden": "true" }, ...painted(topic));
const painted = topic => [
  draw("rect", { class: look(topic)[0], width: "100%", height: "100%" }),
  draw("rect", { fill: `url(#${look(topic)[1]})`, width: "100%", height: "100%" }),
];

// What the routes say
const WHO = { e2e: "E2E", cascade: "the cascade", ensemble: "the ensemble" };
const capital = text => text.charAt(0).toUpperCase() + text.slice(1);
const whole = result => result.answers.find(row => row.kind === "recording") ?? result.answers[0];
const pieces = result => result.answers.filter(row => row.kind === "segment");
function who(result, results) {
  const name = WHO[result.route] ?? result.route;
  return results.filter(other => other.route === result.route).length > 1 ? `${name} (${result.system})` : name;
}
const says = topic => ({ unknown: "is not sure", "no speech": "finds no speech" })[topic] ?? `says ${topic}`;
const sayings = told => `${capital(told.map(([name, topic]) => `${name} ${says(topic)}`).join(", "))}.`;
function verdict({ results, agree }) {
  if (!results.length) return "No route answered.";
  const told = sayings(results.map(one => [who(one, results), whole(one).topic]));
  if (results.length < 2) return told;
  return agree ? `The routes agree: ${whole(results[0]).topic}.` : `The routes disagree. ${told}`;
}
/** Return the stretches that the routes heard alike in time and unlike in topic: [start, end, sentence]. */
function disputes(results) {
  const routes = results.filter(one => one.route !== "ensemble"), found = [];
  const others = routes.map(one => new Map(pieces(one).map(row => [`${row.start} ${row.end}`, row.topic])));
  for (const { start, end } of routes.length > 1 ? pieces(routes[0]) : []) {
    const told = routes.map((one, n) => [who(one, results), others[n].get(`${start} ${end}`)]);
    const topics = new Set(told.map(([, topic]) => topic));
    const sentence = topics.size > 1 && !topics.has(undefined) && sayings(told);
    if (sentence && sentence === found.at(-1)?.[2]) found.at(-1)[1] = end;
    else found.push([start, end, sentence]);
  }
  return found.filter(([, , sentence]) => sentence);
}

function result(item) {
  const { reply } = item, { results } = reply, read = new Set();
  const player = make("audio", { controls: true, preload: "metadata", src: item.url, "aria-label": item.file.name });
  const mute = make("p", { className: "small soft", hidden: true }, "This browser cannot play this format.");
  player.onerror = () => { player.hidden = true; mute.hidden = false; };
  const play = at => { player.currentTime = at; player.play().catch(() => {}); };
  const language = results.length ? whole(results[0]).language : item.language;
  const parts = [make("p", { className: "small soft n" }, `${clock(reply.seconds)} · ${nameOf(language)}`), player, mute];
  const differ = disputes(results);
  if (!results.length || (results.length > 1 && (!reply.agree || differ.length))) {
    const note = make("div", { className: "note" }, make("strong", {}, verdict(reply)),
      reply.agree && differ.length > 0 && " They differ in places:");
    if (differ.length) {
      const list = make("ul", {}, ...differ.map(([start, end, sentence]) =>
        make("li", {}, at(start, end, play), " ", sentence)));
      note.append(differ.length > 5
        ? make("details", {}, make("summary", {}, `They differ in ${differ.length} stretches`), list) : list);
    }
    parts.push(note);
  } else if (results.length > 1) parts.push(make("p", {}, verdict(reply)));
  const long = results.some(one => pieces(one).length > 1 || one.stories.length > 1);
  if (long) parts.push(timeline(reply, differ, player, play));
  parts.push(make("div", { className: "routes" }, ...results.map(one => route(one, results, read, play))));
  return parts;
}
const at = (start, end, play) => button(`▶ ${clock(start)}–${clock(end)}`, () => play(start),
  { className: "at", "aria-label": `Play from ${clock(start)} to ${clock(end)}` });

function route(one, results, read, play) {
  const row = whole(one), parts = pieces(one), told = Object.entries(row.probabilities).sort((a, b) => b[1] - a[1]);
  const rest = 1 - told.reduce((sum, [, p]) => sum + p, 0);
  if (told.length && rest > .005) told.push(["other topics", rest]);
  const bars = told.map(([topic, p]) => {
    const bar = make("i");
    bar.style.width = `${100 * p}%`;
    return make("li", {}, make("span", {}, topic), make("span", { className: "track", ariaHidden: "true" }, bar),
      make("span", { className: "n" }, number(p)));
  });
  const aside = [row.probability != null && (one.calibrated ? "calibrated probabilities" : "probabilities not calibrated"),
    row.heard != null && `${nameOf(row.language)} heard with ${number(row.heard)}`, ...row.flags.map(flag => flag.replaceAll("_", " "))];
  const again = read.has(row.text); // the ensemble repeats what the cascade read
  read.add(row.text);
  return make("div", { role: "group", className: `route ${one.route in WHO ? one.route : ""}`, "aria-label": `${who(one, results)}, ${one.system}` },
    make("h4", {}, capital(WHO[one.route] ?? one.route), " ", make("small", {}, one.system)),
    make("p", { className: "topic" }, row.topic),
    bars.length > 0 && make("ul", { className: "bars", ariaLabel: "Probabilities" }, ...bars),
    make("p", { className: "small soft" }, aside.filter(Boolean).join(" · ")),
    !again && row.text != null && parts.length < 2 && words(row), // or stretch by stretch, below
    parts.length > 0 && make("details", {}, make("summary", {}, `Stretch by stretch (${parts.length})`),
      make("ol", { className: "spoken" }, ...parts.map(part => make("li", {}, at(part.start, part.end, play), " ",
        swatch(part.topic), " ", part.topic, " ", make("small", { className: "n" }, number(part.probability)), ...lines(part))))));
}
/** Return what was read as [title, text, language tag]: as the recogniser wrote it, and romanised. */
const scripts = ({ text, romanized, language }) => text == null ? [] : [
  ["Transcript", text || "(nothing)", tagOf(language)], ["Romanised", romanized, tagOf(language, "-Latn")],
].filter(([title, said]) => title === "Transcript" || (said && said !== text));
const words = row => make("dl", {}, ...scripts(row).flatMap(([title, said, lang]) =>
  [make("dt", {}, title), make("dd", { dir: "auto", lang }, said)]));
const lines = row => scripts(row).map(([title, said, lang]) =>
  make("p", { dir: "auto", lang, className: title === "Romanised" ? "soft small" : "" }, said));

function timeline({ results, seconds }, differ, player, play) {
  const length = seconds || 1, percent = s => `${100 * s / length}%`, cursors = [], topics = new Set();
  const node = make("div", { className: "timeline" });
  for (const one of results) {
    const rows = one.stories.length ? one.stories : pieces(one);
    const bar = draw("svg", { class: "spans", role: "img",
      "aria-label": `Over time, ${who(one, results)}: ${rows.slice(0, 20).map(row => `${clock(row.start)} ${row.topic}`).join(", ")}${rows.length > 20 ? " …" : ""}` });
    for (const row of rows) {
      topics.add(row.topic);
      const place = draw("svg", { x: percent(row.start), width: percent(row.end - row.start), height: "100%" }, ...painted(row.topic),
        row.topic !== "no speech" && draw("text", { x: 6, y: "1.6em" }, row.topic));
      const part = draw("g", {}, place, draw("title", {}, `${clock(row.start)}–${clock(row.end)} ${row.topic} ${number(row.probability)}`));
      part.onclick = () => play(row.start);
      bar.append(part);
    }
    cursors.push(bar.appendChild(draw("rect", { class: "cursor", width: 3, height: "100%" })));
    node.append(make("span", {}, capital(who(one, results))), bar);
  }
  if (differ.length) node.append(make("span", {}, "Where they differ"), draw("svg", { class: "differ", "aria-hidden": "true" },
    ...differ.map(([start, end]) => draw("rect", { x: percent(start), width: percent(end - start), height: "100%" }))));
  const step = [1, 5, 10, 30, 60, 300, 600, 1800, 3600, 7200].find(s => length / s <= 6) ?? 14400;
  const ticks = Array.from({ length: Math.floor(.97 * length / step) + 1 }, (_, n) => n * step);
  node.append(draw("svg", { class: "ticks", "aria-hidden": "true" }, ...ticks.map(s =>
    draw("text", { x: percent(s), y: "1em", class: s ? "" : "first" }, clock(s)))));
  node.append(make("p", { className: "legend" }, ...[...topics].map(topic => make("span", {}, swatch(topic), " ", topic))));
  player.ontimeupdate = () => cursors.forEach(cursor => cursor.setAttribute("x", percent(player.currentTime)));
  return node;
}

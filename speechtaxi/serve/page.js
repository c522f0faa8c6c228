"use strict";
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

// Languages: by name, by code, or both as the list offers them
const UNKNOWN = "und", tongues = new Map(), names = new Intl.DisplayNames("en", { type: "language", fallback: "none" });
function nameOf(code) {
  if (code === UNKNOWN) return "language not known";
  try { return names.of(code) ?? code; } catch { return code; } // a corpus code is no BCP 47
}
function tagOf(code, script = "") {
  try { return code === UNKNOWN ? "" : Intl.getCanonicalLocales(code)[0] + script; } catch { return ""; }
}
/** Return the code of what was written, "und" of nothing, null of what is no language; the server knows more names. */
function codeOf(written) {
  const said = written.trim().toLowerCase();
  if (!said || said === "not known") return UNKNOWN;
  if (/^[a-z]{2,3}(-[a-z0-9]+)*$/.test(said)) return tongues.get(said) ?? said;
  return tongues.get(said) ?? (/^[\p{L}\p{M} ()',-]+$/u.test(said) ? written.trim() : null);
}
function chosenLanguage() {
  const code = codeOf($("language").value);
  $("doubt").hidden = code !== null;
  $("doubt").textContent = code === null ? "No name of a language: choose one from the list, or leave this empty." : "";
  $("language").setAttribute("aria-invalid", code === null);
  if (code === null) $("language").focus();
  return code;
}
$("language").onchange = chosenLanguage;

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

// The server. XMLHttpRequest, since fetch does not tell how much is sent
let token = "", unlocking = null;
function ask(method, address, { body, signal, progress } = {}) {
  return new Promise((done, fail) => {
    const request = new XMLHttpRequest();
    request.open(method, address);
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    if (progress) request.upload.onprogress = event => progress(event.loaded / event.total);
    request.onload = () => {
      let reply = null;
      try { reply = JSON.parse(request.responseText); } catch { /* not from our server: told below */ }
      if (request.status === 200 && reply) return done(reply);
      const after = Number(request.getResponseHeader("Retry-After")) || 5;
      const message = reply?.error?.message ?? `The server answered ${request.status}, without saying why.`;
      fail({ status: request.status, message: String(message), after });
    };
    request.onerror = () => fail({ message: "The server cannot be reached, or closed the connection." });
    request.onabort = () => fail({ message: "Cancelled." });
    signal?.addEventListener("abort", () => request.abort());
    request.send(body);
  });
}

/** Ask for the token, of which the server says why; resolves when there is one. */
function unlock(why) {
  $("why").textContent = token ? `Not accepted: ${why}` : why;
  $("unlock").hidden = false;
  $("token").focus();
  tell(`A token is needed. ${$("why").textContent}`);
  return unlocking ??= new Promise(done => {
    $("unlock").onsubmit = event => {
      event.preventDefault();
      token = $("token").value.trim();
      $("token").value = "";
      $("unlock").hidden = true;
      unlocking = null;
      done();
    };
  });
}
const aborted = signal => new Promise(done => signal.addEventListener("abort", done));
const wait = seconds => new Promise(done => setTimeout(done, 1000 * seconds));

async function learn() {
  try {
    const { models } = await ask("GET", "/v1/models");
    const known = [...new Set(models.flatMap(model => model.languages))];
    const listed = known.map(code => [code, nameOf(code)]).sort((a, b) => a[1].localeCompare(b[1]));
    for (const [code, name] of listed) {
      const both = name === code ? code : `${name} (${code})`;
      for (const written of [code, name, both]) tongues.set(written.toLowerCase(), code);
      $("languages").append(make("option", { value: both }));
    }
    $("languages").prepend(make("option", { value: "not known" }));
    for (const label of models.flatMap(model => model.labels)) look(label);
  } catch (refusal) {
    if (refusal.status === 401) return unlock(refusal.message).then(learn);
    tell(refusal.message); // one can still classify, without the list
  }
}

// One file after the other
const items = [];
let working = false;
function add(files) {
  const language = chosenLanguage();
  if (language === null) return false;
  for (const file of files) {
    const item = { file, language, url: URL.createObjectURL(file), state: "waiting" };
    item.title = make("h3", { tabIndex: -1 }, make("bdi", {}, file.name));
    item.body = make("div");
    item.node = make("li", {}, item.title, item.body);
    items.push(item);
    $("list").append(item.node);
    show(item);
  }
  work();
  return true;
}
async function work() {
  if (working) return;
  working = true;
  for (let item; (item = items.find(one => one.state === "waiting"));) await send(item);
  working = false;
}
async function send(item) {
  const { signal } = item.stop = new AbortController();
  const query = new URLSearchParams({ language: item.language, top_k: 3, romanize: true });
  for (;;) {
    show(item, "sending");
    const body = new FormData(), { sent, line } = item;
    body.append("file", item.file, item.file.name);
    const progress = share => {
      sent.value = share;
      if (share === 1) { sent.removeAttribute("value"); line.textContent = "Sent. The routes are at work …"; }
    };
    try {
      item.reply = await ask("POST", `/v1/classify?${query}`, { body, signal, progress });
      return show(item, "done");
    } catch (refusal) {
      item.message = refusal.message ?? String(refusal);
      if (signal.aborted) return show(item, "cancelled");
      if (refusal.status === 401) {
        show(item, "locked");
        await Promise.race([unlock(item.message), aborted(signal)]);
      } else if (refusal.status === 429) {
        item.after = refusal.after;
        show(item, "busy");
        const now = new Promise(done => { item.now.onclick = done; });
        await Promise.race([wait(item.after), now, aborted(signal)]);
      } else return show(item, "error");
      if (signal.aborted) return show(item, "cancelled");
    }
  }
}
function drop(item) {
  items.splice(items.indexOf(item), 1);
  URL.revokeObjectURL(item.url);
  item.node.remove();
  refresh();
  $($("results").hidden ? "record" : "results-title").focus();
}
function refresh() {
  $("results").hidden = !items.length;
  $("exports").hidden = !items.some(item => item.reply);
}

const SAID = {
  waiting: () => "Waits for its turn.",
  sending: () => "Sending …",
  locked: () => "Waits for the token.",
  busy: item => `The server is busy: tried again in ${item.after} s.`,
  cancelled: () => "Cancelled.",
  error: item => item.message,
};
function show(item, state = item.state) {
  const focused = item.body.contains(document.activeElement);
  item.state = state;
  const done = state === "done", stopped = done || state === "error" || state === "cancelled";
  const named = { "aria-label": `Cancel ${item.file.name}` };
  const parts = [];
  if (!done) {
    item.line = make("p", { className: state === "error" ? "state wrong" : "state" }, SAID[state](item));
    parts.push(item.line);
  }
  if (state === "sending") parts.push(item.sent = make("progress", { "aria-label": `Sending ${item.file.name}` }));
  if (done) parts.push(...result(item));
  const buttons = make("p", { className: "buttons" });
  if (state === "busy") buttons.append(item.now = button("Try now"));
  if (stopped && !done) buttons.append(button("Try again", () => { show(item, "waiting"); work(); }));
  if (stopped) buttons.append(button("Remove", () => drop(item), { "aria-label": `Remove ${item.file.name}` }));
  else if (state === "waiting") buttons.append(button("Cancel", () => show(item, "cancelled"), named));
  else buttons.append(button("Cancel", () => item.stop.abort(), named));
  item.body.replaceChildren(...parts, buttons);
  if (focused) item.title.focus(); // its button is gone
  refresh();
  tell(`${item.file.name}: ${done ? verdict(item.reply) : SAID[state](item)}`);
}

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

// Results leave as JSON or CSV
// by the names that the reader knows
const replies = () => items.filter(item => item.reply).map(({ reply, file }) => ({ ...reply, name: file.name }));
$("copy").onclick = async () => {
  const text = JSON.stringify(replies(), null, 2);
  try { await navigator.clipboard.writeText(text); } catch { // plain HTTP has no clipboard
    const area = document.body.appendChild(make("textarea", { value: text }));
    area.select();
    document.execCommand("copy");
    area.remove();
    $("copy").focus();
  }
  tell($("copy").textContent = "Copied");
  setTimeout(() => { $("copy").textContent = "Copy as JSON"; }, 2000);
};
const COLUMNS = ["route", "system", "kind", "start", "end", "language", "topic", "probability", "calibrated", "heard", "text", "romanized"];
function cell(value) {
  // A spreadsheet would run what begins like a formula
  const text = typeof value === "string" ? value.replace(/^[=+@\t\r-]/, "'$&") : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
$("csv").onclick = () => {
  const rows = replies().flatMap(({ name, results }) => results.flatMap(one => one.answers.map(row =>
    [name, ...COLUMNS.map(column => ({ ...row, route: one.route })[column]), JSON.stringify(row.probabilities), row.flags.join(" ")])));
  const lines = [["name", ...COLUMNS, "probabilities", "flags"], ...rows].map(row => row.map(cell).join(","));
  const url = URL.createObjectURL(new Blob([`\ufeff${lines.join("\r\n")}\r\n`], { type: "text/csv" }));
  make("a", { href: url, download: "topics.csv" }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
};

// Files: chosen, or dropped anywhere
$("files").onchange = () => { add([...$("files").files]); $("files").value = ""; };
addEventListener("dragover", event => { event.preventDefault(); document.body.classList.add("dragged"); });
for (const kind of ["dragleave", "drop"]) addEventListener(kind, () => document.body.classList.remove("dragged"));
addEventListener("drop", event => { event.preventDefault(); add([...event.dataTransfer.files]); });
addEventListener("play", event => document.querySelectorAll("audio").forEach(a => a !== event.target && a.pause()), true);

// The microphone
let recorder = null, recorded = null;
function stage(name) {
  for (const id of ["idle", "recording", "review"]) $(id).hidden = id !== name;
  $({ idle: "record", recording: "stop", review: "send" }[name]).focus();
}
function unable(text) {
  $("unable").hidden = !text;
  $("unable").textContent = text;
  tell(text);
}
let asking = false;
async function record() {
  if (asking) return; // for leave, once
  asking = true;
  let stream;
  try { stream = await navigator.mediaDevices.getUserMedia({ audio: true }); } catch (error) {
    return unable(error.name === "NotFoundError" ? "No microphone was found."
      : "The microphone is not allowed: allow it in the browser's settings for this page.");
  } finally { asking = false; }
  const type = ["audio/webm;codecs=opus", "audio/mp4"].find(kind => MediaRecorder.isTypeSupported(kind));
  const chunks = [], began = Date.now(), context = new AudioContext(), meter = context.createAnalyser();
  recorder = new MediaRecorder(stream, type ? { mimeType: type } : {});
  recorder.ondataavailable = event => chunks.push(event.data);
  recorder.onstop = () => {
    stream.getTracks().forEach(track => track.stop());
    context.close();
    const kind = recorder.mimeType, at = new Date(began);
    const name = `recording ${two(at.getHours())}.${two(at.getMinutes())}.${two(at.getSeconds())}.${kind.includes("mp4") ? "m4a" : "webm"}`;
    recorded = new File(chunks, name, { type: kind });
    $("playback").src = URL.createObjectURL(recorded);
    stage("review");
    tell("Recorded. Listen to it, then classify it.");
  };
  context.createMediaStreamSource(stream).connect(meter);
  const wave = new Float32Array(meter.fftSize);
  let loudest = 0;
  const follow = () => {
    if (recorder.state !== "recording") return;
    meter.getFloatTimeDomainData(wave);
    const peak = Math.max(...wave.map(Math.abs)), seconds = (Date.now() - began) / 1000;
    loudest = Math.max(loudest, peak);
    $("level").value = peak ** .5; // nearer to what ears call loud
    $("elapsed").textContent = clock(seconds);
    $("quiet").hidden = seconds < 3 || loudest > .003;
    requestAnimationFrame(follow);
  };
  recorder.start();
  unable("");
  stage("recording");
  tell("Recording.");
  follow();
}
function forget() {
  URL.revokeObjectURL($("playback").src);
  $("playback").removeAttribute("src");
  recorded = null;
  stage("idle");
}
$("record").onclick = record;
$("stop").onclick = () => recorder.stop();
$("send").onclick = () => { if (add([recorded])) forget(); };
$("again").onclick = () => { forget(); record(); };
$("discard").onclick = forget;
addEventListener("pagehide", () => recorder?.state === "recording" && recorder.stop());
if (!navigator.mediaDevices || !window.MediaRecorder) {
  $("record").disabled = true;
  unable("Recording needs HTTPS, or a page from this machine; choose a file instead.");
}
learn();

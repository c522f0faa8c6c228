"use strict";
// What the page does: languages, the token, files, the microphone. result.js draws what is answered

// Languages: by name, by code, or both as the list offers them
const tongues = new Map();
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

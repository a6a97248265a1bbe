// The board's page: reads /api/live as lines of JSON, and draws what has changed. No library, nothing from elsewhere.

const $ = (id) => document.getElementById(id);
const LIMITS = [50, 100, 200, 500];
const SILENT_MS = 6000; // the server sends three lines a second: longer means that it is gone
const AGAIN_MS = [300, 700, 1500, 3000];
const SHOWN_FEATURES = 8;
const FLASHED_MAX = 12;
const ANSWER_MS = 60000; // why a score is so takes three servers
const UNSEEN_MS = 5000; // a browser has few connections to a server: a page that nobody sees gives its own back
const RENEWED_MS = 60000; // between two loads of another page
const HELD_MS = 8000; // a pointer that has rested so long points at nothing: the order goes on

const board = {
  about: null, rows: new Map(), order: [], total: 0, figures: {}, choices: new Map(), filters: new Map(), within: 3600, limit: LIMITS[0],
  lines: 0, paused: false, held: false, lost: false, skew: 0,
};

// ── texts ────────────────────────────────────────────────────────────────────────────────────────────────────────────

const whole = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });
const number = (value) => (Number.isInteger(value) ? whole.format(value) : new Intl.NumberFormat("en", { maximumSignificantDigits: 5 }).format(value));

function percent(p) {
  if (p > 0 && p < 0.0001) return "<\u200a0.01 %";
  return `${(p * 100).toFixed(p < 0.1 ? 2 : 1)} %`;
}

function points(change) {
  const text = (Math.abs(change) * 100).toFixed(Math.abs(change) < 0.01 ? 2 : 1);
  return `${change < 0 ? "−" : "+"}${text}`;
}

function seconds(s) {
  return s < 1 ? `${short.format(s * 1000)} ms` : `${short.format(s)} s`;
}

function bytes(size) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let at = 0;
  while (size >= 1000 && at < units.length - 1) { size /= 1000; at += 1; }
  return [short.format(size), units[at]];
}

const plural = (count, one, many = `${one}s`) => `${whole.format(count)} ${count === 1 ? one : many}`;

const HOUR_MS = 3600000, LAST_MS = 8.64e15 - 24 * HOUR_MS; // what a date can be
let moments = null;
function moment(ms) { // in the application's zone
  if (Math.abs(ms) > LAST_MS) return `${whole.format(ms)} ms`; // no time: a score may claim anything
  moments ??= [{}, { timeZoneName: "shortOffset" }].map((more) => new Intl.DateTimeFormat("en-GB", { timeZone: board.about.zone, day: "numeric",
    month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", ...more }));
  const offset = (at) => moments[1].formatToParts(at).find((part) => part.type === "timeZoneName").value;
  // Where the clocks go back an hour is there twice: there the offset is told, too.
  const twice = moments[0].format(ms) === moments[0].format(ms - HOUR_MS) || moments[0].format(ms) === moments[0].format(ms + HOUR_MS);
  return twice ? `${moments[0].format(ms)} ${offset(ms)}` : moments[0].format(ms);
}

function ago(ms) {
  const s = Math.max(0, Math.round((Date.now() + board.skew - ms) / 1000));
  if (s < 1) return "now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ago`;
  return plural(Math.floor(s / 86400), "day") + " ago";
}

function lasting(ms) {
  for (const [unit, size] of [["d", 86400000], ["h", 3600000], ["min", 60000], ["s", 1000]]) if (ms >= size) return `${whole.format(Math.round(ms / size))} ${unit}`;
  return `${ms} ms`;
}

function became(outcome) { // what a score's label says
  if (outcome.label === null) return "not known yet";
  return outcome.label ? `yes, ${lasting(outcome.after_ms)} later` : `no, not within ${board.about.horizon}`;
}

const outcomeName = () => board.about.probability.replace(/_?probability$/, "").replaceAll("_", " ") || "label";

// A pair is its id, a list in JSON as the server wrote it: a number beyond 2^53 would be another one if it were parsed.
const partsOf = (id) => id.match(/"(?:[^"\\]|\\.)*"|[^\s,[\]]+/g) ?? [];
const TURNED = /[\u0590-\u08ff\u200e\u200f\u202a-\u202e\u2066-\u2069\ufb1d-\ufefc]/; // from right to left, or what makes it so
function plain(part) { // for people
  if (part === "null") return "NULL";
  const value = part.startsWith('"') ? JSON.parse(part) : part;
  if (!value.trim()) return value ? part : "(empty)";
  return TURNED.test(value) ? `\u2068${value}\u2069` : value; // what stands beside it keeps its place
}
const named = (id) => partsOf(id).map(plain).join(" · ");

// What app.toml calls a field or a column for people.
const nameFor = (name) => (Object.hasOwn(board.about.names, name) ? board.about.names[name] : null);
const called = (name) => nameFor(name) ?? name.replaceAll("_", " ");

// ── elements ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function make(tag, properties = {}, ...children) {
  const element = tag === "svg" || make.inSvg.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [kind, handler] of Object.entries(value)) element.addEventListener(kind, handler);
    else element.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}
make.inSvg = new Set(["path", "circle", "line", "text", "title"]);

function wrapped(name) { // long names of columns break after an underscore
  return name.split(/(?<=_)/).flatMap((part, at) => (at ? [document.createElement("wbr"), part] : [part]));
}

function text(element, value) {
  if (element.textContent !== value) element.textContent = value;
}

function entitle(element, value) { // what is too long for its place is told whole by a pointer that rests
  text(element, value);
  element.title = value;
}

function cell(kind, label, ...children) {
  return make("td", { role: "cell", class: kind, "data-label": label }, ...children);
}

function sparkline(values) {
  if (values.length < 2) return make("span", { class: "flat" }, "first score");
  const low = Math.min(...values), span = Math.max(Math.max(...values) - low, 0.02);
  const points = values.map((p, at) => [2 + (at * 86) / (values.length - 1), 21 - ((p - low) / span) * 18]);
  const last = points.at(-1);
  const change = values.at(-1) - values.at(0);
  const said = `Trend of ${values.length} scores: ${Math.abs(change) < 0.0005 ? "steady" : change > 0 ? "up" : "down"} by ${points_(change)}`;
  return make("svg", { viewBox: "0 0 92 24", role: "img", "aria-label": said },
    make("path", { d: "M" + points.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L") }),
    make("circle", { cx: last[0], cy: last[1], r: 2.4 }));
}
const points_ = (change) => `${points(change).slice(1)} points`;

function lineChart(scores, wide = Math.min(innerWidth, 780) - 60) {
  const shown = [...scores].reverse();
  const high = Math.max(0.01, ...shown.map((score) => score.p)) * 1.1;
  const [width, height, left, right, top, bottom] = [wide, 150, 50, 12, 12, 24];
  const x = (at) => (shown.length < 2 ? (left + width - right) / 2 : left + (at * (width - left - right)) / (shown.length - 1));
  const y = (p) => height - bottom - (p / high) * (height - top - bottom);
  const when = (score) => moment(score.time ?? score.at);
  const marks = [0, high / 2.2, high / 1.1];
  const said = `Probability of the last ${plural(shown.length, "score")}: from ${percent(shown[0].p)} to ${percent(shown.at(-1).p)}`;
  const chart = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": said });
  for (const mark of marks) {
    chart.append(make("line", { class: "grid", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }));
    chart.append(make("text", { x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, mark ? percent(mark) : "0 %"));
  }
  chart.append(make("text", { x: left, y: height - 6 }, shown.length > 1 ? when(shown[0]) : ""));
  chart.append(make("text", { x: width - right, y: height - 6, "text-anchor": "end" }, when(shown.at(-1))));
  if (shown.length > 1) chart.append(make("path", { d: "M" + shown.map((score, at) => `${x(at).toFixed(1)} ${y(score.p).toFixed(1)}`).join("L") }));
  if (shown.length <= 60) for (const [at, score] of shown.entries()) chart.append(make("circle", { cx: x(at), cy: y(score.p), r: 2.6 }));
  return make("div", { class: "line" }, chart);
}

// ── asking the server ────────────────────────────────────────────────────────────────────────────────────────────────

class Refused extends Error {}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem("token");
  const signal = options.signal ?? AbortSignal.timeout(options.within ?? ANSWER_MS);
  const answer = await fetch(path, { signal, headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (answer.status === 401) {
    if (token === sessionStorage.getItem("token")) await login(Boolean(token)); // else another one has been entered since
    return ask(path, options);
  }
  if (!answer.ok) {
    const told = await answer.json().catch(() => ({}));
    throw new Refused(told.detail ?? `status ${answer.status}`);
  }
  return answer;
}

const json = async (path, options) => (await ask(path, options)).json();
const asked = (path, parameters) => json(`${path}?${new URLSearchParams(parameters)}`);

let entering = null;
function login(wasWrong) {
  entering ??= new Promise((resolve) => {
    if (wasWrong) text($("login-why"), "That token is not the one, or not any more.");
    sessionStorage.removeItem("token");
    $("token").value = "";
    $("login").showModal();
    $("login").oncancel = (event) => event.preventDefault();
    $("login").onclose = () => { if (entering) $("login").showModal(); }; // a second Escape is not to be prevented
    $("login-form").onsubmit = () => {
      sessionStorage.setItem("token", $("token").value.trim());
      entering = null;
      resolve();
    };
  });
  return entering;
}

let reading = null; // aborts the stream that is read
async function follow() {
  for (let attempt = 0; ; attempt += 1) {
    await seen();
    let dog = null;
    reading = new AbortController();
    const mine = reading;
    try {
      const parameters = new URLSearchParams({ limit: board.limit, within: board.within });
      for (const [name, value] of board.filters) parameters.set(`filter.${name}`, value);
      const watch = () => { clearTimeout(dog); dog = setTimeout(() => (entering ? watch() : mine.abort("silent")), SILENT_MS); };
      watch();
      const answer = await ask(`api/live?${parameters}`, { signal: mine.signal });
      let rest = "", first = true;
      for (const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader(); ;) {
        const { value, done } = await reader.read();
        if (done) break;
        watch();
        const lines = (rest + value).split("\n");
        rest = lines.pop();
        for (const line of lines) { take(JSON.parse(line), first); first = false; attempt = 0; }
      }
    } catch (error) {
      if (["anew", "unseen"].includes(mine.signal.reason)) { attempt = -1; continue; }
      if (error instanceof SyntaxError) throw error;
    } finally {
      clearTimeout(dog);
    }
    board.lost = true;
    status();
    await new Promise((resolve) => setTimeout(resolve, AGAIN_MS[Math.min(attempt, AGAIN_MS.length - 1)]));
  }
}

async function seen() {
  while (document.hidden) await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
}

let leaving = null;
function watchedOrNot() {
  clearTimeout(leaving);
  if (document.hidden) leaving = setTimeout(() => reading?.abort("unseen"), UNSEEN_MS);
}

function renew() { // the server has another page than this: it is loaded, and shows what was looked at
  const before = Number(sessionStorage.getItem("renewed") ?? 0);
  if (Date.now() - before < RENEWED_MS) return;
  sessionStorage.setItem("renewed", Date.now());
  sessionStorage.setItem("view", JSON.stringify({ filters: [...board.filters], within: board.within, limit: board.limit, query: $("query").value }));
  location.reload();
}

function restore() {
  const view = JSON.parse(sessionStorage.getItem("view") ?? "null");
  sessionStorage.removeItem("view");
  if (!view) return;
  Object.assign(board, { filters: new Map(view.filters), within: view.within, limit: view.limit });
  $("within").value = String(view.within);
  $("query").value = view.query;
}

function anew() { // another filter: another stream
  board.lines = 0;
  board.rows.clear();
  board.order = [];
  reading?.abort("anew");
  draw();
}

function take(line, first) {
  board.lost = false;
  board.lines += 1;
  board.skew = line.now - Date.now();
  if (line.page) board.stale = line.page !== board.about.page;
  if (board.stale && !board.paused) renew();
  if (first) { board.known = new Set(board.rows.keys()); board.order = []; }
  for (const [id, row] of Object.entries(line.rows ?? {})) board.rows.set(id, row);
  if (line.order) {
    board.order = line.order;
    const kept = new Set(line.order);
    for (const id of board.rows.keys()) if (!kept.has(id)) board.rows.delete(id);
  }
  if (line.total !== undefined) board.total = line.total;
  if (line.choices) { board.choices = new Map(Object.entries(line.choices)); drawFilters(); }
  if (line.figures) { Object.assign(board.figures, line.figures); drawFigures(); }
  if (line.rows && Object.hasOwn(line.rows, opened)) drawNewer(line.rows[opened]);
  status();
  if (!board.paused || first) draw(line.rows ?? {}); // who pauses and then filters wants to see that
}

// ── drawing ──────────────────────────────────────────────────────────────────────────────────────────────────────────

function status() {
  const { kafka, scorers, received } = board.figures;
  const away = kafka?.away && board.lines, gone = kafka?.gone && !away;
  const [state, said] = board.lost ? ["lost", "Not connected"]
    : !board.lines ? ["waiting", "Connecting…"]
    : away ? ["away", "Kafka is away"]
    : gone ? ["away", "The topic is gone"]
    : !kafka.loaded ? ["waiting", "Reading the last scores…"]
    : board.paused ? ["waiting", "Paused"] : ["live", "Live"];
  $("status").dataset.state = state;
  text($("status-text"), said);
  document.body.classList.toggle("lost", board.lost || Boolean((away || gone) && received));
  const silent = Object.entries(scorers?.away ?? {});
  const trouble = board.lost ? "The board does not answer. What is shown was so when it last did; the page tries again by itself."
    : away ? `Kafka does not answer: ${kafka.away}. New scores appear as soon as it is back.`
    : gone ? `There is no topic ${board.about.topics.scores} any more. What is shown was in it; new scores appear when it is made again.`
    : silent.length ? `No figures of the scorer at ${silent.map(([url, why]) => `${url} (${why})`).join(", ")}. Scores are shown as they come.` : "";
  $("trouble").hidden = !trouble;
  text($("trouble"), trouble);
}

function figure(id, value, unit = "") {
  const element = $(id), said = `${value} ${unit}`;
  if (element.dataset.said === said) return;
  element.dataset.said = said;
  element.replaceChildren(value, ...(unit ? [" ", make("small", {}, unit)] : []));
}

function drawFigures() {
  const { rate, seconds: each, scorers, letters, version, received, unreadable } = board.figures;
  figure("rate", rate < 10 && rate > 0 ? rate.toFixed(1) : whole.format(Math.round(rate)), "/s");
  const most = Math.max(1, ...each);
  $("spark").replaceChildren(make("path", { d: "M" + each.map((n, at) => `${(at * 120) / (each.length - 1)} ${(22 - (n / most) * 20).toFixed(1)}`).join("L") }));
  if (scorers.p50_s === null) figure("latency", "–");
  else figure("latency", seconds(scorers.p50_s), "median");
  text($("latency-note"), scorers.p50_s === null ? "no score measured yet" : `p99 ${seconds(scorers.p99_s)}, ${scorers.recent ? "last 30 s" : "since start"}`);
  figure("lag", scorers.lag === null ? "–" : whole.format(scorers.lag), scorers.lag === null ? "" : scorers.lag === 1 ? "record" : "records");
  text($("lag-note"), scorers.lag === null ? "no scorer tells" : scorers.lag ? "not scored yet" : "all is scored");
  figure("letters", whole.format(letters));
  figure("version", version || "–");
  text($("version-note"), scorers.asked ? `${scorers.ready} of ${plural(scorers.asked, "scorer")} ready` : "of the last score");
  drawAuc();
  if (scorers.state_bytes === null) figure("state", "–"); else figure("state", ...bytes(scorers.state_bytes));
  text($("state-note"), scorers.state_rows === null ? "no scorer tells" : plural(scorers.state_rows, "row"));
  const odd = unreadable ? `, ${plural(unreadable, "record")} of the topic ${unreadable === 1 ? "is no score" : "are no scores"}` : "";
  text($("footer"), `${plural(received, "score")} since the board began to count${odd}. It keeps the newest ${whole.format(board.about.kept.scores)} and the best ${whole.format(board.about.kept.best)} pairs. Times are in ${board.about.zone}.`);
}

function drawAuc() {
  const { auc, kafka } = board.figures;
  const of = `${plural(auc.matured, "matured score")}, ${whole.format(auc.positives)} positive`;
  figure("auc", auc.auc === null ? "–" : auc.auc.toFixed(3), auc.auc === null ? "" : `${auc.low.toFixed(3)} to ${auc.high.toFixed(3)}`);
  text($("auc-note"), auc.missing || (!auc.loaded ? (kafka.away ? "Kafka is away" : "reading labels…")
    : !auc.matured ? `labels are known ${board.about.horizon} later`
    : auc.auc === null ? `${of}: too few, it takes ${board.about.class_min} of each`
    : `of ${of}; labels known${auc.known_to === null ? "" : ` up to ${moment(auc.known_to)}`}`));
}

function drawFilters() {
  const names = [...board.choices.keys()];
  for (const name of board.filters.keys()) if (!names.includes(name)) names.push(name);
  const there = [...$("filter-fields").children].map((child) => child.dataset.name);
  if (JSON.stringify(there) !== JSON.stringify(names)) {
    $("filter-fields").replaceChildren(...names.map((name) => {
      const id = `filter-${name}`;
      const select = make("select", { id, on: { change: () => {
        if (select.value) board.filters.set(name, select.value.slice(1)); else board.filters.delete(name);
        anew();
      } } });
      return make("div", { class: "field", "data-name": name }, make("label", { for: id }, called(name)), select);
    }));
  }
  for (const child of $("filter-fields").children) {
    const select = child.querySelector("select"), chosen = board.filters.get(child.dataset.name);
    const values = (board.choices.get(child.dataset.name) ?? []).map(([value]) => value);
    if (chosen !== undefined && !values.includes(chosen)) values.unshift(chosen);
    const said = JSON.stringify([values, chosen]);
    if (select.dataset.said === said || document.activeElement === select) continue;
    select.dataset.said = said;
    // A value may be the empty text, which "any" must not be taken for.
    select.replaceChildren(make("option", { value: "" }, "any"), ...values.map((value) => make("option", { value: `=${value}` }, value.trim() ? value : "(empty)")));
    select.value = chosen === undefined ? "" : `=${chosen}`;
  }
  const chosen = board.filters.size;
  $("clear").hidden = !chosen;
  $("filters").hidden = !names.length;
  text($("filters-title"), chosen ? `Filters (${chosen} chosen)` : "Filters");
}

function drawHead() {
  const pair = board.about.pair.map(called);
  const columns = [["rank number", "#"], ["who", pair.join(" · ")], ["chance", "probability"], ["trend", "trend"],
    ["more", "known of them"], ["when", "scored"], ["model number", "model"]];
  $("head").replaceChildren(...columns.map(([kind, label]) => make("th", { role: "columnheader", scope: "col", class: kind }, label)));
}

function fill(tr, row) { // in a burst every row changes all the time: only what is new of it is drawn
  const was = tr.row;
  if (!was) {
    const open = make("button", { type: "button", class: "open", title: named(row.id), "aria-label": `Open ${partsOf(row.id).map((part, at) => `${called(board.about.pair[at])} ${plain(part)}`).join(", ")}` }, named(row.id));
    tr.parts = { chance: make("b"), bar: make("i"), trend: cell("trend", "trend"), facts: cell("more facts", "known"), when: make("time"), model: cell("model number", "model") };
    tr.replaceChildren(cell("rank number", "#"), cell("who", "pair", open),
      cell("chance", "probability", make("div", { class: "bar" }, tr.parts.chance, make("span", { class: "track", "aria-hidden": "true" }, tr.parts.bar))),
      tr.parts.trend, tr.parts.facts, cell("when", "scored", tr.parts.when), tr.parts.model);
  }
  const { chance, bar, trend, facts, when, model } = tr.parts;
  if (was?.p !== row.p) {
    text(chance, percent(row.p));
    bar.style.width = `${Math.max(1, row.p * 100)}%`;
  }
  if (String(was?.trend) !== String(row.trend)) trend.replaceChildren(sparkline(row.trend));
  if (JSON.stringify(was?.attributes) !== JSON.stringify(row.attributes)) facts.replaceChildren(...Object.entries(row.attributes).slice(0, 8).flatMap(([label, value]) => [make("span", { class: "known", title: `${called(label)} ${value}` }, make("i", {}, called(label)), " ", make("b", {}, value || "–")), " "]));
  if (was?.at !== row.at) {
    when.dateTime = Math.abs(row.at) > LAST_MS ? "" : new Date(row.at).toISOString();
    when.title = moment(row.at);
    when.dataset.at = row.at;
    text(when, ago(row.at));
  }
  text(model, row.version || "–");
  tr.row = row;
}

function draw(changed = {}) {
  const body = $("rows"), loading = !board.lines || (!board.order.length && !board.figures.kafka?.loaded && !board.figures.kafka?.away);
  if (loading) {
    if (!body.querySelector(".skeleton")) body.replaceChildren(...Array.from({ length: 6 }, () => make("tr", { role: "row", class: "skeleton", "aria-hidden": "true" }, ...Array.from({ length: 7 }, () => make("td", { role: "cell" })))));
    $("empty").hidden = true;
    $("table").setAttribute("aria-busy", "true");
    text($("count"), "");
    $("more").hidden = true;
    return;
  }
  $("table").removeAttribute("aria-busy");
  body.querySelectorAll(".skeleton").forEach((tr) => tr.remove());
  const there = new Map([...body.children].map((tr) => [tr.dataset.id, tr]));
  // A row that moves under a pointer, or loses the focus that it has, is opened by accident or not at all.
  const order = board.held && there.size ? [...[...there.keys()].filter((id) => board.rows.has(id)), ...(there.size < board.order.length ? board.order.filter((id) => !there.has(id)) : [])] : board.order;
  const wanted = new Set(order);
  for (const [id, tr] of there) if (!wanted.has(id)) tr.remove();
  const few = Object.keys(changed).length <= FLASHED_MAX; // in a burst all would flash all the time
  const focused = body.contains(document.activeElement) ? document.activeElement : null;
  let before = body.firstElementChild;
  for (const [at, id] of order.entries()) {
    const row = board.rows.get(id);
    let tr = there.get(id);
    if (!tr) {
      tr = make("tr", { role: "row", "data-id": id });
      fill(tr, row);
      if (there.size && few) tr.classList.add("new");
    } else if (tr.row !== row) {
      fill(tr, row);
      if (few && id in changed) { tr.classList.remove("new"); void tr.offsetWidth; tr.classList.add("new"); }
    }
    text(tr.firstElementChild, String(at + 1));
    if (tr !== before) body.insertBefore(tr, before); else before = before.nextElementSibling;
  }
  if (focused?.isConnected && document.activeElement !== focused) focused.focus({ preventScroll: true }); // moving took it away
  text($("count"), board.total > board.order.length ? `the best ${whole.format(board.order.length)} of ${plural(board.total, "pair")}` : plural(board.total, "pair"));
  $("more").hidden = board.total <= board.order.length || board.limit === LIMITS.at(-1);
  drawEmpty();
}

function drawEmpty() {
  const empty = $("empty"), { kafka, received } = board.figures;
  empty.hidden = board.order.length > 0;
  $("table").hidden = !empty.hidden;
  if (empty.hidden) return;
  const filtered = board.filters.size > 0;
  const kind = kafka?.away && !received ? "away" : !received ? "none" : filtered ? "filtered" : "old";
  if (empty.dataset.kind === kind) return;
  empty.dataset.kind = kind;
  const says = (title, ...more) => empty.replaceChildren(make("p", {}, make("b", {}, title)), ...more);
  if (kind === "away") says("Kafka does not answer", make("p", { class: "soft" }, "The ranking appears as soon as it is back."));
  if (kind === "none") says("No score yet", make("p", { class: "soft" }, "Waiting for the topic ", make("code", {}, board.about.topics.scores), ". One event of your own: ", make("code", {}, "jd-intent-score send"), "."));
  if (kind === "filtered") says("No pair is like that", make("p", { class: "soft" }, "None that was scored in this time has all that the filters ask."), make("button", { type: "button", on: { click: clear } }, "Clear filters"));
  if (kind === "old") says("No score in this time", make("p", { class: "soft" }, "There are older ones."), make("button", { type: "button", on: { click: () => { $("within").value = "0"; board.within = 0; anew(); } } }, "Show scores of any time"));
}

function clear() {
  board.filters.clear();
  for (const child of $("filter-fields").children) { child.querySelector("select").value = ""; delete child.querySelector("select").dataset.said; }
  drawFilters();
  anew();
}

// ── a pair ───────────────────────────────────────────────────────────────────────────────────────────────────────────

const fact = (label, ...value) => make("div", {}, make("dt", {}, label), make("dd", {}, ...value));

function scoreTable(scores, withPair, caption) {
  const shown = scores.slice(0, 50);
  const hasTime = shown.some((score) => score.time !== null);
  const hasOutcome = shown.some((score) => score.outcome);
  const heads = [...(withPair ? [["", "pair"]] : []), ["number", "probability"], ["", "scored"], ...(hasTime ? [["", "event"]] : []), ...(hasOutcome ? [["outcome", outcomeName()]] : []), ["number", "model"]];
  return make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": caption },
    make("table", { class: "plain" }, make("caption", { class: "unseen" }, caption),
      make("thead", {}, make("tr", {}, ...heads.map(([kind, label]) => make("th", { scope: "col", class: kind }, label)))),
      make("tbody", {}, ...shown.map((score) => make("tr", {},
        ...(withPair ? [make("td", {}, make("button", { type: "button", class: "link", on: { click: () => go("pair", score.id) } }, named(score.id)))] : []),
        make("td", { class: "number" }, percent(score.p)), make("td", { class: "moment" }, moment(score.at)), ...(hasTime ? [make("td", { class: "moment" }, score.time === null ? "–" : moment(score.time))] : []), ...(hasOutcome ? [make("td", { class: "outcome" }, score.outcome ? became(score.outcome) : "–")] : []), make("td", { class: "number" }, score.version || "–"))))));
}

let opened = null, drawn = null; // the pair that is open, and which score of it is drawn
async function openPair(id) {
  opened = id;
  drawn = null;
  entitle($("pair-title"), named(id));
  const why = make("div", { id: "why" });
  const top = make("div", {}, make("p", { class: "soft" }, "Loading…"));
  $("pair-body").replaceChildren(make("div", { id: "newer", role: "status" }), top, make("h3", {}, "Why"), why);
  show("pair");
  const said = await drawPair(id, top);
  if (said === null) { why.previousElementSibling.remove(); why.remove(); return; }
  await askWhy(why, id);
}

function drawNewer(row) { // the drawer stays as it is: somebody reads it
  if (drawn === null || drawn === `${row.at} ${row.p}`) return;
  $("newer").replaceChildren(make("p", { class: "says" }, `Scored again: ${percent(row.p)}. `,
    make("button", { type: "button", class: "link", on: { click: () => openPair(row.id) } }, "Show it")));
}

async function askWhy(why, id) {
  why.replaceChildren(make("p", { class: "soft", role: "status" }, "Computing what moved the score…"));
  try {
    const explained = await asked("api/why", { key: id });
    if (opened === id) drawWhy(why, explained, () => askWhy(why, id));
  } catch (error) {
    why.replaceChildren(make("p", { class: "says warn" }, error instanceof Refused ? error.message : "The board does not answer."));
  }
}

async function drawPair(id, top) {
  let found;
  try {
    found = await asked("api/pair", { key: id });
  } catch (error) {
    top.replaceChildren(make("p", { class: "says warn" }, error instanceof Refused ? error.message : "The board does not answer."));
    return null;
  }
  if (opened !== id) return null;
  const { row, scores } = found;
  drawn = `${row.at} ${row.p}`;
  const links = partsOf(id).map((part, at) => make("button", { type: "button", class: "link", on: { click: () => go("of", JSON.stringify([board.about.pair[at], part])) } }, plain(part)));
  top.replaceChildren(make("p", { class: "big", id: "pair-p" }, percent(row.p)),
    make("p", { class: "soft" }, `${called(board.about.probability)}, scored ${moment(row.at)}`),
    make("dl", { class: "summary" }, ...board.about.pair.map((field, at) => fact(called(field), links[at])),
      ...(row.time === null ? [] : [fact("event", moment(row.time))]), ...(row.outcome ? [fact(outcomeName(), became(row.outcome))] : []), fact("model version", row.version || "–"), fact("scores seen", whole.format(row.count)),
      ...Object.entries(row.attributes).map(([label, value]) => fact(called(label), value || "–"))),
    ...(scores.length ? [make("h3", {}, "Its last scores"), lineChart(scores)] : []),
    make("details", {}, make("summary", {}, `${plural(Math.min(50, scores.length), "score")} as a table`), scoreTable(scores, false, "Scores of this pair")));
  return row;
}

function shownValue(value, kind) {
  if (value === null || value === undefined) return "NULL";
  if (kind === "time") return moment(value);
  if (kind === "truth") return value ? "yes" : "no";
  if (typeof value === "number") return number(value);
  return value === "" ? "(empty)" : String(value);
}

function usual(feature) {
  const is = feature.usual;
  if (!is) return "–";
  if (is.low !== null) return is.low === is.high ? number(is.low) : `${number(is.low)} to ${number(is.high)}`;
  return `${shownValue(is.value, feature.kind)} (${(is.share * 100).toFixed(0)}\u00a0%)`;
}

function inputName({ name, column, meaning }) { // what people call it, else what it is; its own name below
  const title = nameFor(name) ?? nameFor(column) ?? meaning;
  return [...wrapped(title), make("small", {}, ...wrapped(name), title === meaning ? "" : `: ${meaning}`)];
}

function drawWhy(why, told, again) {
  if (told.missing) {
    why.replaceChildren(make("p", { class: "says warn" }, `Not to be told: ${told.missing}.`),
      make("p", {}, make("button", { type: "button", class: "quiet again", on: { click: again } }, "Try again")));
    if (told.event) why.append(raw("The event as it came", told.place, told.event));
    return;
  }
  const parts = [told.same
    ? make("p", { class: "says good" }, `Computed again from the event, it is the probability that was published: ${percent(told.again)}.`)
    : make("p", { class: "says warn" }, `Computed again it is ${percent(told.again)}, published was ${percent(told.published)}: rows have come since that this request did not see. The features are those of now.`)];
  const most = Math.max(1e-9, ...told.features.map((feature) => Math.abs(feature.moved)));
  const of = told.features[0]?.usual?.of === "training" || !told.samples ? "in training" : `in 90 % of ${told.samples} recent requests`;
  parts.push(make("p", { class: "note" }, `Effect: the percentage points that an input adds, beside what the model says without it (with ${told.instead === "commonest" ? "the value that most requests have" : "no value"}). Usual: ${of}, or the commonest value with its share.`));
  const lines = told.features.map((feature) => {
    const effect = make("i", { class: feature.moved < 0 ? "down" : "up" });
    effect.style.width = `${(Math.abs(feature.moved) / most) * 50}%`;
    return make("tr", { role: "row" }, make("th", { scope: "row", role: "rowheader", class: "name" }, ...inputName(feature)), cell("value", "value", shownValue(feature.value, feature.kind)),
      cell("usual", "usual", usual(feature), feature.usual?.unusual ? make("span", { class: "unusual" }, " unusual") : ""),
      cell("effect", "", make("div", { class: "swing", "aria-hidden": "true" }, effect)), cell("number", "effect", points(feature.moved)));
  });
  const table = make("table", { role: "table", class: "plain", id: "features" }, make("caption", { class: "unseen" }, "Inputs of the model, those that moved the score most first"),
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...[["", "input"], ["", "value"], ["", "usual"], ["effect", make("span", { class: "unseen" }, "effect as a bar")], ["number", "effect, points"]]
      .map(([kind, label]) => make("th", { role: "columnheader", scope: "col", class: kind }, label)))),
    make("tbody", { role: "rowgroup" }, ...lines.slice(0, SHOWN_FEATURES)));
  parts.push(make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Inputs of the model" }, table));
  if (lines.length > SHOWN_FEATURES) {
    const all = make("button", { type: "button", class: "quiet", on: { click: () => { table.tBodies[0].append(...lines.slice(SHOWN_FEATURES)); all.remove(); } } }, `Show all ${lines.length} inputs`);
    parts.push(make("p", { class: "after" }, all));
  }
  parts.push(raw("The event as it came", told.place, told.event));
  why.replaceChildren(...parts);
}

function raw(title, place, content) {
  let shown = content;
  try { shown = JSON.stringify(JSON.parse(content), null, 1); } catch { /* as it is */ }
  return make("details", {}, make("summary", {}, title), make("p", { class: "note" }, place), make("pre", { tabindex: "0" }, shown));
}

// ── a user or an item, dead letters ──────────────────────────────────────────────────────────────────────────────────

async function openHistory([field, value]) {
  entitle($("history-title"), `${called(field)} ${plain(value)}`);
  $("history-body").replaceChildren(make("p", { class: "soft" }, "Loading…"));
  show("history");
  try {
    const { scores, pairs } = await asked("api/history", { field, value });
    if (!pairs.length) {
      $("history-body").replaceChildren(make("p", { class: "says" }, "None of its scores is kept."));
      return;
    }
    $("history-body").replaceChildren(
      make("p", { class: "soft" }, `${plural(scores.length, "score")} of ${plural(pairs.length, "pair")} ${scores.length + pairs.length === 2 ? "is" : "are"} kept; the best has ${percent(pairs[0].p)}.`),
      ...(scores.length ? [make("h3", {}, "History of scores"), lineChart(scores)] : []),
      make("h3", {}, "Its pairs, the best first"), scoreTable(pairs, true, "Pairs, the best first"),
      ...(scores.length ? [make("h3", {}, "Its scores, the newest first"), scoreTable(scores, true, "Scores, the newest first")] : []));
  } catch (error) {
    $("history-body").replaceChildren(make("p", { class: "says warn" }, error instanceof Refused ? error.message : "The board does not answer."));
  }
}

async function openLetters(reason = "") {
  if (!$("dead").open) { $("dead-body").replaceChildren(make("p", { class: "soft" }, "Loading…")); show("dead"); }
  try {
    const { counts, letters } = await asked("api/letters", { reason });
    const reasons = Object.entries(counts);
    const chip = (name, label, count) => make("button", { type: "button", class: "quiet", "aria-pressed": String(name === reason), on: { click: () => openLetters(name) } }, `${label} ${whole.format(count)}`);
    const all = reasons.reduce((sum, [, count]) => sum + count, 0);
    const count = reason ? counts[reason] ?? 0 : all;
    $("dead-body").replaceChildren(
      make("p", { class: "soft" }, reasons.length ? "Records that could not be scored, by reason. " : "No record was refused. ", "Topic ", make("code", {}, board.about.topics.dead_letters), "."),
      reasons.length ? make("div", { class: "chips", role: "group", "aria-label": "Reasons" }, chip("", "all", all), ...reasons.map(([name, count]) => chip(name, name.replaceAll("_", " "), count))) : "",
      letters.length < count ? make("p", { class: "note" }, `The newest ${whole.format(letters.length)} are shown.`) : "",
      ...letters.map((letter) => make("article", { class: "letter" }, make("p", {}, make("b", {}, letter.reason.replaceAll("_", " ")), ": ", letter.message || "no message"),
        make("p", { class: "note" }, `${moment(letter.at)} · from ${letter.origin} · ${plural(letter.size, "byte")}${letter.cut ? ", cut" : ""}`),
        make("details", {}, make("summary", {}, "Key and value"), make("pre", { tabindex: "0" }, `${letter.key}\n${letter.value}`), make("p", { class: "note" }, `letter ${letter.place}`)))));
  } catch (error) {
    $("dead-body").replaceChildren(make("p", { class: "says warn" }, error instanceof Refused ? error.message : "The board does not answer."));
  }
}

async function search(event) {
  event?.preventDefault();
  const query = $("query").value.trim(), found = $("found");
  found.hidden = !query;
  if (!query) return;
  found.replaceChildren(make("p", { class: "soft" }, "Looking…"));
  try {
    const matches = await asked("api/search", { q: query });
    if ($("query").value.trim() !== query) return;
    found.replaceChildren(make("p", { role: "status" }, matches.length ? `${plural(matches.length, "match", "matches")} of “${query}”${matches.length === 20 ? " are shown" : ""}` : `Nothing that is kept is called “${query}”.`),
      make("ul", {}, ...matches.map((match) => make("li", {}, make("button", { type: "button", class: "quiet", on: { click: () => go("of", JSON.stringify([match.field, match.value])) } },
        `${called(match.field)} ${plain(match.value)}`, make("small", {}, `${plural(match.pairs, "pair")}, best ${percent(match.best)}`))))));
  } catch (error) {
    found.replaceChildren(make("p", {}, error instanceof Refused ? error.message : "The board does not answer."));
  }
}

// ── dialogs and addresses ────────────────────────────────────────────────────────────────────────────────────────────

function show(id) {
  for (const other of document.querySelectorAll("dialog.drawer[open]")) if (other.id !== id) { other.dataset.silent = "1"; other.close(); }
  if (!$(id).open) $(id).showModal();
  $(id).scrollTop = 0;
}

function go(kind, value) {
  const hash = `#${kind}=${encodeURIComponent(value)}`;
  if (location.hash === hash) route(); else location.hash = hash;
}

function route() {
  const [, kind, value] = location.hash.match(/^#(pair|of|dead)(?:=(.+))?$/) ?? [];
  let said = "", parsed = null;
  try {
    said = decodeURIComponent(value ?? "null");
    parsed = JSON.parse(said);
    if (kind === "of") JSON.parse(parsed[1]);
  } catch { return; }
  if (kind === "pair" && Array.isArray(parsed)) openPair(said);
  else if (kind === "of" && parsed.length === 2) openHistory(parsed);
  else if (kind === "dead") openLetters();
  else for (const dialog of document.querySelectorAll("dialog.drawer[open]")) dialog.close();
}

function theme(name) {
  if (name === "system") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = name;
  localStorage.setItem("theme", name);
  text($("theme"), `Theme: ${name}`);
}

let holding = null, pointed = "";
function hold(event) { // each sign that somebody is at the rows holds their order a while longer
  if (event.pointerType && event.pointerType !== "mouse") return;
  if (event.type === "pointermove") {
    const at = `${event.screenX} ${event.screenY}`;
    if (at === pointed) return; // the rows moved, not the pointer
    pointed = at;
  }
  clearTimeout(holding);
  holding = setTimeout(release, HELD_MS);
  board.held = true;
  $("held").hidden = false;
}

function release() {
  if (!board.held) return;
  clearTimeout(holding);
  board.held = false;
  $("held").hidden = true;
  if (!board.paused) draw();
}

// ── start ────────────────────────────────────────────────────────────────────────────────────────────────────────────

function listen() {
  $("filters").open = !matchMedia("(max-width: 760px)").matches;
  $("theme").onclick = () => theme({ system: "light", light: "dark", dark: "system" }[localStorage.getItem("theme") ?? "system"]);
  $("pause").onclick = () => {
    board.paused = !board.paused;
    $("pause").setAttribute("aria-pressed", String(board.paused));
    status();
    if (!board.paused) draw();
  };
  $("within").onchange = () => { board.within = Number($("within").value); anew(); };
  $("clear").onclick = clear;
  $("more").onclick = () => { board.limit = LIMITS[LIMITS.indexOf(board.limit) + 1]; reading?.abort("anew"); };
  $("search").onsubmit = search;
  $("query").oninput = () => { clearTimeout(search.later); search.later = setTimeout(search, 250); };
  $("letters-open").onclick = () => { location.hash = "#dead"; };
  $("rows").onclick = (event) => {
    const tr = event.target.closest("tr[data-id]");
    if (tr) go("pair", tr.row.id);
  };
  $("rows").onpointermove = hold;
  $("rows").onpointerleave = (event) => { if (event.pointerType === "mouse" && !$("rows").contains(document.activeElement)) release(); };
  $("rows").onkeyup = hold; // of the Tab, too, that came here
  $("rows").addEventListener("focusout", (event) => { if (!$("rows").contains(event.relatedTarget) && !$("rows").matches(":hover")) release(); });
  for (const dialog of document.querySelectorAll("dialog.drawer")) {
    dialog.querySelector(".close").onclick = () => dialog.close();
    dialog.onclick = (event) => { if (event.target === dialog && event.clientX < dialog.getBoundingClientRect().left) dialog.close(); };
    dialog.onclose = () => {
      if (dialog.dataset.silent) { delete dialog.dataset.silent; return; }
      opened = null;
      if (location.hash) history.replaceState(null, "", location.pathname);
    };
  }
  addEventListener("hashchange", route);
  document.addEventListener("visibilitychange", watchedOrNot);
  setInterval(() => {
    for (const time of document.querySelectorAll("time[data-at]")) text(time, ago(Number(time.dataset.at)));
  }, 1000);
}

async function start() {
  theme(localStorage.getItem("theme") ?? "system");
  draw();
  for (let attempt = 0; !board.about; attempt += 1) {
    try {
      board.about = await json("api/about", { within: SILENT_MS });
    } catch {
      board.lost = true;
      status();
      await new Promise((resolve) => setTimeout(resolve, AGAIN_MS[Math.min(attempt, AGAIN_MS.length - 1)]));
    }
  }
  try { new Intl.DateTimeFormat("en", { timeZone: board.about.zone }); } catch { board.about.zone = "UTC"; } // one that browsers do not know
  text($("app"), board.about.app);
  document.title = `Board · ${board.about.app}`;
  const [user, item] = [board.about.users[0], board.about.items[0]];
  const wanted = item ? `${user ? called(user) : "user"} or ${called(item)}` : called(board.about.pair[0]);
  text($("query-label"), `Find ${wanted}`);
  drawHead();
  restore();
  listen();
  if ($("query").value) search(); // typed before anybody listened
  route();
  await follow();
}

start();

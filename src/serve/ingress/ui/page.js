// The operator's page: reads /status every two seconds and shows it. Everything it is told is written as text, never as markup.
"use strict";

const PERIOD_MS = 2000;
const ROWS_MAX = 200;
const WHY = {
  by_load: "load alone: its prompt was not looked up",
  cold: "load: nobody had it cached",
  prefix: "the longest prefix",
  load: "load: the longest prefix would have waited",
};

const $ = (id) => document.getElementById(id);

function node(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  fill(made, attributes, children);
  return made;
}

function shape(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  fill(made, attributes, children);
  return made;
}

function fill(made, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children.map((child) => (child instanceof Node ? child : String(child))));
}

const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(share < 0.0995 ? 1 : 0)} %`);
const count = (value) =>
  value >= 1e6 ? `${(value / 1e6).toFixed(1)} M` : value >= 1e4 ? `${(value / 1e3).toFixed(0)} k` : Math.round(value).toLocaleString("en");
const seconds = (value) =>
  value === null ? "–" : value < 0.9995 ? `${(value * 1000).toFixed(value < 0.00995 ? 1 : 0)} ms` : `${value.toFixed(value < 9.95 ? 2 : 1)} s`;
const span = (value) =>
  value < 90 ? `${Math.round(value)} s` : value < 5400 ? `${Math.round(value / 60)} min` : value < 172800 ? `${Math.round(value / 3600)} h` : `${Math.round(value / 86400)} d`;
const bytes = (value) => (value >= 2 ** 30 ? `${(value / 2 ** 30).toFixed(1)} GiB` : value >= 2 ** 20 ? `${(value / 2 ** 20).toFixed(0)} MiB` : `${Math.round(value / 1024)} KiB`);

function last(status, key) {
  const step = status.history.findLast((step) => step[key] !== null);
  return step === undefined ? null : step[key];
}

function showTiles(status) {
  const tiles = [
    [percent(status.verdict.chosen), "cached where it was sent, 5 min"],
    [percent(status.verdict.best), "cached anywhere"],
    [percent(status.verdict.delivered), "delivered, as answers say"],
    [seconds(last(status, "ttft_p50")), "first token, median"],
    [seconds(last(status, "ttft_p99")), "first token, 99th"],
    [last(status, "requests_per_second") === null ? "–" : last(status, "requests_per_second").toFixed(1), "requests a second"],
    [count(status.in_flight), "in flight"],
    [count(status.queue.requests.reduce((sum, waiting) => sum + waiting)), `wait, ${count(status.queue.held)} of them held; ${count(status.queue.shed)} shed so far`],
    [bytes(status.index_bytes), `index, ${count(status.index_blocks)} blocks`],
  ];
  $("tiles").replaceChildren(...tiles.map(([value, label]) => node("div", { class: "tile" }, node("b", {}, value), node("span", {}, label))));
}

// A chart of some keys of the history. What was pointed at stays shown while new steps come in.
function chart(id, lines, spell, top) {
  const pointed = { at: null };
  const draw = (status) => {
    const [width, height, left, bottom] = [Math.max($(id).clientWidth, 200), 190, 44, 20];
    const steps = status.history;
    const from = steps.length > 0 ? steps[0].at : 0;
    const to = steps.length > 0 ? Math.max(steps.at(-1).at, from + status.step_seconds * 12) : 1;
    const high = top ?? nice(Math.max(0.01, ...steps.flatMap((step) => lines.map(([key]) => step[key] ?? 0))));
    const x = (at) => left + ((at - from) / (to - from)) * (width - left - 6);
    const y = (value) => 6 + (1 - Math.min(value / high, 1)) * (height - bottom - 6);
    const drawn = shape("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": lines.map(([, label]) => label).join(", ") });
    for (const share of [0, 0.5, 1]) {
      drawn.append(shape("line", { class: "grid", x1: left, x2: width - 6, y1: y(share * high), y2: y(share * high) }));
      drawn.append(shape("text", { x: left - 6, y: y(share * high) + 4, "text-anchor": "end" }, spell(share * high)));
    }
    const clock = (at) => new Date(at * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
    if (steps.length > 1) {
      drawn.append(shape("text", { x: left, y: height - 2 }, clock(from)));
      drawn.append(shape("text", { x: width - 6, y: height - 2, "text-anchor": "end" }, clock(to)));
    }
    for (const [key] of lines) drawn.append(shape("path", { class: key, d: path(steps, key, x, y) }));
    const at = pointed.at === null ? steps.length - 1 : nearest(steps, from + ((pointed.at - left) / (width - left - 6)) * (to - from));
    const step = steps[at];
    if (step !== undefined && pointed.at !== null) {
      drawn.append(shape("line", { class: "cursor", x1: x(step.at), x2: x(step.at), y1: 6, y2: height - bottom }));
    }
    for (const [key] of lines) {
      if (step !== undefined && step[key] !== null) drawn.append(shape("circle", { class: key, cx: x(step.at), cy: y(step[key]), r: 3.5 }));
    }
    const legend = lines.map(([key, label]) =>
      node("span", {}, node("i", { class: key }), label, node("b", {}, step === undefined || step[key] === null ? "–" : spell(step[key]))));
    if (step !== undefined && pointed.at !== null) legend.push(node("span", {}, new Date(step.at * 1000).toLocaleTimeString()));
    $(id).replaceChildren(drawn, node("div", { class: "legend" }, ...legend));
  };
  $(id).addEventListener("pointermove", (event) => {
    pointed.at = event.clientX - $(id).getBoundingClientRect().left;
    if (latest !== null) draw(latest);
  });
  $(id).addEventListener("pointerleave", () => {
    pointed.at = null;
    if (latest !== null) draw(latest);
  });
  return draw;
}

// One line, broken where nothing was measured; a lone value is a dash as long as its step.
function path(steps, key, x, y) {
  let drawn = "";
  let pen = false;
  steps.forEach((step, at) => {
    const value = step[key];
    if (value === null) {
      pen = false;
      return;
    }
    drawn += `${pen ? "L" : "M"}${x(step.at).toFixed(1)} ${y(value).toFixed(1)}`;
    if (!pen && (steps[at + 1] === undefined || steps[at + 1][key] === null)) drawn += "h3";
    pen = true;
  });
  return drawn;
}

function nearest(steps, at) {
  let best = steps.length - 1;
  steps.forEach((step, index) => {
    if (Math.abs(step.at - at) < Math.abs(steps[best].at - at)) best = index;
  });
  return best;
}

// The next of 1, 2, 5, 10, … of its size.
function nice(value) {
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => value <= step * size) * size;
}

// Who is asked for instances, and how it went when the file was last read again.
function operation(status) {
  const items = (problems) => problems.map((problem) => node("li", {}, problem));
  $("found").hidden = status.sources.length === 0 && status.fleet_problems.length === 0;
  const found = status.sources.map((source) =>
    node("tr", { class: source.problem === null ? "" : "bad" }, cell(source.source), number(source.asked ? count(source.instances) : "–"),
      number(source.asked ? span(source.age_seconds) : "–"), cell(source.problem ?? "")));
  rows("sources", found, "No source is configured.");
  $("fleet-problems").replaceChildren(...items(status.fleet_problems));
  const reload = status.reload;
  $("reload-note").textContent = reload === null ? "" : `read again ${span(reload.age_seconds)} ago: ${reload.outcome}`;
  $("reload-problems").replaceChildren(...items(reload === null ? [] : reload.problems));
  // A file that is refused is not to be overlooked.
  if (reload !== null && reload.outcome === "refused") $("configuration").open = true;
}

function rows(table, made, none) {
  const body = $(table).tBodies[0];
  const columns = $(table).tHead.rows[0].cells.length;
  body.replaceChildren(...(made.length > 0 ? made : [node("tr", {}, node("td", { colspan: columns, class: "empty" }, none))]));
}

const cell = (text, kind = "") => node("td", { class: kind }, text);
const number = (text) => cell(text, "n");

function showFleet(status) {
  const most = Math.max(1, ...status.instances.map((instance) => instance.cached_blocks));
  const made = status.instances.slice(0, ROWS_MAX).map((instance) => {
    const bar = node("span", { class: "bar" }, node("i"));
    bar.firstChild.style.width = `${(instance.cached_blocks / most) * 100}%`;
    const silent = instance.knowledge !== "approximate" && instance.knowledge !== "blind" && !instance.kv_events_connected;
    return node("tr", { title: instance.url },
      cell(instance.name), cell(instance.model, "soft"),
      node("td", {}, node("span", { class: `state ${instance.availability}` }, instance.availability)),
      node("td", {}, node("span", { class: `state ${instance.knowledge}` }, instance.knowledge + (silent ? ", no events" : ""))),
      number(count(instance.prefill_requests)), number(count(instance.decode_requests)),
      number(seconds(instance.prefill_wait_seconds)), number(percent(instance.busy_share)),
      node("td", { class: "n" }, bar, count(instance.cached_blocks)), number(count(instance.assigned)));
  });
  rows("fleet", made, "There are no instances.");
  const ready = status.instances.filter((instance) => instance.availability === "ready").length;
  const more = status.instances.length > ROWS_MAX ? `; the first ${ROWS_MAX} are shown` : "";
  $("fleet-note").textContent = `${ready} of ${status.instances.length} ready${more}`;
}

function showDecisions(status) {
  const made = status.decisions.map((placed) => {
    const bar = node("span", { class: "bar" }, node("i"), node("b"));
    bar.children[0].style.width = `${(placed.best_overlap_tokens / placed.prompt_tokens) * 100}%`;
    bar.children[1].style.width = `${(placed.overlap_tokens / placed.prompt_tokens) * 100}%`;
    const known = placed.why !== "by_load";
    const cached = known ? `${count(placed.overlap_tokens)} of ${count(placed.best_overlap_tokens)}` : "not looked up";
    const waited = placed.waited_seconds === null ? "" : `, ${placed.was_held ? "held" : "queued"} ${seconds(placed.waited_seconds)}`;
    return node("tr", {},
      number(span(placed.age_seconds)), cell(placed.instance), number(known ? count(placed.prompt_tokens) : `~ ${count(placed.prompt_tokens)}`),
      node("td", {}, bar, cached), cell(`${WHY[placed.why] ?? placed.why}${waited}`), number(seconds(placed.expected_ttft_seconds)),
      number(seconds(placed.ttft_seconds)), cell(placed.ended ?? "in flight", "soft"));
  });
  rows("decisions", made, "Nothing was routed yet.");
}

function showSettings(status) {
  operation(status);
  $("settings").replaceChildren(...status.settings.flatMap(([path, value]) => [node("dt", {}, path), node("dd", {}, value)]));
}

const showHits = chart("hits", [["best", "cached anywhere"], ["chosen", "where it was sent"], ["delivered", "delivered"]], percent, 1);
const showTtft = chart("ttft", [["p50", "median"], ["p99", "99th percentile"]], seconds);

function show(status) {
  $("about").textContent = `${status.version} · ${status.policy} · up ${span(status.uptime_seconds)}${status.draining ? " · draining" : ""}`;
  $("verdict").className = status.verdict.suspect;
  $("says").textContent = status.verdict.says;
  showTiles(status);
  showHits(status);
  showTtft(status);
  showFleet(status);
  showDecisions(status);
  showSettings(status);
}

let latest = null;

async function read() {
  try {
    const answer = await fetch(`${location.origin}/status`, { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const status = await answer.json();
    for (const step of status.history) [step.p50, step.p99] = [step.ttft_p50, step.ttft_p99];
    latest = status;
    show(latest);
    $("link").textContent = "live";
    $("link").className = "";
  } catch (error) {
    $("link").textContent = `no answer: ${error.message}`;
    $("link").className = "lost";
  }
  setTimeout(read, document.hidden ? 5 * PERIOD_MS : PERIOD_MS);
}

addEventListener("resize", () => latest !== null && show(latest));
read();

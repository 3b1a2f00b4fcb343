"use strict";
// The page's address holds what is open: #trajectory=<n>&token=<k>. A click changes the address, the address draws the page.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const control = new Set(data.control);
const tip = $("tip");

function element(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== "") node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function address() {
  const values = new URLSearchParams(location.hash.slice(1));
  const number = (name) => (values.has(name) ? Number(values.get(name)) : -1);
  return { trajectory: number("trajectory"), token: number("token") };
}

// ---- tooltips -------------------------------------------------------------------------------------------------------
function showTip(event, text) {
  tip.textContent = text;
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  tip.style.left = Math.min(event.clientX + 14, innerWidth - width - 8) + "px";
  tip.style.top = Math.max(event.clientY - height - 10, 8) + "px";
}

document.addEventListener("mousemove", (event) => {
  const marked = event.target.closest("[data-tip]");
  if (marked) return showTip(event, marked.dataset.tip);
  const token = event.target.closest("[data-token]");
  if (token) return showTip(event, tokenTip(data.trajectories[drawn], Number(token.dataset.token)));
  const chart = event.target.closest("svg[data-lines]");
  document.querySelectorAll(".cursor").forEach((node) => node.remove());
  if (chart) return hoverChart(event, chart);
  tip.hidden = true;
});

function hoverChart(event, chart) {
  const box = chart.getBoundingClientRect();
  const x = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
  const lines = JSON.parse(chart.dataset.lines);
  const nearest = lines.map((line) => line.points.reduce((a, b) => (Math.abs(b[0] - x) < Math.abs(a[0] - x) ? b : a)));
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "path");
  cursor.setAttribute("class", "cursor");
  cursor.setAttribute("d", `M${nearest[0][0]} 10V${chart.viewBox.baseVal.height - 34}`);
  chart.append(cursor);
  showTip(event, [`at ${nearest[0][1]}`, ...lines.map((line, i) => `${line.name}: ${nearest[i][2]}`)].join("\n"));
}

// ---- trajectory list ------------------------------------------------------------------------------------------------
function outcome(t) {
  return t.reward === null ? "failed" : t.reward > 0.5 ? "high" : "low";
}

function drawList() {
  const stage = $("filter-stage").value, wanted = $("filter-outcome").value, task = $("filter-task").value;
  const open = address().trajectory;
  const items = data.trajectories.flatMap((t, n) => {
    if ((stage && t.stage !== stage) || (wanted && outcome(t) !== wanted) || !t.task_id.includes(task)) return [];
    const reward = t.reward === null ? "failed" : String(Number(t.reward.toFixed(3)));
    const link = element("a", { href: `#trajectory=${n}`, class: n === open ? "open" : "" },
      element("b", { class: outcome(t) }, reward), t.task_id,
      element("span", {}, `${t.stage} · attempt ${t.attempt} · ${t.tokens} tokens · ${t.failure ? t.failure.boundary : t.stop_reason}`));
    return [element("li", {}, link)];
  });
  $("list").replaceChildren(...(items.length ? items : [element("li", { class: "dim" }, "none")]));
}

// ---- one trajectory -------------------------------------------------------------------------------------------------
function flat(t) {
  return t.spans.flatMap((span, s) => span.ids.map((id, i) => ({ id, span, s, logprob: span.logprobs[i] })));
}

function use(span) {
  return span.source === "prompt" ? "prompt" : span.trained ? "trained" : "masked";
}

function tint(token, mode) {
  if (mode === "origin" || token.span.source === "prompt") return "";
  if (mode === "logprob") return `background:color-mix(in oklab, var(--c8) ${Math.round(60 * (1 - Math.exp(token.logprob)))}%, transparent)`;
  return `background:color-mix(in oklab, var(--c${((token.span.version % 8) + 8) % 8 + 1}) 32%, transparent)`;
}

function tokenNode(token, index, mode) {
  const piece = data.pieces[token.id];
  const kind = [use(token.span), control.has(token.id) ? "control" : ""].join(" ").trim();
  const style = tint(token, mode);
  return element("i", { "data-token": index, class: mode === "origin" || token.span.source === "prompt" ? kind : kind.replace(/trained|masked/, ""), style },
    piece.replaceAll("\n", "↵\n"));
}

function tokenTip(t, index) {
  const token = flat(t)[index];
  const sampled = token.span.source === "model" ? ` · logprob ${token.logprob} · version ${token.span.version}` : "";
  return `${JSON.stringify(data.pieces[token.id])} · id ${token.id}${sampled} · ${use(token.span)}`;
}

function spanHead(span) {
  if (span.source === "prompt") return `context, ${span.ids.length} tokens`;
  const fate = span.trained ? "trained" : `masked: ${span.mask_reason || "no reason given"}`;
  return `model, weight version ${span.version}, ${span.ids.length} tokens, ${fate}`;
}

function drawTrajectory(t) {
  const mode = $("colour").value;
  let index = 0;
  const spans = t.spans.map((span) => {
    const text = element("div", { class: "text" });
    span.ids.forEach((id, i) => text.append(tokenNode({ id, span, logprob: span.logprobs[i] }, index++, mode)));
    return element("div", { class: "span" }, element("small", {}, spanHead(span)), text);
  });
  const facts = [t.stage, `rollout ${t.rollout_id}`, `reward ${t.reward === null ? "none" : Number(t.reward.toFixed(3))}`,
    t.stop_reason, `${(t.finished - t.started).toFixed(2)} s`, t.forked_from >= 0 ? `forked from span ${t.forked_from}` : ""];
  const head = [element("h4", {}, t.task_id), element("div", { class: "facts dim" }, facts.filter(Boolean).join(" · "))];
  if (t.failure) head.push(element("p", { class: "reason" }, `failed at ${t.failure.boundary}: ${t.failure.reason}`));
  const legend = element("div", { class: "legend" }, ...legendItems(mode, t));
  const cut = t.tokens > index ? [element("p", {}, `the first ${index} of ${t.tokens} tokens`)] : [];
  $("pane").replaceChildren(...head, legend, ...spans, ...cut);
}

function legendItems(mode, t) {
  const item = (style, text) => element("span", {}, element("i", { style }), text);
  if (mode === "logprob") return [item("background:color-mix(in oklab, var(--c8) 60%, transparent)", "unlikely"), item("background:color-mix(in oklab, var(--c8) 6%, transparent)", "likely")];
  if (mode === "version") return [...new Set(t.spans.filter((s) => s.source === "model").map((s) => s.version))].map((v) => item(tint({ span: { source: "model", version: v } }, "version"), `version ${v}`));
  return [item("background:var(--trained)", "sampled and trained"), item("background:var(--masked)", "sampled, masked"), item("background:var(--grid)", "context (grey text)")];
}

function drawToken(t, index) {
  const token = flat(t)[index];
  $("pane").querySelectorAll(".picked").forEach((node) => node.classList.remove("picked"));
  if (!token) return $("token").replaceChildren(element("p", {}, "Click a token."));
  const node = $("pane").querySelector(`[data-token="${index}"]`);
  node.classList.add("picked");
  node.scrollIntoView({ block: "nearest" });
  const sampled = token.span.source === "model";
  const rows = [["token id", token.id], ["position", index], ["span", token.s], ["source", token.span.source]];
  if (sampled) rows.push(["logprob", token.logprob], ["probability", Math.exp(token.logprob).toPrecision(3)], ["version", token.span.version]);
  rows.push(["trained", token.span.trained ? "yes" : "no"]);
  if (!token.span.trained) rows.push(["why not", token.span.mask_reason || (sampled ? "no reason given" : "prompt")]);
  const list = element("dl", {}, element("div", { class: "piece" }, JSON.stringify(data.pieces[token.id]).slice(1, -1).replaceAll(" ", "␣")));
  for (const [name, value] of rows) list.append(element("dt", {}, name), element("dd", { "data-field": name }, String(value)));
  $("token").replaceChildren(list);
}

let drawn = -1;
function draw() {
  const { trajectory, token } = address();
  const t = data.trajectories[trajectory];
  if (!t) return;
  if (drawn !== trajectory) drawTrajectory(t);
  drawn = trajectory;
  document.querySelectorAll("#list a").forEach((a) => a.classList.toggle("open", a.hash === `#trajectory=${trajectory}`));
  drawToken(t, token);
}

function moveToken(event) {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const { trajectory, token } = address();
  const t = data.trajectories[trajectory];
  if (!step || !t || token < 0 || event.target.closest("input, select")) return;
  const last = flat(t).length - 1;
  location.hash = `trajectory=${trajectory}&token=${Math.min(last, Math.max(0, token + step))}`;
  event.preventDefault();
}

if ($("browser")) {
  [...new Set(data.trajectories.map((t) => t.stage))].forEach((s) => $("filter-stage").append(element("option", { value: s }, s)));
  for (const id of ["filter-stage", "filter-outcome", "filter-task"]) $(id).addEventListener("input", drawList);
  $("colour").addEventListener("input", () => { drawn = -1; draw(); });
  $("pane").addEventListener("click", (event) => {
    const node = event.target.closest("[data-token]");
    if (node) location.hash = `trajectory=${address().trajectory}&token=${node.dataset.token}`;
  });
  addEventListener("hashchange", draw);
  addEventListener("keydown", moveToken);
  drawList();
  draw();
  if (address().trajectory >= 0) $("trajectories").scrollIntoView();
}

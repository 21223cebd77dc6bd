/* The page: what can be asked, the chat so far, and the stream of a search. */
import {Models} from "/page/models.js";
import {make} from "/page/text.js";
import {Turn} from "/page/turn.js";

const $ = id => document.getElementById(id);
const EXAMPLES = {
  Pencils: "Tom has 12 boxes with 8 pencils each. He gives away 20 pencils. How many pencils are left?",
  Bakery: "A baker makes 24 rolls an hour for 5 hours and sells all but 13 of them. How many rolls does she sell?",
  Savings: "Anna saves 15 dollars a week. After 8 weeks she spends half of it. How many dollars does she have left?",
};
const FORMATS = {auto: "as it suits", text: "in words", program: "as a program"};
const KINDS = {math: "a number or formula", choice: "a letter", "yes-no": "yes or no", text: "a short text"};
const BYTES_PER_TOKEN = 3;  // words take about four bytes a token, digits one
const models = new Models(call, begin);
let model = null, running = null, turns = [];

async function call(path, options = {}) {
  const secret = sessionStorage.getItem("edge-reason-token");
  const headers = {"Content-Type": "application/json", ...(secret ? {Authorization: `Bearer ${secret}`} : {})};
  const response = await fetch(path, {...options, headers});
  if (response.ok) return response;
  if (response.status === 401) $("token").hidden = false;
  const body = await response.json().catch(() => ({}));
  throw new Error(body.error?.message ?? `the server said ${response.status}`);
}

async function begin() {
  try {
    model = (await (await call("/v1/models")).json()).data[0];
  } catch (error) {
    if ($("token").hidden) complain(error.message);
    return;
  }
  const {strategies, generations, deadline_s, chats, formats, kinds} = model.edge;
  $("strategy").replaceChildren(...strategies.map(name => make("option", name)));
  const sizes = [...new Set([1, 4, 8, 16, 32, 64, generations])].sort((a, b) => a - b);
  $("generations").replaceChildren(...options(sizes, String, generations));
  $("deadline").max = $("deadline").value = deadline_s;
  $("format").replaceChildren(...options(formats, name => FORMATS[name] ?? name, "auto"));
  $("answers").replaceChildren(...options(["", ...kinds], name => KINDS[name] ?? (name || "as the question shows"), ""));
  $("chat").hidden = $("reasoning").hidden = !chats;
  $("only").hidden = chats;
  $("only").textContent = `${model.id} writes equations only. It reads neither a system prompt nor earlier questions.`;
  about();
  models.look();
}

function options(values, name, selected) {
  return values.map(value => {
    const option = make("option", name(value));
    option.value = value;
    option.selected = value === selected;
    return option;
  });
}

/* The model, the memory plan and the limits. */
function about() {
  const {title, version, plan, context, max_tokens, deadline_s, generations} = model.edge;
  $("model").textContent = `${title} · ${plan.memory_mb} of ${plan.memory_cap_mb} MB · ${deadline_s} s`;
  const rows = {
    Model: `${model.id} ${version}`,
    "Memory plan": `${plan.memory_mb} of ${plan.memory_cap_mb} MB`,
    "At once": `${plan.parallel} samples, ${context} tokens of context each`,
    "Longest sample": `${max_tokens} tokens`,
    Limits: `${generations} samples take about ${plan.seconds} s; at most ${deadline_s} s for an answer`,
    ...(plan.notes.length ? {Notes: plan.notes.join("; ")} : {}),
  };
  $("limits").replaceChildren(...Object.entries(rows).flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
  $("about").hidden = false;
}

function complain(message) {
  $("problem").hidden = !message;
  $("problem").textContent = message ?? "";
}

/* --- a search ------------------------------------------------------------------------- */

async function* chunks(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: {")) yield JSON.parse(part.slice(6));
    }
  }
}

/* System prompt, the latest turns that have an answer and fit, and the question. */
function conversation(question) {
  const system = model.edge.chats ? $("system").value.trim() : "", said = [];
  const earlier = model.edge.chats ? turns.filter(turn => turn.content) : [];
  let room = BYTES_PER_TOKEN * model.edge.context / 2 - system.length - question.length, left_out = earlier.length;
  for (const {asked, content} of earlier.toReversed()) {
    room -= asked.question.length + content.length;
    if (room < 0) break;
    said.unshift({role: "user", content: asked.question}, {role: "assistant", content});
    left_out -= 1;
  }
  const messages = [...(system ? [{role: "system", content: system}] : []), ...said, {role: "user", content: question}];
  return {messages, left_out};
}

async function solve(question) {
  const deadline_s = Number($("deadline").value), generations = Number($("generations").value);
  const edge = {strategy: $("strategy").value, generations, deadline_s, events: true};
  if (model.edge.chats) Object.assign(edge, {format: $("format").value, kind: $("answers").value || null, explain: $("explain").checked});
  const {messages, left_out} = conversation(question);
  const turn = running = new Turn({question, title: model.edge.title, messages, left_out, deadline_s, generations, edge}, call);
  $("turns").append(turn.element);
  $("intro").hidden = true;
  show();
  turn.element.scrollIntoView({block: "start"});
  turn.$("stop").focus({preventScroll: true});
  let problem = null;
  try {
    const body = JSON.stringify({model: model.id, messages, stream: true, edge});
    const response = await call("/v1/chat/completions", {method: "POST", body, signal: turn.control.signal});
    let content = "";
    for await (const chunk of chunks(response)) {
      if (chunk.error) throw new Error(chunk.error.message);
      content += chunk.choices[0]?.delta.content ?? "";
      if (chunk.edge?.event) turn.take(chunk.edge.event);
      else if (chunk.edge) turn.end(chunk.edge, content);
    }
    if (!turn.result) throw new Error("the connection to the server was lost");
  } catch (error) {
    if (!turn.control.signal.aborted) problem = error.message;
  }
  const focused = turn.element.contains(document.activeElement);
  turn.close(problem);
  running = null;
  if (problem && !turn.events.length) turn.element.remove();
  else if (turn.element.isConnected) turns.push(turn);  // not after a new chat
  if (!problem) $("question").value = "";
  complain(problem);
  show();
  if (focused) (turn.$("copy").hidden ? $("question") : turn.$("copy")).focus({preventScroll: true});
}

function show() {
  $("go").textContent = running ? "Stop" : "Solve";
  $("go").classList.toggle("stop", Boolean(running));
  $("go").formNoValidate = Boolean(running);
  $("new").hidden = !turns.length && !running;
  $("intro").hidden = Boolean(turns.length || running);
  $("asking").textContent = turns.length && model?.edge.chats ? "Follow-up" : "Question";
}

$("ask").addEventListener("submit", event => {
  event.preventDefault();
  if (running) return running.control.abort();
  if (!model) return;
  const question = $("question").value.trim();
  if (!question) {
    complain("Write a question first, for example: What is 15% of 80?");
    return $("question").focus();
  }
  complain(null);
  solve(question);
});
$("question").addEventListener("keydown", event => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();  // else the button that gets the focus is pressed
  $("ask").requestSubmit();
});
document.addEventListener("keydown", event => {
  if (event.key === "Escape" && running) running.control.abort();
});
$("new").addEventListener("click", () => {
  running?.control.abort();
  turns = [];
  $("turns").replaceChildren();
  complain(null);
  show();
  $("question").value = "";
  $("question").focus();
});
$("token").addEventListener("submit", event => {
  event.preventDefault();
  sessionStorage.setItem("edge-reason-token", $("secret").value);
  $("token").hidden = true;
  complain(null);
  begin();
});
$("question").value = EXAMPLES.Pencils;
$("examples").append("Try", ...Object.entries(EXAMPLES).map(([name, text]) => {
  const button = make("button", name);
  button.type = "button";
  button.addEventListener("click", () => { $("question").value = text; $("question").focus(); });
  return button;
}));
begin();

/* The search as a tree that grows: samples below the answer they gave, or, where steps are tried one by one, the steps. */
import {answerOf, bar, cut, make, paragraph, plain} from "/page/text.js";

const BY_STEPS = ["beam", "lookahead", "dvts", "particles"];
const WRITING = "still writing", FAILED = "no answer: failed on the way", NOTHING = "ended without an answer";

/* What a step shows: "name = expression" and the value that running it gave. */
export function line(text, values) {
  const row = make("div", undefined, "line"), said = (values ?? []).map(each => each.value).join(", ");
  const code = said ? text.replace(/\s+# .*$/, "") : text;
  row.append(make("code", cut(code)));
  if (said && !code.endsWith(`= ${said}`)) row.append(make("span", cut(said, 80), "value"));
  return row;
}

/* A sample in one line: what it writes now, or what it has written. */
function shown({finished, text, steps}) {
  const said = finished ? steps.filter(step => !step.startsWith("####")).map(plain).join(" · ") : "";
  return said || plain(text || steps.at(-1) || "…");
}

export class Tree {
  constructor(list, legend) {
    Object.assign(this, {list, legend, samples: new Map(), attempts: new Map(), groups: new Map(), steps: null});
  }

  /* Candidates are numbered from 0 again by these, and by a search that revises. */
  begin(kind) {
    if (!BY_STEPS.includes(kind) && kind !== "revise") return;
    this.list.replaceChildren();
    for (const map of [this.samples, this.attempts, this.groups]) map.clear();
    this.steps = BY_STEPS.includes(kind) ? new Steps(this.list) : null;
    this.legend.textContent = this.steps ? "Steps that were tried; equal ones are counted together." : "";
  }

  get finished() { return this.steps ? this.steps.finished : [...this.samples.values()].filter(each => each.finished).length; }

  get answered() { return [...this.samples.values()].filter(each => each.answer !== null); }

  add(event) {
    if (this.steps) return this.steps.add(event);
    const before = this.samples.get(`${event.candidate}.${this.attempts.get(event.candidate)}`);
    if (!before || before.finished) this.attempts.set(event.candidate, (this.attempts.get(event.candidate) ?? 0) + 1);
    const key = `${event.candidate}.${this.attempts.get(event.candidate)}`;
    if (!this.samples.has(key)) this.samples.set(key, this.sample(event.candidate, this.attempts.get(event.candidate)));
    const sample = this.samples.get(key);
    sample.values.push(event.values ?? []);
    Object.assign(sample, {steps: event.steps, finished: event.finished, error: event.error ?? "", doubts: event.doubts ?? []});
    sample.answer = event.finished ? event.answer ?? null : null;
    sample.now.textContent = cut(sample.error || shown(event), 200);
    if (sample.element.open) this.fill(sample);
    this.place(sample, !event.finished ? WRITING : sample.answer ?? (sample.error ? FAILED : NOTHING));
  }

  sample(candidate, attempt) {
    const element = make("details", undefined, "sample"), head = make("summary"), now = make("span", "", "now");
    const name = `#${candidate + 1}${attempt > 1 ? `, attempt ${attempt}` : ""}`, score = make("span", "", "score");
    const item = make("li"), body = make("div", undefined, "body");
    head.append(make("span", name, "number"), now, score);
    element.append(head, body);
    item.append(element);
    const made = {item, element, now, score, body, candidate, steps: [], values: [], finished: false, answer: null};
    element.addEventListener("toggle", () => element.open && this.fill(made));
    return made;
  }

  fill({body, steps, values, error, doubts}) {
    const coded = values.some(each => each.length) || error;
    body.replaceChildren(...steps.map((step, i) => coded ? line(step, values[i]) : paragraph(step)));
    if (error) body.append(make("p", error, "error"));
    if (doubts.length) body.append(make("p", `does not hold: ${doubts.join("; ")}`, "error"));
  }

  place(sample, name) {
    const group = this.group(name);
    if (sample.item.parentNode === group.list) return;
    const old = sample.group;
    group.list.append(sample.item);
    sample.group = name;
    if (old !== name) this.count();
  }

  group(name) {
    if (!this.groups.has(name)) {
      const item = make("li"), head = make("p", undefined, "group"), list = make("ul"), count = make("span", "", "number");
      const special = [WRITING, FAILED, NOTHING].includes(name), track = bar(0);
      const title = make(special ? "em" : "b");
      title.append(special ? name : answerOf(cut(name, 120)));
      head.append(title, track, count);
      item.append(head, list);
      if (special && name !== WRITING) item.className = "failed";
      this.list.append(item);
      this.groups.set(name, {item, list, count, track, name: title});
      if (this.groups.has(WRITING)) this.list.append(this.groups.get(WRITING).item);  // stays last
    }
    return this.groups.get(name);
  }

  count() {
    for (const {item, list, count, track} of this.groups.values()) {
      const size = list.children.length;
      count.textContent = size;
      track.firstChild.style.width = `${100 * size / Math.max(1, this.samples.size)}%`;
      item.hidden = !size;
    }
  }

  score({candidate, score}) {
    if (this.steps) return this.steps.score(candidate, score);
    const sample = this.samples.get(`${candidate}.${this.attempts.get(candidate)}`);
    if (sample) sample.score.textContent = score.toFixed(2);
    this.legend.textContent = "Numbers at the right are the verifier's scores, 0 to 1.";
  }

  /* Mark the answer and one sample that gave it, and give the steps of that one; null where there is none. */
  end(answer, content) {
    if (this.groups.has(WRITING)) this.groups.get(WRITING).name.textContent = "cut before its answer";
    const [first, ...rest] = [...this.groups].filter(([name]) => ![WRITING, FAILED, NOTHING].includes(name))
      .sort(([a, {list: one}], [b, {list: other}]) => (b === answer) - (a === answer) || other.children.length - one.children.length);
    for (const [, {item}] of [...rest].reverse().concat(first ? [first] : [])) this.list.prepend(item);
    if (answer === null) return null;
    this.groups.get(answer)?.item.classList.add("chosen");
    if (this.steps) return this.steps.end(content);
    const mine = this.answered.filter(each => each.answer === answer);
    const chosen = mine.find(each => content.includes(each.steps.join("\n\n")) || content.includes(each.steps.join("\n")));
    chosen?.element.classList.add("chosen");
    return chosen ?? null;
  }
}

/* Steps by what comes before them. */
class Steps {
  constructor(list) {
    Object.assign(this, {root: {list, below: new Map()}, last: new Map(), finished: 0});
  }

  add({candidate, steps, values, finished}) {
    let node = this.root;
    for (const [depth, text] of steps.entries()) {
      if (!node.below.has(text)) node.below.set(text, this.node(node, text, depth === steps.length - 1 ? values : []));
      node = node.below.get(text);
    }
    if (node === this.root) return;
    node.count += 1;
    node.times.textContent = `×${node.count}`;
    if (finished) {
      this.finished += 1;
      node.item.classList.add("leaf");
    }
    this.last.set(candidate, node);
  }

  node(parent, text, values) {
    const item = make("li"), row = make("div", undefined, "step"), list = make("ul");
    const times = make("span", "", "number"), score = make("span", "", "score");
    row.append(line(/^####/.test(text) ? `→ ${plain(text)}` : text, values), times, score);
    item.append(row, list);
    if (parent.list.children.length === 1) parent.list.firstChild.classList.remove("only");
    item.classList.toggle("only", !parent.list.children.length && parent !== this.root);
    parent.list.append(item);
    return {item, list, times, score, best: 0, count: 0, below: new Map()};
  }

  score(candidate, score) {
    const node = this.last.get(candidate);
    if (!node) return;
    node.best = Math.max(node.best, score);
    node.score.textContent = node.best.toFixed(2);
  }

  end(content) {
    let node = this.root;
    for (const text of content.split("\n")) {
      node = node.below.get(text);
      if (!node) break;
      node.item.classList.add("chosen");
    }
    return null;
  }
}

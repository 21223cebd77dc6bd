/* One question and its search: what is shown while it runs, and what is left of it. */
import {answerOf, cut, make, paragraph, typeset} from "/page/text.js";
import {line, Tree} from "/page/tree.js";

export class Turn {
  /* `asked` has question, title of the model, messages, edge, deadline_s and generations; `call` sends requests. */
  constructor(asked, call) {
    const element = document.getElementById("turn").content.cloneNode(true).firstElementChild;
    Object.assign(this, {asked, call, element, events: [], best: null, result: null, content: "", tried: 0});
    this.control = new AbortController();
    this.began = performance.now();
    this.$ = name => element.querySelector(`.${name}`);
    this.tree = new Tree(this.$("tree"), this.$("legend"));
    this.$("question").append(paragraph(asked.question, "span"));
    this.state("Searching", "none", "no answer yet");
    if (asked.left_out) this.$("reasons").append(make("li", `earlier questions that did not fit: ${asked.left_out}`));
    this.$("stop").addEventListener("click", () => this.control.abort());
    this.$("copy").addEventListener("click", () => this.copy());
    this.$("save").addEventListener("click", () => this.save());
    this.clock = setInterval(() => this.tick(), 100);
    this.tick();
  }

  state(name, level, answer) {
    this.$("state").textContent = name;
    this.$("answer").className = `card answer ${level}`;
    this.$("best").replaceChildren(answerOf(answer));
  }

  tick() {
    const seconds = (performance.now() - this.began) / 1000, {deadline_s, generations} = this.asked;
    const {finished} = this.tree, [time, count] = this.element.querySelectorAll(".meter i");
    this.$("time").textContent = `${seconds.toFixed(1)} of ${deadline_s} s`;
    this.$("count").textContent = `${finished} of ${generations} finished`;
    time.style.width = `${Math.min(100, 100 * seconds / deadline_s)}%`;
    count.style.width = `${Math.min(100, 100 * finished / generations)}%`;
  }

  take(event) {
    this.events.push({seconds: (performance.now() - this.began) / 1000, ...event});
    if (event.type === "step") this.tree.add(event);
    else if (event.type === "score") this.tree.score(event);
    else if (event.type === "best") this.takeBest(event);
    else if (event.type === "difficulty") this.fact("Difficulty", `${event.bin + 1} of 5`);
    else if (event.type === "explained") this.$("why").append(event.text);
    else if (event.reason) this.takeReason(event);
  }

  takeBest(event) {
    this.best = event;
    this.state("Best so far", event.level ?? "guess", event.answer);
    this.$("certainty").textContent = event.words ?? "";
  }

  takeReason({type, strategy, reason}) {
    if (type === "strategy") {
      this.tree.begin(strategy.split(":")[0]);
      this.fact("Strategy", strategy);
    }
    if (reason !== "asked for") this.$("reasons").append(make("li", reason));
  }

  fact(name, value) {
    const facts = this.$("facts"), old = [...facts.querySelectorAll("dt")].find(each => each.textContent === name);
    if (old) old.nextSibling.textContent = value;
    else facts.append(make("dt", name), make("dd", value));
  }

  end(result, content) {
    Object.assign(this, {result, content});
    const {answer, usage} = result, chosen = this.tree.end(answer, content);
    if (result.finished) {
      this.state("Answer", result.level, answer ?? "finished without an answer");
      this.$("certainty").textContent = answer === null ? "" : result.words;
      this.$("support").textContent = answer === null ? "" : this.agreement();
      this.solution(chosen, content);
    } else {
      this.state("No answer", "none", `no sample reached an answer: ${result.stopped}`);
      this.attempt(result.partial ?? []);
    }
    this.fact("Stopped", result.stopped);
    this.fact("Format", {text: "words", program: "a program that is run", equations: "equations"}[result.format] ?? "–");
    this.fact("Tokens", (usage.policy_tokens + usage.verifier_tokens).toLocaleString("en"));
    this.fact("Compute", `${((usage.policy_flops + usage.verifier_flops) / 1e9).toFixed(1)} GFLOP`);
    this.fact("Peak memory of the process", `${Math.round(usage.peak_memory_mb)} MB`);
    if (result.explanation) this.$("why").replaceChildren(paragraph(result.explanation.trim(), "span"));
    if (result.escalated) this.$("reasons").append(make("li", result.escalated));
    for (const note of result.notes ?? []) this.$("reasons").append(make("li", note));
    this.$("copy").hidden = !result.finished || answer === null;
  }

  /* "9 of 16 samples agree", where the counts are what the share says. */
  agreement() {
    const {answer, support, votes, escalation} = this.result, voters = this.tree.answered.length, all = this.tree.finished;
    if (escalation?.kept) return `answered by ${escalation.model}, a larger model (${escalation.where})`;
    const share = (votes ?? []).find(([name]) => name === answer)?.[1] ?? support, agree = Math.round(share * voters);
    if (this.tree.steps || !voters || Math.abs(share * voters - agree) > 0.02 * voters) {
      return `${Math.round(100 * support)}% of the vote`;
    }
    const who = voters === all ? "samples" : "samples with an answer";
    const silent = voters === all ? "" : `; ${all - voters} ended without one`;
    if (voters === 1) return all === 1 ? "one sample, so there was no vote" : `only one sample reached an answer${silent}`;
    return `${agree} of ${voters} ${who} agree${agree === 1 ? "s" : ""}${silent}`;
  }

  solution(chosen, content) {
    const coded = this.result.format !== "text", text = content.replace(/^```python\n|\n```\n\nThe answer is .*$/gs, "");
    const steps = (chosen?.steps ?? text.split(coded ? "\n" : "\n\n")).filter(step => !step.startsWith("####"));
    const values = chosen?.values ?? this.result.values ?? [];
    this.show(steps.map((step, i) => [step, coded ? line(step, values[i]) : paragraph(step)]), this.result.scores ?? []);
  }

  attempt(steps) {
    if (!steps.length) return;
    this.$("which").textContent = "The longest attempt, which was cut";
    this.show(steps.map(step => [step, paragraph(step)]), []);
  }

  show(steps, scores) {
    this.$("steps").replaceChildren(...steps.map(([, shown], i) => {
      const item = make("li");
      item.append(shown);
      if (i in scores) item.append(make("span", scores[i].toFixed(2), "score"));
      return item;
    }));
    this.$("solution").hidden = !steps.length;
  }

  /* Called when nothing more comes, whether or not there is a result. */
  close(problem) {
    clearInterval(this.clock);
    this.tick();
    this.$("stop").hidden = true;
    this.$("save").hidden = !this.events.length;
    if (!this.result) this.stopped(problem ? "Failed" : "Stopped");
    typeset(this.element, this.call);
    // A sample is filled when it is opened; its formulas come after that.
    this.element.addEventListener("toggle", () => setTimeout(() => typeset(this.element, this.call)), true);
  }

  stopped(name) {
    const {finished, answered} = this.tree, {generations} = this.asked;
    this.tree.end(this.best?.answer ?? null, "");
    if (this.best) {
      this.state(`${name}, best so far`, this.best.level ?? "guess", this.best.answer);
      this.$("support").textContent = `${finished} of ${generations} samples had finished`;
      this.$("copy").hidden = false;
      return;
    }
    const why = !finished ? "no sample had finished" : answered.length ? "no answer was chosen yet"
      : `${finished} of ${generations} samples had finished, none of them with an answer`;
    this.state(name, "none", `no answer: ${why}`);
  }

  get answer() { return this.result ? this.result.answer : this.best?.answer ?? null; }

  async copy() {
    try {
      await navigator.clipboard.writeText(this.answer);
      this.$("said").textContent = "copied";
    } catch {
      this.$("said").textContent = "the browser did not allow copying; select the answer instead";
    }
  }

  /* The search as one HTML file, which the server makes as `edge-reason why --html` does. */
  async save() {
    const {events, result} = this, {question, title, messages, edge} = this.asked;
    const body = JSON.stringify({question, earlier: messages.slice(0, -1), model: title, edge, events, result});
    const link = make("a");
    try {
      link.href = URL.createObjectURL(await (await this.call("/page/search", {method: "POST", body})).blob());
    } catch (error) {
      this.$("said").textContent = `not saved: ${error.message}`;
      return;
    }
    link.download = `search-${new Date().toISOString().slice(0, 19).replace(/:/g, "-")}.html`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    this.$("said").textContent = `saved as ${cut(link.download, 60)}`;
  }
}

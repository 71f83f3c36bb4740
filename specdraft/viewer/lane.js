// One decoded prompt: its text, and the tree of the step that it is in.
const PHASES = ["draft", "verify", "accept", "bonus"];
const MARKS = { root: "", proposed: "", accepted: "\u2713 ", rejected: "\u2717 ", unused: "" };
const STATES = { root: "root (the last committed token)", proposed: "proposed", accepted: "accepted", rejected: "rejected", unused: "not tried" };
const FIRST_DRAFT = "\u2605", FIRST_TARGET = "\u25ce";

// in running text line ends and letters stay what they are; anything else that cannot be seen is spelled out
const running = (word) => (/^(?:[^\p{C}]|\n|\t)*$/u.test(word.text) ? word.text : word.shown);
const short = (value) => (value === null ? "?" : value >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(0));
const long = (value) => (value === null ? "unknown" : value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(3) : value.toFixed(5));

// A sentence whose quoted tokens are in monospace.
function sentence(element, text) {
  element.replaceChildren(...text.split(/(\u201c[^\u201d]*\u201d)/u).map((part, place) => (place % 2 ? html("code", "", part) : part)));
}

class Lane {
  constructor(data, root, tip) {
    this.data = data;
    this.root = root;
    this.drawing = new Drawing(root.querySelector(".tree"), tip);
    this.now = -1;
    if (data.steps.every((step) => step.nodes.length <= MOST_OUTLINED)) this.drawing.deepest = Math.max(0, ...data.steps.map((step) => step.depth));
    let start = 0;
    this.starts = data.steps.map((step) => { const here = start; start += step.accepted.length + (step.bonus === null ? 0 : 1); return here; });
  }

  part(name) { return this.root.querySelector(`.${name}`); }

  shown(id) { return id === null ? "?" : this.data.words[id].shown; }

  // The text, token by token; `go(position)` is called with where a step starts.
  write(go) {
    const text = this.part("text");
    text.append(html("bdi", "", running(this.data.words[this.data.first])));
    this.data.steps.forEach((step, index) => {
      const tokens = step.accepted.map((node) => [step.nodes[node].token, "accepted"]);
      if (step.bonus !== null) tokens.push([step.bonus, "bonus"]);
      for (const [token, kind] of tokens) {
        const word = html("span", `${kind} word`);
        word.dataset.step = String(index);
        word.title = `step ${index + 1}: ${kind}`;
        word.append(html("bdi", "", running(this.data.words[token]).replaceAll("\n", "\u21b5\n")));
        word.addEventListener("click", () => go(this.starts[index]));
        text.append(word);
      }
    });
  }

  // The step at a position of the text; in a phase where it starts there, and finished where it started before.
  show(position, phase) {
    const index = this.starts.findLastIndex((start) => start <= position);
    if (index < 0) return;
    const step = this.data.steps[index], changed = index !== this.now;
    this.now = index;
    this.phase = this.starts[index] === position ? phase : PHASES.length - 1;
    this.part("where").textContent = `step ${index + 1} of ${this.data.steps.length}: ${step.accepted.length} of ${step.depth} levels accepted`;
    const counted = this.phase === PHASES.length - 1 ? step : this.data.steps[index - 1];
    this.part("count").textContent = counted ? `${counted.per_pass.toFixed(2)} tokens per pass so far` : "";
    this.tell(step);
    this.draw(step, changed);
    this.table(step);
    this.mark(index);
  }

  // The phases so far; what a screen reader says is the latest of them.
  tell(step) {
    const lines = PHASES.map((name, place) => {
      const line = html("li", place > this.phase ? "later" : place === this.phase ? "here" : "");
      const said = html("span");
      sentence(said, step.phases[name]);
      line.append(html("b", "", name), said);
      return line;
    });
    this.part("story").replaceChildren(...lines);
    this.part("why").textContent = `${PHASES[this.phase]}: ${step.phases[PHASES[this.phase]]}`;
  }

  draw(step, changed) {
    const before = this.drawing.extent && { ...this.drawing.extent }, last = step.accepted.at(-1) ?? 0;
    const nodes = step.nodes.map((node) => (this.phase >= 2 || node.parent < 0 ? node : { ...node, state: "proposed" }));
    this.drawing.draw(nodes, step.best, this.painter(step, last), (node, index) => this.facts(step, node, index === last), last);
    if (!before || (changed && (before.w !== this.drawing.extent.w || before.h !== this.drawing.extent.h || !this.drawing.sees(this.drawing.focus)))) {
      this.drawing.fit();
    }
  }

  facts(step, node, last) {
    const rows = [
      ["token id", node.token === null ? "unknown" : String(node.token)],
      ["text", this.shown(node.token)],
      ["rank path", node.path.length ? node.path.join("/") : "root"],
      ["state", STATES[node.state]],
    ];
    if (node.parent >= 0) {
      rows.push(["draft probability", long(node.draft_prob)], ["log-probability", long(node.log_prob)],
        ["cumulative log-probability", long(node.cumulative_log_prob)]);
      if (this.phase >= 1) {
        rows.push(["target probability", long(node.target_prob)]);
        if (node.target_first !== null) rows.push(["target's first choice", node.target_first ? "yes" : "no"]);
      }
      if (this.phase >= 2 && node.accept_prob !== null) rows.push(["kept with probability", long(node.accept_prob)]);
      if (node.recorded) rows.push(["source", "recorded"]);
    }
    if (last && this.phase >= 3 && step.bonus !== null) {
      rows.push(["bonus token", `${this.shown(step.bonus)} (id ${step.bonus})`], ["its target probability", long(step.bonus_prob)]);
    }
    return rows;
  }

  painter(step, last) {
    const best = new Set(step.best);
    return (group, node, index) => {
      group.append(make("rect", { width: SIZE.wide, height: SIZE.high, rx: 6 }));
      const token = make("text", { class: "token", x: 9, y: 17 });
      group.append(token);
      const marks = [...(this.phase >= 1 && node.target_first ? [["first", FIRST_TARGET]] : []), ...(best.has(index) ? [["star", FIRST_DRAFT]] : [])];
      fitted(token, MARKS[node.state] + this.shown(node.token), SIZE.wide - 16 - 18 * marks.length);
      marks.reverse().forEach(([name, mark], place) => group.append(make("text", { class: name, x: SIZE.wide - 21 - 18 * place, y: 18 }, mark)));
      const target = this.phase >= 1 ? [`target ${short(node.target_prob)}`] : [];
      const numbers = node.parent < 0 ? ["root"] : [`draft ${short(node.draft_prob)}`, ...target];
      numbers.forEach((text, place) => group.append(make("text", { class: "numbers", x: 9 + 72 * place, y: 33 }, text)));
      if (index === last && this.phase >= 3) this.pill(group, step);
    };
  }

  pill(group, step) {
    const bonus = make("g", { class: "bonus", transform: `translate(20,${SIZE.high - 2})` });
    const text = make("text", { x: 10, y: 14 });
    group.append(bonus);
    bonus.append(make("rect", { width: SIZE.wide - 20, height: SIZE.pill, rx: 9 }), text);
    fitted(text, step.bonus === null ? "\u25a0 the text ends" : `\u25c6 ${this.shown(step.bonus)}`, SIZE.wide - 40);
  }

  table(step) {
    const body = this.part("rows");
    body.replaceChildren();
    step.nodes.forEach((node, index) => {
      const row = body.insertRow();
      const cells = [node.path.join("/") || "root", node.token === null ? "?" : String(node.token), this.shown(node.token), long(node.draft_prob),
        long(node.log_prob), long(node.cumulative_log_prob), node.parent < 0 ? "" : long(node.target_prob), STATES[node.state]];
      cells.forEach((text, column) => {
        const cell = row.insertCell();
        if ([0, 2, 7].includes(column)) cell.className = column === 2 ? "words token" : "words";
        cell.append(html("bdi", "", text));
      });
      if (step.best.includes(index)) row.cells[7].append(` ${FIRST_DRAFT}`);
      if (node.target_first) row.cells[7].append(` ${FIRST_TARGET}`);
    });
  }

  mark(index) {
    for (const word of this.root.querySelectorAll(".text [data-step]")) {
      const step = Number(word.dataset.step), needs = word.className.startsWith("bonus") ? 3 : 2;
      word.classList.toggle("later", step > index || (step === index && this.phase < needs));
      word.classList.toggle("here", step === index);
    }
    const text = this.part("text"), here = text.querySelector(".here");
    if (here && text.scrollHeight > text.clientHeight) text.scrollTop += here.getBoundingClientRect().top - text.getBoundingClientRect().top - text.clientHeight / 2;
  }
}

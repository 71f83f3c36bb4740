const data = JSON.parse(document.getElementById("data").textContent);
const MARKS = { root: "", accepted: "\u2713 ", rejected: "\u2717 ", unused: "" };
const STATES = { root: "root (the last committed token)", accepted: "accepted", rejected: "rejected", unused: "not tried" };
const drawing = new Drawing(document.getElementById("tree"), document.getElementById("tip"));
const slider = document.getElementById("step");
let now = 0;

const shown = (id) => (id === null ? "?" : data.words[id].shown);
// in running text line ends and letters stay what they are; anything else that cannot be seen is spelled out
const running = (id) => (/^(?:[^\p{C}]|\n|\t)*$/u.test(data.words[id].text) ? data.words[id].text : data.words[id].shown);
const short = (value) => (value === null ? "?" : value >= 0.0005 || value === 0 ? value.toFixed(3) : value.toExponential(0));
const long = (value) => (value === null ? "unknown" : value !== 0 && Math.abs(value) < 1e-4 ? value.toExponential(3) : value.toFixed(5));

function facts(node, index) {
  const step = data.steps[now], last = step.accepted.at(-1) ?? 0;
  const rows = [
    ["token id", node.token === null ? "unknown" : String(node.token)],
    ["text", shown(node.token)],
    ["rank path", node.path.length ? node.path.join("/") : "root"],
    ["state", STATES[node.state]],
  ];
  if (node.parent >= 0) {
    rows.push(["draft probability", long(node.draft_prob)], ["log-probability", long(node.log_prob)],
      ["cumulative log-probability", long(node.cumulative_log_prob)], ["target probability", long(node.target_prob)]);
    if (node.accept_prob !== null) rows.push(["kept with probability", long(node.accept_prob)]);
    if (node.recorded) rows.push(["source", "recorded"]);
  }
  if (index === last && step.bonus !== null) {
    rows.push(["bonus token", `${shown(step.bonus)} (id ${step.bonus})`], ["its target probability", long(step.bonus_prob)]);
  }
  return rows;
}

function paint(step) {
  const last = step.accepted.at(-1) ?? 0;
  const best = new Set(step.best);
  return (group, node, index) => {
    group.append(make("rect", { width: SIZE.wide, height: SIZE.high, rx: 6 }));
    const token = make("text", { class: "token", x: 9, y: 17 });
    group.append(token);
    fitted(token, MARKS[node.state] + shown(node.token), SIZE.wide - (best.has(index) ? 34 : 16));
    const numbers = node.parent < 0 ? ["root"] : [`draft ${short(node.draft_prob)}`, `target ${short(node.target_prob)}`];
    numbers.forEach((text, place) => group.append(make("text", { class: "numbers", x: 9 + 72 * place, y: 33 }, text)));
    if (best.has(index)) group.append(make("text", { class: "star", x: SIZE.wide - 21, y: 18 }, "\u2605"));
    if (index === last) {
      const bonus = make("g", { class: "bonus", transform: `translate(20,${SIZE.high - 2})` });
      group.append(bonus);
      const pill = make("rect", { width: SIZE.wide - 20, height: 19, rx: 9 });
      const text = make("text", { x: 10, y: 14 });
      bonus.append(pill, text);
      fitted(text, step.bonus === null ? "\u25a0 the text ends" : `\u25c6 ${shown(step.bonus)}`, SIZE.wide - 40);
    }
  };
}

function table(step) {
  const body = document.getElementById("rows");
  body.replaceChildren();
  step.nodes.forEach((node, index) => {
    const row = body.insertRow();
    const cells = [node.path.join("/") || "root", node.token === null ? "?" : String(node.token), shown(node.token), long(node.draft_prob),
      long(node.log_prob), long(node.cumulative_log_prob), node.parent < 0 ? "" : long(node.target_prob), STATES[node.state]];
    cells.forEach((text, column) => {
      const cell = row.insertCell();
      if ([0, 2, 7].includes(column)) cell.className = "words";
      cell.append(html("bdi", "", text));
    });
    if (step.best.includes(index)) row.cells[7].append(" \u2605");
  });
}

function show(index, first = false) {
  now = Math.max(0, Math.min(data.steps.length - 1, index));
  const step = data.steps[now], before = drawing.extent && { ...drawing.extent };
  slider.value = String(now + 1);
  document.getElementById("where").textContent = `step ${now + 1} of ${data.steps.length}: ${step.accepted.length} of ${step.depth} levels accepted`;
  document.getElementById("why").textContent = step.why;
  drawing.draw(step.nodes, step.best, paint(step), facts, step.accepted.at(-1) ?? 0);
  if (first || before.w !== drawing.extent.w || before.h !== drawing.extent.h || !drawing.sees(drawing.focus)) drawing.fit();
  table(step);
  for (const word of document.querySelectorAll(".text [data-step]")) {
    word.classList.toggle("later", Number(word.dataset.step) > now);
    word.classList.toggle("here", Number(word.dataset.step) === now);
  }
}

function words() {
  const text = document.getElementById("text");
  text.append(html("bdi", "", running(data.first)));
  data.steps.forEach((step, index) => {
    const tokens = step.accepted.map((node) => [step.nodes[node].token, "accepted"]);
    if (step.bonus !== null) tokens.push([step.bonus, "bonus"]);
    for (const [token, kind] of tokens) {
      const word = html("button", kind);
      word.dataset.step = String(index);
      word.title = `step ${index + 1}: ${kind}`;
      word.append(html("bdi", "", running(token)));
      word.addEventListener("click", () => show(index));
      text.append(word);
    }
  });
}

words();
if (data.steps.length) {
  slider.max = String(data.steps.length);
  slider.addEventListener("input", () => show(Number(slider.value) - 1));
  keys(drawing, () => show(now - 1), () => show(now + 1), () => show(0), () => show(data.steps.length - 1));
  buttons(drawing);
  show(0, true);
} else {
  document.getElementById("why").textContent = "No verification step: the text ended with the token after the prompt.";
}

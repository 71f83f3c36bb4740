// Controls: figures draw the rows that are chosen, tables list them; the address says what is.
const panels = read(document.getElementById("panels"));
const form = document.getElementById("controls");
const chosen = () => Object.fromEntries(form ? [...form.elements].filter((one) => one.name).map((one) => [one.name, one.value]) : []);
const fits = (said, choice) => ["pair", "drafter", "setting"].every((key) => !choice[key] || !(key in said) || said[key] === choice[key]);
// `meta` are the parameters that a figure has: without one for the budget it draws all of them, on an axis or as points.
const rowFits = (row, choice, meta) => fits(panels[row.panel] ?? (("pair" in row) ? { pair: row.pair } : {}), choice)
  && (!choice.budget || !("budget" in meta) || !("budget" in row) || String(row.budget) === choice.budget)
  && (!choice.category || !("category" in row) || row.category === choice.category);
const WIDTHS = { 1: 620, 2: 400 }; // of a panel, where there are so few
const redraw = async (one, choice) => {
  const meta = one.spec.usermeta?.controls ?? {};
  const rows = Object.fromEntries(Object.entries(one.rows).map(([name, all]) => [name, all.filter((row) => rowFits(row, choice, meta))]));
  const left = Object.entries(rows).every(([name, some]) => some.length || !one.rows[name].length);
  one.box.hidden = !left;
  one.box.parentElement.querySelector(".empty").hidden = left;
  const same = one.drawn && Object.entries(rows).every(([name, some]) => some.length === one.drawn[name].length && some.every((row, i) => row === one.drawn[name][i]));
  if (!left || same) return;
  const count = (some) => new Set(Object.values(some).flat().map((row) => row.panel)).size;
  const usual = one.spec.spec?.width ?? one.spec.width, fewer = one.spec.spec && count(rows) < count(one.rows);
  if ("budget" in meta) one.spec.params.find((part) => part.name === "budget").value = choice.budget ? Number(choice.budget) : null;
  await drawFigure(one, rows, fewer ? WIDTHS[count(rows)] ?? usual : usual);
  one.picked = "";
  listen(one);
};

// A shape that is singled out in one figure is so in all.
const PICK = "pick", STORE = "pick_store";
const listen = (one) => {
  one.picks = Boolean(one.view && PICK in one.view.getState({ signals: (name) => name === PICK, data: () => false }).signals);
  if (!one.picks || !form?.elements.shape) return;
  one.view.addSignalListener(PICK, (_, said) => {
    const shapes = said?.shown ?? [];
    if (shapes.length > 1 || (shapes[0] ?? "") === form.elements.shape.value) return;
    one.picked = form.elements.shape.value = shapes[0] ?? "";
    choose();
  });
};
const single = async (one, shape) => {
  if (!one.picks || one.box.hidden || one.picked === shape) return;
  one.picked = shape;
  one.view.data(STORE, shape ? [{ unit: "", fields: [{ type: "E", field: "shown" }], values: [shape] }] : []);
  await one.view.runAsync();
};

const remember = (choice) => {
  const first = Object.fromEntries(form ? [...form.elements].filter((one) => one.options).map((one) => [one.name, one.options[0].value]) : []);
  const said = new URLSearchParams(Object.entries(choice).filter(([name, value]) => value && value !== first[name]));
  if (opened) said.set("steps", opened);
  if (said.size || location.hash.includes("=")) history.replaceState(null, "", said.size ? `#${said}` : "#");
};
let turn = 0, drawing = Promise.resolve();
const choose = () => { // one after another, and of several that wait only the last
  const mine = turn += 1;
  document.body.dataset.drawn = "";
  drawing = drawing.then(() => apply(mine));
};
const apply = async (mine) => {
  if (mine !== turn) return;
  const choice = chosen();
  remember(choice);
  document.querySelectorAll("figure[data-metric]").forEach((one) => one.classList.toggle("off", "metric" in choice && one.dataset.metric !== choice.metric));
  document.querySelectorAll(".drill").forEach((one) => {
    one.classList.toggle("off", !fits(panels[one.dataset.panel] ?? {}, choice));
    one.querySelectorAll("details").forEach((part) => {
      part.classList.toggle("off", Boolean(choice.category) && part.dataset.category !== choice.category);
      if (choice.category && part.dataset.category === choice.category) part.open = true;
    });
  });
  arranged.forEach((arrange) => arrange());
  for (const one of figures) {
    if (mine !== turn) return;
    await redraw(one, choice);
    await single(one, choice.shape ?? "");
  }
  document.body.dataset.drawn = "yes";
};
const recall = () => {
  if (!location.hash.includes("=")) return;
  const said = new URLSearchParams(location.hash.slice(1));
  for (const one of form?.elements ?? []) {
    if (one.options && [...one.options].some((option) => option.value === said.get(one.name))) one.value = said.get(one.name);
  }
  const button = [...document.querySelectorAll(".open")].find((one) => one.dataset.steps === said.get("steps"));
  if (button && opened !== button.dataset.steps) openSteps(button);
};
const cellFits = (heads, row, choice) => {
  const cell = (name) => (heads.includes(name) ? row[heads.indexOf(name)][1] : undefined);
  const [pair, setting, budget, category] = [cell("pair"), cell("setting"), cell("budget") ?? (heads.includes("verdict") ? cell("nodes") : undefined), cell("category")];
  return fits(panels[setting] ?? (pair === undefined ? {} : { pair }), choice)
    && (!choice.budget || budget === undefined || budget === choice.budget) && (!choice.category || category === undefined || category === choice.category);
};
const arranged = []; // of every table: how it lists its rows again

const tables = [...document.querySelectorAll(".table")];
tables.forEach((box) => (box.querySelector(".tools") ? setUp : freeze)(box));
window.addEventListener("resize", () => tables.forEach(freeze));
form?.addEventListener("change", () => choose());
form?.addEventListener("submit", (event) => event.preventDefault());
form?.addEventListener("reset", () => setTimeout(choose));
window.addEventListener("hashchange", () => { recall(); choose(); });
readFigures();
recall();
choose();

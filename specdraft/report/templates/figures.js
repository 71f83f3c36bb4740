const read = (node) => (node ? JSON.parse(node.textContent) : null);
const PAGE = 50;

// Figures: each names tables that the page holds once, column by column.
const rowsOf = (columns) => {
  const names = Object.keys(columns);
  const count = names.length ? columns[names[0]].length : 0;
  return Array.from({ length: count }, (_, i) => Object.fromEntries(names.map((name) => [name, columns[name][i]])));
};
const named = (spec, found = new Set()) => {
  if (Array.isArray(spec)) spec.forEach((part) => named(part, found));
  else if (spec && typeof spec === "object") {
    if (spec.data && spec.data.name) found.add(spec.data.name);
    Object.values(spec).forEach((part) => named(part, found));
  }
  return found;
};
const figures = [...document.querySelectorAll(".chart")].map((box) => ({ box, drawn: null }));
const readFigures = () => {
  const datasets = read(document.getElementById("datasets")), specs = read(document.getElementById("specs"));
  for (const one of figures) {
    one.spec = { ...specs[one.box.dataset.figure], background: null };
    one.rows = Object.fromEntries([...named(one.spec)].map((name) => [name, rowsOf(datasets[name])]));
  }
};
const OPTIONS = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };
const BESIDE = 100, LEAST = 220; // pixels for an axis and its title; of the narrowest panel
const fitted = (box, spec, wanted) => { // panels as wide as wanted, or as there is room for; as many side by side as fit
  const room = Math.max(LEAST, box.clientWidth - BESIDE), width = Math.min(wanted, room);
  if (!spec.spec) return { ...spec, width };
  const columns = spec.columns ? { columns: Math.max(1, Math.min(spec.columns, Math.floor((room + BESIDE) / (width + BESIDE / 4)))) } : {};
  return { ...spec, ...columns, spec: { ...spec.spec, width } };
};
const drawFigure = async (one, rows, width) => {
  const spec = Number.isFinite(width) ? fitted(one.box, one.spec, width) : one.spec;
  one.view?.finalize();
  one.drawn = rows;
  try {
    const made = await window.specdraftEmbed(one.box, { ...spec, datasets: rows }, { ...OPTIONS, downloadFileName: one.box.dataset.figure });
    one.view = made.view;
    one.box.querySelector("summary")?.setAttribute("aria-label", "save this figure as a picture");
    one.box.querySelectorAll("[role=graphics-symbol]:not([aria-label])").forEach((mark) => mark.setAttribute("aria-label", "line to compare with"));
  } catch (error) {
    one.box.textContent = "This figure could not be drawn: " + error;
    console.error(error);
  }
};

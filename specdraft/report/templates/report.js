"use strict";
(() => {
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
  const drawFigures = async () => {
    const datasets = read(document.getElementById("datasets"));
    const specs = read(document.getElementById("specs"));
    for (const box of document.querySelectorAll(".chart")) {
      try {
        const spec = specs[box.dataset.figure];
        spec.datasets = Object.fromEntries([...named(spec)].map((name) => [name, rowsOf(datasets[name])]));
        spec.background = null;
        await window.specdraftEmbed(box, spec, {
          renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false }, downloadFileName: box.dataset.figure,
        });
      } catch (error) {
        box.textContent = "This figure could not be drawn: " + error;
        console.error(error);
      }
    }
    document.body.dataset.drawn = "yes";
  };

  // Tables: a click on a header sorts, every row counts, also those on other pages.
  const value = (text) => {
    const number = /^[-+]?[\d.]/.test(text) ? Number.parseFloat(text.replaceAll(",", "")) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    const blank = (text) => text === "" || text === "\u2013";
    if (blank(a) !== blank(b)) return blank(a) ? 1 : -1;
    if (typeof x === "number" && typeof y === "number") return x - y;
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const setUp = (box) => {
    const body = box.querySelector("tbody");
    const heads = [...box.querySelectorAll("th")];
    const all = read(box.querySelector("script.rows")) || [...body.rows].map((row) => [...row.cells].map((cell) => cell.textContent));
    let rows = all, page = 0, column = -1, way = 1;
    const pages = box.querySelector(".pages");
    const button = (text, title, step) => {
      const made = document.createElement("button");
      Object.assign(made, { type: "button", textContent: text, title });
      made.addEventListener("click", () => { page += step; show(); });
      return made;
    };
    const back = button("\u2039", "previous page", -1), on = button("\u203a", "next page", 1), where = document.createElement("span");
    if (all.length > PAGE) pages.append(back, where, on); else pages.append(where);
    const show = () => {
      const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
      page = Math.min(Math.max(page, 0), last);
      body.replaceChildren(...rows.slice(page * PAGE, (page + 1) * PAGE).map((row) => {
        const line = document.createElement("tr");
        line.append(...row.map((text, index) => {
          const cell = document.createElement("td"), inner = document.createElement("bdi");
          inner.textContent = text;
          cell.className = heads[index].className;
          cell.append(inner);
          return cell;
        }));
        return line;
      }));
      where.textContent = rows.length === all.length ? (last ? ` page ${page + 1} of ${last + 1} ` : "") : ` ${rows.length} of ${all.length} rows `;
      back.disabled = page === 0;
      on.disabled = page === last;
    };
    const arrange = () => {
      const word = box.querySelector("input").value.toLowerCase();
      rows = word ? all.filter((row) => row.some((text) => text.toLowerCase().includes(word))) : [...all];
      if (column >= 0) {
        const blank = (text) => text === "" || text === "\u2013";
        rows.sort((a, b) => (blank(a[column]) || blank(b[column]) ? compare(a[column], b[column]) : way * compare(a[column], b[column])));
      }
      page = 0;
      show();
    };
    heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
      way = column === index ? -way : 1;
      column = index;
      heads.forEach((other, i) => other.setAttribute("aria-sort", i !== index ? "none" : way > 0 ? "ascending" : "descending"));
      arrange();
    }));
    box.querySelector("input").addEventListener("input", arrange);
    const copy = box.querySelector(".copy");
    copy.addEventListener("click", async () => {
      const clean = (text) => text.replaceAll(/[\t\r\n]+/g, " ");
      const text = [heads.map((head) => head.textContent), ...rows].map((row) => row.map(clean).join("\t")).join("\n");
      let done = false;
      try { await navigator.clipboard.writeText(text); done = true; } catch {
        const area = document.createElement("textarea");
        area.value = text;
        document.body.append(area);
        area.select();
        done = document.execCommand("copy");
        area.remove();
      }
      copy.textContent = done ? `copied ${rows.length} rows` : "could not copy";
      setTimeout(() => { copy.textContent = "copy"; }, 2000);
    });
    show();
  };
  document.querySelectorAll(".table").forEach((box) => { if (box.querySelector(".tools")) setUp(box); });
  drawFigures();
})();

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
  const figures = [...document.querySelectorAll(".chart")].map((box) => ({ box, drawn: null }));
  const readFigures = () => {
    const datasets = read(document.getElementById("datasets")), specs = read(document.getElementById("specs"));
    for (const one of figures) {
      one.spec = { ...specs[one.box.dataset.figure], background: null };
      one.rows = Object.fromEntries([...named(one.spec)].map((name) => [name, rowsOf(datasets[name])]));
    }
  };
  const OPTIONS = { renderer: "svg", actions: { export: true, source: false, compiled: false, editor: false } };
  const drawFigure = async (one, rows, width) => {
    const inner = width ? { spec: { ...one.spec.spec, width } } : {};
    one.view?.finalize();
    one.drawn = rows;
    try {
      const made = await window.specdraftEmbed(one.box, { ...one.spec, ...inner, datasets: rows }, { ...OPTIONS, downloadFileName: one.box.dataset.figure });
      one.view = made.view;
    } catch (error) {
      one.box.textContent = "This figure could not be drawn: " + error;
      console.error(error);
    }
  };

  // Controls: figures draw the rows that are chosen, tables list them; the address says what is.
  const panels = read(document.getElementById("panels"));
  const form = document.getElementById("controls");
  const chosen = () => Object.fromEntries(form ? [...form.elements].filter((one) => one.name).map((one) => [one.name, one.value]) : []);
  const fits = (said, choice) => ["pair", "drafter", "setting"].every((key) => !choice[key] || !(key in said) || said[key] === choice[key]);
  const onAxis = (part, name) => Boolean(part && typeof part === "object" && (["x", "y"].some((axis) => part.encoding?.[axis]?.field === name)
    || Object.values(part).some((inner) => onAxis(inner, name))));
  const rowFits = (row, choice, axes) => fits(panels[row.panel] ?? (("pair" in row) ? { pair: row.pair } : {}), choice)
    && (!choice.budget || axes || !("budget" in row) || String(row.budget) === choice.budget)
    && (!choice.category || !("category" in row) || row.category === choice.category);
  const WIDTHS = { 1: 620, 2: 400 }; // of a panel, where there are so few
  const redraw = async (one, choice) => {
    const axes = onAxis(one.spec, "budget");
    const rows = Object.fromEntries(Object.entries(one.rows).map(([name, all]) => [name, all.filter((row) => rowFits(row, choice, axes))]));
    const left = Object.values(rows).some((some) => some.length);
    one.box.hidden = !left;
    one.box.parentElement.querySelector(".empty").hidden = left;
    const same = one.drawn && Object.entries(rows).every(([name, some]) => some.length === one.drawn[name].length && some.every((row, i) => row === one.drawn[name][i]));
    if (!left || same) return;
    const count = (some) => new Set(Object.values(some).flat().map((row) => row.panel)).size;
    const fewer = one.spec.spec?.width && count(rows) < count(one.rows);
    await drawFigure(one, rows, fewer ? WIDTHS[count(rows)] : undefined);
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

  // Tables: a click on a header sorts; every row counts, also those on other pages. A cell is [shown, in full].
  const value = (text) => {
    const number = /^[-+]?[\d.]/.test(text) ? Number.parseFloat(text.replaceAll(",", "")) : NaN;
    return Number.isNaN(number) ? text : number;
  };
  const blank = (text) => text === "" || text === "\u2013";
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
    return x < y ? -1 : x > y ? 1 : 0;
  };
  const cellOf = (cell) => [cell.textContent, cell.title || cell.textContent];
  const ROOM = 0.55; // of a table's width, for the columns that stay

  const freeze = (box) => {
    const table = box.querySelector("table"), heads = [...box.querySelectorAll("th")];
    const room = ROOM * box.querySelector(".scroll").clientWidth;
    table.querySelectorAll(".frozen").forEach((cell) => { cell.classList.remove("frozen"); cell.style.left = ""; });
    let left = 0;
    for (let index = 0; index < Number(box.dataset.frozen); index += 1) {
      const wide = heads[index].offsetWidth;
      if (index && left + wide > room) break;
      for (const row of table.rows) {
        if (row.cells.length <= index) continue;
        row.cells[index].classList.add("frozen");
        row.cells[index].style.left = `${left}px`;
      }
      left += wide;
    }
  };
  const copied = async (text) => {
    try { await navigator.clipboard.writeText(text); return true; } catch {
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  };
  const setUp = (box) => {
    const body = box.querySelector("tbody");
    const heads = [...box.querySelectorAll("th")];
    const kept = read(box.querySelector("script.rows"));
    const all = kept ? kept.map((row) => row.map((cell) => (Array.isArray(cell) ? cell : [cell, cell])))
      : [...body.rows].map((row) => [...row.cells].map(cellOf));
    const titles = heads.map((head) => head.textContent);
    let rows = all, page = 0, column = -1, way = 1;
    const pages = box.querySelector(".pages");
    const button = (text, title, step) => {
      const made = document.createElement("button");
      Object.assign(made, { type: "button", textContent: text, title });
      made.setAttribute("aria-label", title);
      made.addEventListener("click", () => { page += step; show(); });
      return made;
    };
    const back = button("\u2039", "previous page", -1), on = button("\u203a", "next page", 1), where = document.createElement("span");
    if (all.length > PAGE) pages.append(back, where, on); else pages.append(where);
    const line = (row) => {
      const made = document.createElement("tr");
      made.append(...row.map(([text, full], index) => {
        const cell = document.createElement("td"), inner = document.createElement("bdi");
        inner.textContent = text;
        if (full !== text) cell.title = full;
        cell.className = heads[index].className.replace("frozen", "");
        cell.append(inner);
        return cell;
      }));
      return made;
    };
    const nothing = () => {
      const made = document.createElement("tr"), cell = document.createElement("td");
      cell.colSpan = heads.length;
      cell.className = "nothing";
      cell.textContent = "no match: no row has all of these words";
      made.append(cell);
      return made;
    };
    const show = () => {
      const last = Math.max(0, Math.ceil(rows.length / PAGE) - 1);
      page = Math.min(Math.max(page, 0), last);
      body.replaceChildren(...(rows.length || !all.length ? rows.slice(page * PAGE, (page + 1) * PAGE).map(line) : [nothing()]));
      const at = last ? `page ${page + 1} of ${last + 1}` : "";
      where.textContent = rows.length === all.length ? ` ${at} ` : rows.length ? ` ${rows.length} of ${all.length} rows ${at} ` : " no match ";
      back.disabled = page === 0;
      on.disabled = page === last;
      freeze(box);
    };
    const arrange = () => {
      const words = box.querySelector("input").value.toLowerCase().split(/\s+/).filter(Boolean);
      const has = (row, word) => row.some((texts) => texts.some((text) => text.toLowerCase().includes(word)));
      const choice = chosen();
      rows = all.filter((row) => cellFits(titles, row, choice) && words.every((word) => has(row, word)));
      if (column >= 0) {
        const cell = (row) => row[column][1];
        rows.sort((a, b) => blank(cell(a)) - blank(cell(b)) || (blank(cell(a)) ? 0 : way * compare(cell(a), cell(b))));
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
    box.querySelector("input.all")?.addEventListener("change", (event) => {
      box.classList.toggle("brief", !event.target.checked);
      freeze(box);
    });
    const copy = box.querySelector(".copy");
    copy.addEventListener("click", async () => {
      const clean = (text) => text.replaceAll(/[\t\r\n]+/g, " ");
      const lines = [heads.map((head) => head.textContent), ...rows.map((row) => row.map((cell) => cell[1]))];
      const done = await copied(lines.map((row) => row.map(clean).join("\t")).join("\n"));
      copy.textContent = done ? `copied ${rows.length} rows` : "could not copy";
      setTimeout(() => { copy.textContent = "copy"; }, 2000);
    });
    arranged.push(arrange);
    show();
  };
  // Steps: a page of its own for each prompt, packed until it is asked for.
  const unpacked = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const steps = read(document.getElementById("steps"));
  let opened = "";
  const openSteps = async (button) => {
    const drill = button.closest(".drill"), stage = drill.querySelector(".steps"), name = button.dataset.steps;
    const close = stage.dataset.steps === name;
    document.querySelectorAll(".steps").forEach((other) => { if (other !== stage) { other.hidden = true; other.replaceChildren(); other.dataset.steps = ""; } });
    stage.dataset.steps = opened = close ? "" : name;
    remember(chosen());
    document.querySelectorAll(".open").forEach((other) => other.setAttribute("aria-expanded", String(!close && other.dataset.steps === name)));
    stage.hidden = close;
    stage.replaceChildren();
    if (close) return;
    try {
      const frame = document.createElement("iframe");
      frame.title = `steps of ${button.textContent}`;
      frame.srcdoc = await unpacked(steps[name]);
      stage.append(frame);
      stage.scrollIntoView({ block: "nearest" });
    } catch (error) {
      stage.textContent = "The steps could not be opened: " + error;
    }
  };
  document.querySelectorAll(".open").forEach((button) => button.addEventListener("click", () => openSteps(button)));

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
})();

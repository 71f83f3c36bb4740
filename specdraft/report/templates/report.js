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
      rows = all.filter((row) => words.every((word) => has(row, word)));
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
    show();
  };
  // Steps: a page of its own for each prompt, packed until it is asked for.
  const unpacked = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const steps = read(document.getElementById("steps"));
  const openSteps = async (button) => {
    const drill = button.closest(".drill"), stage = drill.querySelector(".steps"), name = button.dataset.steps;
    const close = stage.dataset.steps === name;
    stage.dataset.steps = close ? "" : name;
    drill.querySelectorAll(".open").forEach((other) => other.setAttribute("aria-expanded", String(!close && other.dataset.steps === name)));
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
  drawFigures();
})();

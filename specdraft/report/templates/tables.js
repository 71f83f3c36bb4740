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

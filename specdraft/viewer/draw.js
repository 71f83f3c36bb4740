"use strict";
// One tree as SVG that can be zoomed, panned and read with the keyboard. All text goes in as text, never as markup.
const SIZE = { column: 196, row: 66, wide: 156, high: 40 };

function make(name, attributes = {}, text = null) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  return element;
}

function html(name, className = "", text = null) {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text !== null) element.textContent = text;
  return element;
}

function fitted(element, text, room) {
  element.textContent = text;
  const letters = Array.from(text);
  while (letters.length > 1 && element.getComputedTextLength() > room) {
    letters.pop();
    element.textContent = letters.join("") + "\u2026";
  }
}

class Drawing {
  constructor(svg, tip) {
    this.svg = svg;
    this.tip = tip;
    this.box = { x: 0, y: 0, w: 1, h: 1 };
    let last = null;
    svg.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(event.deltaY < 0 ? 0.85 : 1 / 0.85, event.clientX, event.clientY);
    }, { passive: false });
    svg.addEventListener("pointerdown", (event) => { last = event; svg.setPointerCapture(event.pointerId); svg.classList.add("dragged"); });
    svg.addEventListener("pointermove", (event) => {
      if (!last) return;
      const scale = this.scale();
      this.box.x -= (event.clientX - last.clientX) / scale;
      this.box.y -= (event.clientY - last.clientY) / scale;
      last = event;
      this.look();
    });
    for (const name of ["pointerup", "pointercancel"]) svg.addEventListener(name, () => { last = null; svg.classList.remove("dragged"); });
    window.addEventListener("resize", () => this.fit());
    window.addEventListener("beforeprint", () => { this.kept = { ...this.box }; this.whole(); });
    window.addEventListener("afterprint", () => { this.box = this.kept; this.look(); });
  }

  scale() {
    const size = this.svg.getBoundingClientRect();
    return Math.min(size.width / this.box.w, size.height / this.box.h) || 1;
  }

  look() {
    this.svg.setAttribute("viewBox", `${this.box.x} ${this.box.y} ${this.box.w} ${this.box.h}`);
  }

  zoom(factor, clientX = null, clientY = null) {
    const size = this.svg.getBoundingClientRect();
    const scale = this.scale();
    if ((factor < 1 && scale > 6) || (factor > 1 && scale < 0.02)) return;
    const atX = clientX === null ? 0.5 : (clientX - size.left) / size.width;
    const atY = clientY === null ? 0.5 : (clientY - size.top) / size.height;
    this.box.x += this.box.w * (1 - factor) * atX;
    this.box.y += this.box.h * (1 - factor) * atY;
    this.box.w *= factor;
    this.box.h *= factor;
    this.look();
  }

  whole() {
    if (this.extent) this.box = { x: 0, y: 0, ...this.extent };
    this.look();
  }

  sees({ x, y }) {
    const { x: left, y: top, w, h } = this.box;
    return x >= left && x <= left + w && y >= top && y <= top + h;
  }

  // The whole tree; one that would be too small to read: its end of the path to `focus`.
  fit() {
    const size = this.svg.getBoundingClientRect();
    if (!this.extent || !size.width) return;
    const { w, h } = this.extent;
    const scale = Math.min(1.25, Math.max(Math.min(size.width / w, size.height / h), 0.55));
    this.box.w = size.width / scale;
    this.box.h = size.height / scale;
    const { x, y, rootY } = this.focus;
    const middle = Math.abs(y - rootY) < 0.8 * this.box.h ? (y + rootY) / 2 : y;
    const held = (start, size, all) => (size >= all ? (all - size) / 2 : Math.min(Math.max(0, start), all - size));
    this.box.x = held(x - 0.7 * this.box.w, this.box.w, w);
    this.box.y = held(middle - this.box.h / 2, this.box.h, h);
    this.look();
  }

  // `paint(group, node, index)` fills a node's group; `facts(node, index)` are the rows of its tooltip.
  draw(nodes, best, paint, facts, focus = 0) {
    this.svg.replaceChildren();
    const xs = nodes.map((node) => 14 + node.x * SIZE.column), ys = nodes.map((node) => 14 + node.y * SIZE.row);
    this.extent = { w: Math.max(...xs) + SIZE.wide + 14, h: Math.max(...ys) + SIZE.row + 8 };
    this.focus = { x: xs[focus] + SIZE.wide, y: ys[focus] + SIZE.high / 2, rootY: ys[0] + SIZE.high / 2 };
    const line = (node, index) => {
      const x0 = xs[node.parent] + SIZE.wide, y0 = ys[node.parent] + SIZE.high / 2, x1 = xs[index], y1 = ys[index] + SIZE.high / 2, middle = (x0 + x1) / 2;
      return `M${x0},${y0}C${middle},${y0} ${middle},${y1} ${x1},${y1}`;
    };
    const onBest = new Set(best);
    for (const above of [true, false]) {
      nodes.forEach((node, index) => {
        if (node.parent < 0 || (above && !onBest.has(index))) return;
        const edge = make("path", { class: above ? "edge best" : `edge ${node.state}`, d: line(node, index) });
        if (!above && node.edge) edge.setAttribute("style", node.edge);
        this.svg.append(edge);
      });
    }
    nodes.forEach((node, index) => {
      const group = make("g", { class: `node ${node.state}`, transform: `translate(${xs[index]},${ys[index]})`, tabindex: "0", role: "img" });
      const rows = facts(node, index);
      group.setAttribute("aria-label", rows.map((row) => row.join(": ")).join("; "));
      this.svg.append(group);
      paint(group, node, index);
      group.addEventListener("pointerenter", (event) => this.tell(rows, event.clientX, event.clientY));
      group.addEventListener("pointermove", (event) => this.place(event.clientX, event.clientY));
      group.addEventListener("focus", () => {
        const at = group.getBoundingClientRect();
        if (group.matches(":focus-visible")) this.tell(rows, at.left, at.bottom);
      });
      for (const name of ["pointerleave", "blur"]) group.addEventListener(name, () => { this.tip.hidden = true; });
    });
    this.tip.hidden = true;
  }

  tell(rows, x, y) {
    const table = html("table");
    for (const [name, value] of rows) {
      const row = table.insertRow();
      row.append(html("th", "", name));
      const cell = row.insertCell();
      cell.append(html("bdi", "", value));
    }
    this.tip.replaceChildren(table);
    this.tip.hidden = false;
    this.place(x, y);
  }

  place(x, y) {
    const size = this.tip.getBoundingClientRect();
    this.tip.style.left = `${Math.max(4, Math.min(x + 14, window.innerWidth - size.width - 8))}px`;
    this.tip.style.top = `${y + 18 + size.height > window.innerHeight ? Math.max(4, y - size.height - 10) : y + 18}px`;
  }
}

function keys(drawing, previous, next, first, last) {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const acts = { ArrowLeft: previous, ArrowRight: next, Home: first, End: last, "+": () => drawing.zoom(0.8), "=": () => drawing.zoom(0.8),
      "-": () => drawing.zoom(1.25), 0: () => drawing.whole() };
    if (Object.hasOwn(acts, event.key) && acts[event.key]) { event.preventDefault(); acts[event.key](); }
  });
}

function buttons(drawing) {
  document.getElementById("in").addEventListener("click", () => drawing.zoom(0.8));
  document.getElementById("out").addEventListener("click", () => drawing.zoom(1.25));
  document.getElementById("fit").addEventListener("click", () => drawing.whole());
}

"use strict";
// One tree as SVG that can be zoomed, panned and read with the keyboard. All text goes in as text, never as markup.
const SIZE = { column: 196, row: 66, wide: 156, high: 40, pill: 19 };
// Below so many pixels a tree is an outline (a node a line, children indented), and where it would have to shrink below SMALLEST.
const NARROW = 560, SMALLEST = 0.55, MOST_OUTLINED = 33;

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
    this.deepest = 0; // levels of the deepest tree that is drawn here, where an outline of all of them is short enough
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
    window.addEventListener("resize", () => {
      if (this.drawn && this.outlined !== this.narrow()) this.draw(...this.drawn);
      this.fit();
    });
    window.addEventListener("beforeprint", () => { this.kept = { ...this.box }; this.whole(); });
    window.addEventListener("afterprint", () => { this.box = this.kept; this.look(); });
  }

  narrow() {
    const width = this.svg.getBoundingClientRect().width;
    return width > 0 && width < Math.max(NARROW, this.deepest * SIZE.column * SMALLEST);
  }

  // [x, y] of each node: as laid out, or an outline that is as wide as the page.
  places(nodes, focus) {
    if (!this.outlined) return nodes.map((node) => [14 + node.x * SIZE.column, 14 + node.y * SIZE.row]);
    const depth = Math.max(1, ...nodes.map((node) => node.x));
    const room = this.svg.getBoundingClientRect().width - SIZE.wide - 16;
    const indent = Math.max(4, Math.min(24, room / depth));
    const children = nodes.map(() => []), order = [], stack = [0];
    nodes.forEach((node, index) => { if (node.parent >= 0) children[node.parent].push(index); });
    for (const below of children) below.sort((a, b) => nodes[b].y - nodes[a].y);
    while (stack.length) { const node = stack.pop(); order.push(node); stack.push(...children[node]); }
    const at = [];
    let y = 8;
    for (const node of order) { at[node] = [8 + nodes[node].x * indent, y]; y += SIZE.high + 8 + (node === focus ? SIZE.pill : 0); }
    return at;
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
    if (this.outlined) { this.whole(); return; }
    const scale = Math.min(1.25, Math.max(Math.min(size.width / w, size.height / h), SMALLEST));
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
    const held = [...this.svg.querySelectorAll("g.node")].indexOf(document.activeElement);
    this.drawn = [nodes, best, paint, facts, focus];
    this.outlined = this.narrow();
    this.svg.replaceChildren();
    const at = this.places(nodes, focus), xs = at.map(([x]) => x), ys = at.map(([, y]) => y);
    const below = this.outlined ? SIZE.high + SIZE.pill + 8 : SIZE.row + 8;
    this.extent = { w: Math.max(...xs) + SIZE.wide + (this.outlined ? 8 : 14), h: Math.max(...ys) + below };
    if (this.outlined) this.extent.w = Math.max(this.extent.w, this.svg.getBoundingClientRect().width);
    this.svg.style.height = this.outlined ? `${this.extent.h}px` : "";
    this.svg.style.touchAction = this.outlined ? "auto" : "";
    this.focus = { x: xs[focus] + SIZE.wide, y: ys[focus] + SIZE.high / 2, rootY: ys[0] + SIZE.high / 2 };
    const line = (node, index) => {
      if (this.outlined) return `M${xs[node.parent] + 3},${ys[node.parent] + SIZE.high}V${ys[index] + SIZE.high / 2}H${xs[index]}`;
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
    this.svg.querySelectorAll("g.node")[held]?.focus();
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

// `acts`: what a key does, beside zooming all drawings.
function keys(drawings, acts) {
  const zoom = (factor) => () => drawings.forEach((drawing) => drawing.zoom(factor));
  const all = { "+": zoom(0.8), "=": zoom(0.8), "-": zoom(1.25), 0: () => drawings.forEach((drawing) => drawing.whole()), ...acts };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    if (Object.hasOwn(all, event.key)) { event.preventDefault(); all[event.key](); }
  });
}

function buttons(drawings) {
  for (const [name, act] of [["in", (one) => one.zoom(0.8)], ["out", (one) => one.zoom(1.25)], ["fit", (one) => one.whole()]]) {
    document.getElementById(name).addEventListener("click", () => drawings.forEach(act));
  }
}

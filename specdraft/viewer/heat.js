const data = JSON.parse(document.getElementById("data").textContent);
Object.assign(SIZE, { row: 30, high: 24 });
const drawing = new Drawing(document.getElementById("tree"), document.getElementById("tip"));
const choice = document.getElementById("step");
const count = (value) => (Number.isInteger(value) ? String(value) : value.toFixed(2));

function facts(node) {
  const rows = [["rank path", node.path.length ? node.path.join("/") : "root"], ["mean weight", node.weight.toFixed(5)]];
  if (node.parent >= 0) {
    rows.push(["steps that tried it", count(node.reached)], ["steps that accepted it", count(node.accepted)],
      ["accepted when tried", node.reached ? (node.accepted / node.reached).toFixed(3) : "never tried"]);
  }
  return rows;
}

function paint(group, node) {
  const box = make("rect", { width: SIZE.wide, height: SIZE.high, rx: 6, style: `fill:${node.fill};stroke:#5c7fa6` });
  const name = node.parent < 0 ? "root" : node.path.join("/");
  group.append(box);
  const style = `fill:${node.ink}`;
  const text = make("text", { class: "token", x: 9, y: 17, style });
  group.append(text);
  fitted(text, name, SIZE.wide - 62);
  if (node.parent >= 0) group.append(make("text", { x: SIZE.wide - 9, y: 17, "text-anchor": "end", style }, node.weight.toFixed(3)));
}

function show(index) {
  const tree = data.trees[index];
  const nodes = tree.nodes.map((node) => ({ ...node, state: "heat", edge: `stroke:#5c7fa6;stroke-dasharray:none;stroke-width:${0.8 + 12 * node.weight}` }));
  choice.value = String(index);
  document.getElementById("where").textContent = [tree.title, tree.worth].filter(Boolean).join(": ");
  drawing.draw(nodes, [], paint, facts);
  drawing.whole();
}

data.trees.forEach((tree, index) => {
  const option = html("option", "", tree.title);
  option.value = String(index);
  choice.append(option);
});
choice.addEventListener("change", () => show(Number(choice.value)));
const now = () => Number(choice.value), last = data.trees.length - 1;
keys([drawing], { ArrowLeft: () => show(Math.max(0, now() - 1)), ArrowRight: () => show(Math.min(last, now() + 1)), Home: () => show(0), End: () => show(last) });
buttons([drawing]);
show(0);

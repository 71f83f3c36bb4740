const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip"), slider = document.getElementById("step"), play = document.getElementById("play");
const lanes = data.lanes.map((lane, place) => new Lane(lane, document.querySelectorAll(".lane")[place], tip));
// Trees of different shapes step differently: the slider stops wherever one of them starts a step.
const stops = [...new Set(lanes.flatMap((lane) => lane.starts))].sort((a, b) => a - b);
const BEAT = 1400; // milliseconds that a phase is shown
const still = window.matchMedia("(prefers-reduced-motion: reduce)");
let stop = 0, phase = PHASES.length - 1, timer = null;

function show(at, atPhase = PHASES.length - 1) {
  stop = Math.max(0, Math.min(stops.length - 1, at));
  phase = atPhase;
  slider.value = String(stop + 1);
  slider.setAttribute("aria-valuetext", `stop ${stop + 1} of ${stops.length}`);
  for (const button of document.querySelectorAll("[data-phase]")) button.setAttribute("aria-pressed", String(Number(button.dataset.phase) === phase));
  for (const lane of lanes) lane.show(stops[stop], phase);
}

function move(phases) {
  const at = stop * PHASES.length + phase + phases;
  if (at < 0 || at >= stops.length * PHASES.length) return false;
  show(Math.floor(at / PHASES.length), at % PHASES.length);
  return true;
}

function pause() {
  window.clearInterval(timer);
  timer = null;
  play.textContent = still.matches ? "next phase" : "\u25b6 play";
}

// Without motion the button is one phase a press.
function toggle() {
  if (timer !== null) { pause(); return; }
  if (!move(1)) show(0, 0);
  if (still.matches) return;
  play.textContent = "\u23f8 pause";
  timer = window.setInterval(() => { if (!move(1)) pause(); }, BEAT);
}

function by(action) {
  return (...given) => { pause(); action(...given); };
}

for (const lane of lanes) lane.write((position) => { pause(); show(stops.indexOf(position)); });
if (stops.length) {
  slider.max = String(stops.length);
  slider.addEventListener("input", by(() => show(Number(slider.value) - 1)));
  for (const button of document.querySelectorAll("[data-phase]")) button.addEventListener("click", by(() => show(stop, Number(button.dataset.phase))));
  play.addEventListener("click", toggle);
  still.addEventListener("change", pause);
  const more = { p: toggle, ",": by(() => move(-1)), ".": by(() => move(1)) };
  PHASES.forEach((_, place) => { more[place + 1] = by(() => show(stop, place)); });
  const drawings = lanes.map((lane) => lane.drawing);
  keys(drawings, { ArrowLeft: by(() => show(stop - 1)), ArrowRight: by(() => show(stop + 1)), Home: by(() => show(0)), End: by(() => show(stops.length - 1)), ...more });
  buttons(drawings);
  pause();
  show(0);
} else {
  document.querySelector(".controls").hidden = true;
  for (const where of document.querySelectorAll(".where")) where.textContent = "No verification step: the text ended with the token after the prompt.";
}

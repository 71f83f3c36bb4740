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

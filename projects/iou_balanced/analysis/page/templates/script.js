// A class, a least score, and labels on or off. Without it the page shows all images.
(() => {
  const controls = document.querySelector(".controls");
  if (!controls) return;
  const [chosen, score, labels] = ["class", "score", "labels"].map((id) => document.getElementById(id));
  const section = document.getElementById("images");
  const showClass = () => {
    section.querySelectorAll(".images").forEach((figure) => {
      figure.hidden = chosen.value !== "" && !figure.dataset.c.includes(` ${chosen.value} `);
    });
    section.querySelectorAll(".of-class").forEach((text) => {
      text.classList.toggle("on", text.id === `class-${chosen.value}`);
    });
  };
  const showScore = () => {
    document.getElementById("shown").value = Number(score.value).toFixed(2);
    section.querySelectorAll(".panel b").forEach((box) => {
      box.hidden = Number(box.dataset.s) < Number(score.value);
    });
  };
  const fromAddress = () => {
    const found = /^#class-(\d+)$/.exec(location.hash);
    if (!found && location.hash !== "#images") return;
    chosen.value = found ? found[1] : "";
    showClass();
    section.scrollIntoView();
  };
  chosen.addEventListener("change", showClass);
  score.addEventListener("input", showScore);
  labels.addEventListener("change", () => section.classList.toggle("no-labels", !labels.checked));
  window.addEventListener("hashchange", fromAddress);
  controls.hidden = false;
  fromAddress();
})();

"use strict";
(() => {
  const rows = [...document.querySelectorAll(".samples tbody tr")];
  const [text, target, fate] = ["text", "target", "fate"].map((id) => document.getElementById(id));
  const shown = document.getElementById("shown");
  if (!text) return;
  const plain = (words) => words.normalize("NFKC").toLowerCase();
  const haystacks = rows.map((row) => plain(row.textContent));
  const filter = () => {
    const words = plain(text.value).split(/\s+/).filter(Boolean);
    let count = 0;
    rows.forEach((row, number) => {
      const fits =
        (!target.value || row.dataset.target === target.value) &&
        (!fate.value || row.dataset.fate === fate.value ||
          (fate.value === "rejected" && row.dataset.fate !== "kept")) &&
        words.every((word) => haystacks[number].includes(word));
      row.hidden = !fits;
      count += fits;
    });
    shown.textContent = `${count} of ${rows.length} shown`;
  };
  [text, target, fate].forEach((control) => control.addEventListener("input", filter));
  document.querySelector(".tools").hidden = false;
  filter();
})();

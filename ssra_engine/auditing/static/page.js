"use strict";

// Texts of pairs reach the page as text nodes only, never as markup.

const at = (id) => document.getElementById(id);
const NAME = "ssra-engine audit annotator";

let about; // the scale: {grades: [{label, meaning}], no_grade, simulated}
let annotator = "";
let state = null; // what the server last said of this annotator's work

/** An element with a class, text or children. */
function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") element.textContent = value;
    else if (name === "click") element.addEventListener("click", value);
    else if (value !== undefined && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

/** Ask the server; resolves to its JSON, rejects with the message for the person. */
async function ask(path, sent) {
  const options = sent && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ ...sent, annotator }),
  };
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("ssra-engine does not answer. Start it again; every answer so far is kept.");
  }
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

/** Do one thing at a time, so that a key pressed twice answers once, and show what went wrong. */
async function one(task) {
  if (document.body.ariaBusy === "true") return;
  document.body.ariaBusy = "true";
  try {
    await task();
    at("error").hidden = true;
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
    if (error.status === 409) await refresh();
  } finally {
    document.body.ariaBusy = "false";
  }
}

const mine = () => `?annotator=${encodeURIComponent(annotator)}`;

async function refresh() {
  state = await ask(`state${mine()}`);
  await show();
}

async function send(path, sent = {}) {
  state = await ask(path, sent);
  await show();
}

const answer = (label) => one(() => state.pair && send("answer", { key: state.pair.key, label }));
const undo = () => one(() => state.can_undo && send("undo"));

function open(id) {
  for (const main of document.querySelectorAll("main")) main.hidden = main.id !== id;
}

async function show() {
  at("progress").max = state.pairs || 1;
  at("progress").value = state.labelled;
  const later = state.skipped ? `, ${state.skipped} skipped` : "";
  at("count").textContent = `${state.labelled} of ${state.pairs}${later}`;
  at("name").textContent = annotator;
  if (state.pair) showPair(state.pair);
  else showResults(await ask(`results${mine()}`));
}

function fields(pair) {
  return pair.fields.map(([name, text]) =>
    make("p", { dir: "auto", class: name === "title" ? "title" : "text" },
      make("span", { class: "caption", text: name }), text));
}

function showPair(pair) {
  at("query").querySelector("p").textContent = pair.query;
  at("document").replaceChildren(...fields(pair));
  at("document").scrollTop = 0;
  at("choices").querySelector("[data-undo]").disabled = !state.can_undo;
  open("grading");
}

function choice(key, text, click, options = {}) {
  return make("button", { type: "button", "aria-keyshortcuts": key, click, ...options },
    make("kbd", { text: key }), make("span", { text }));
}

function makeChoices() {
  const highest = [...about.grades].reverse();
  at("choices").replaceChildren(
    make("span", { class: "caption", text: "The document …" }),
    ...highest.map(({ label, meaning }) => choice(label, meaning, () => answer(label))),
    make("div", { class: "aside" },
      choice("-", "no grade", () => answer(about.no_grade), {
        title: "Nobody can tell what the query asks for" }),
      choice("s", "skip", () => answer(null), { title: "It comes again at the end" }),
      choice("u", "undo", undo, { title: "Take back the last answer", "data-undo": "" })),
  );
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target instanceof HTMLInputElement || !state) return;
  const key = event.key.toLowerCase();
  if (key === "u" || key === "backspace") undo();
  else if (at("grading").hidden) return;
  else if (key === "s") answer(null);
  else if (key === about.no_grade) answer(about.no_grade);
  else if (about.grades.some(({ label }) => label === key)) answer(key);
  else return;
  event.preventDefault();
});

const percent = (share) => `${Math.round(100 * share)} %`;
const figure = (value) => (value === null ? "–" : value.toFixed(2));

function share({ right, of, low, high }) {
  if (!of) return make("td", { text: "–" });
  return make("td", { title: `95 % interval ${percent(low)} to ${percent(high)}` },
    make("b", { text: `${right} of ${of}` }),
    make("span", { class: "quiet", text: `${percent(low)}–${percent(high)}` }));
}

function table(caption, head, rows) {
  const rest = make("div", { class: "scroll" }, make("table", { "aria-label": caption },
    make("thead", {}, make("tr", {}, ...head.map((text) => make("th", { scope: "col", text })))),
    make("tbody", {}, ...rows.map(([first, ...cells]) =>
      make("tr", {}, make("th", { scope: "row", text: first }), ...cells)))));
  return make("div", {}, make("p", { class: "quiet", text: caption }), rest);
}

function matrix(caption, corner, counts, labels) {
  const rows = Object.entries(counts).map(([row, cells]) => {
    const all = cells.reduce((sum, count) => sum + count, 0);
    return [row, ...cells.map((count, column) => {
      const shade = count ? Math.min(4, Math.ceil((4 * count) / all)) : 0;
      const right = labels[column] === row ? "right" : "";
      return make("td", { class: `shade-${shade} ${right}`, text: String(count) });
    })];
  });
  const names = labels.map((label) => (label === about.no_grade ? "none" : label));
  return table(caption, [corner, ...names], rows);
}

function agreementParts(found) {
  const rows = found.targets.map((row) =>
    [row.target, share(row.all), share(row.kept), share(row.rejected), share(row.predicted)]);
  return [
    make("h2", { text: "How often the grade is right" }),
    table("Pairs whose label is the grade they were written for, with a 95 % interval; last, pairs whose label is what the score model says.",
      ["target", "all drawn", "kept", "rejected", "score model"], rows),
    make("h2", { text: "What they are instead" }),
    matrix("Pairs by the grade they were written for and their label.", "target", found.by_target, found.labels),
    matrix("Pairs by the score model's grade and their label.", "score model", found.by_predicted, found.labels),
  ];
}

function annotatorParts(found) {
  const names = Object.entries(found.annotators).map(([name, count]) => `${name} (${count})`);
  const rows = found.kappa.map((row) => [row.annotators.join(" and "),
    ...[String(row.pairs), row.agree === null ? "–" : percent(row.agree), figure(row.kappa), figure(row.weighted)]
      .map((text) => make("td", { text }))]);
  return [
    make("h2", { text: "Annotators" }),
    make("p", { text: `${names.join(", ")}.` }),
    rows.length
      ? table("Agreement of two annotators on the pairs that both labelled: share of equal labels, Cohen's kappa, and Cohen's kappa with quadratic weights.",
        ["", "pairs", "equal", "kappa", "weighted"], rows)
      : make("p", { class: "quiet", text: "With a second annotator, Cohen's kappa stands here." }),
  ];
}

function dispute(pair) {
  const decide = (label) => one(async () =>
    showResults(await ask("adjudicate", { key: pair.key, label })));
  const said = Object.entries(pair.labels).map(([name, label]) => `${name}: ${label}`).join(", ");
  const labels = [...about.grades.map(({ label }) => label), about.no_grade];
  return make("section", { class: "dispute" },
    make("p", { class: "asked", dir: "auto", text: pair.query }),
    make("details", {}, make("summary", { text: "Document" }), ...fields(pair)),
    make("p", { class: "quiet", text: said }),
    make("div", { class: "row" }, ...labels.map((label) =>
      make("button", { type: "button", text: label, "aria-pressed": String(pair.decided === label),
        title: about.grades.find((grade) => grade.label === label)?.meaning ?? "no grade",
        click: () => decide(label) }))));
}

function disputeParts(found) {
  if (!found.disagreements.length) return [];
  const open = found.open ? `${found.open} of ${found.disagreements.length} to decide.` : "All are decided.";
  return [
    make("h2", { text: "Disagreements" }),
    make("p", { text: `${open} What is decided counts; an undecided pair has no label.` }),
    ...found.disagreements.map(dispute),
  ];
}

function showResults(found) {
  at("results").replaceChildren(
    make("h2", { text: "Done, thank you" }),
    make("p", { text: `${found.labelled} of ${found.pairs} pairs have a label that stands, ${found.no_grade} of them no grade.` }),
    make("p", {}, "They are in the folder ", make("code", { text: found.folder }), ". Give it to ",
      make("code", { text: "ssra-engine accept --audit" }), ", and the file judgments.parquet in it to ",
      make("code", { text: "ssra-engine build --judgments" }), "."),
    make("button", { type: "button", text: "Take back my last answer (u)", click: undo }),
    ...agreementParts(found), ...annotatorParts(found), ...disputeParts(found));
  open("results");
}

function enter(name) {
  annotator = name.trim();
  sessionStorage.setItem(NAME, annotator);
  return refresh();
}

at("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  one(() => enter(at("annotator").value));
});

one(async () => {
  about = await ask("about");
  at("simulated").hidden = !about.simulated;
  makeChoices();
  const name = sessionStorage.getItem(NAME);
  if (name) await enter(name);
  else {
    open("who");
    at("annotator").focus();
  }
});

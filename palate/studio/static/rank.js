// Put answers in order: by keys, by buttons, by dragging. The order of the list is the order; the form's select boxes,
// which do the same without scripts, are kept in step and are what is read when it is handed in.
import { ask, covered, say, typing, warn } from "./studio.js";
import { Draft } from "./drafts.js";

const form = document.getElementById("rank");
const list = document.getElementById("answers");
const count = list.children.length;
const names = ["1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th"];
const started = performance.now();
let hidden = 0; // ms in which nobody can have looked
let hiddenSince = document.hidden ? started : null;
let placed = 0; // how many of the first places digits have given
let tieNext = false;
let touched = form.dataset.supersedes !== "";
let warned = false;

const cards = () => [...list.children];
const card = (n) => list.querySelector(`[data-n="${n}"]`);
const isLeft = (one) => one.classList.contains("left");
const isTied = (one) => one.classList.contains("tied");

/** Number on the screen -> competition rank. */
function ranks() {
  const found = {};
  let rank = 0;
  cards().filter((one) => !isLeft(one)).forEach((one, place) => {
    if (!isTied(one) || place === 0) rank = place + 1;
    found[one.dataset.n] = rank;
  });
  return found;
}

function show() {
  const ranked = cards().filter((one) => !isLeft(one));
  const left = cards().filter(isLeft);
  const order = [...ranked, ...left];
  if (order.some((one, place) => list.children[place] !== one)) list.append(...order); // moving takes the focus away
  if (ranked.length) ranked[0].classList.remove("tied");
  left.forEach((one) => one.classList.remove("tied"));
  const given = ranks();
  cards().forEach((one, place) => {
    const rank = given[one.dataset.n];
    const tie = Object.values(given).filter((other) => other === rank).length > 1;
    one.querySelector(".rank-of").textContent = rank ? `${tie ? "=" : ""}${names[rank - 1]}` : "–";
    one.setAttribute("aria-label", `Answer ${one.dataset.n}, ${rank ? `${tie ? "tied " : ""}${names[rank - 1]}` : "not ranked"} of ${count}`);
    one.querySelector(".no-script select").value = rank ?? "";
    one.classList.toggle("placed", place < placed);
    const button = (what) => one.querySelector(`[data-do="${what}"]`);
    button("up").disabled = place === 0 || isLeft(one);
    button("down").disabled = place >= ranked.length - 1;
    button("tie").disabled = place === 0 || isLeft(one);
    button("tie").setAttribute("aria-pressed", String(isTied(one)));
    button("leave").setAttribute("aria-pressed", String(isLeft(one)));
  });
}

function changed(what) {
  touched = true;
  warned = false;
  document.getElementById("untouched").hidden = true;
  show();
  draft.changed();
  if (what) say(what);
}

const told = (one) => one.getAttribute("aria-label");

function moveTo(one, place) {
  const others = cards().filter((other) => other !== one);
  const follower = cards()[cards().indexOf(one) + 1];
  if (follower && !isTied(one)) follower.classList.remove("tied"); // it was tied with the one that goes
  one.classList.remove("left");
  one.classList.toggle("tied", place > 0 && others[place] !== undefined && isTied(others[place])); // among equals
  if (others[place]) others[place].before(one); else list.append(one);
}

function step(one, by) {
  const ranked = cards().filter((other) => !isLeft(other));
  const place = cards().indexOf(one);
  const target = Math.max(0, Math.min(ranked.length - 1, place + by));
  if (isLeft(one) || target === place) return;
  const hadFocus = document.activeElement;
  placed = 0;
  moveTo(one, target);
  changed();
  hadFocus?.focus();
  say(told(one));
}

function press(one, what) {
  if (what === "up") step(one, -1);
  if (what === "down") step(one, 1);
  if (what === "tie") { placed = 0; one.classList.toggle("tied"); changed(); say(told(one)); }
  if (what === "leave") {
    placed = 0;
    const next = cards()[cards().indexOf(one) + 1];
    if (next && !isTied(one)) next.classList.remove("tied");
    one.classList.toggle("left");
    changed();
    one.querySelector('[data-do="leave"]').focus();
    say(told(one));
  }
}

function digit(n) {
  const one = card(n);
  if (!one || covered()) return;
  if (cards().indexOf(one) < placed) return; // it has its place already
  if (placed === 0) cards().forEach((other) => other.classList.remove("tied", "left"));
  moveTo(one, placed);
  if (tieNext && placed > 0) one.classList.add("tied");
  tieNext = false;
  placed += 1;
  changed();
  say(told(one));
}

function restLeft() {
  cards().slice(placed).forEach((one) => one.classList.add("left"));
  changed("The others stay unranked.");
}

function startAgain() {
  placed = 0;
  tieNext = false;
  cards().forEach((one) => one.classList.remove("tied", "left", "placed"));
  changed("Begin again with the best answer.");
}

// --- dragging ---

list.addEventListener("pointerdown", (event) => {
  const handle = event.target.closest(".handle");
  if (!handle || event.button !== 0) return;
  event.preventDefault();
  handle.focus();
  const one = handle.closest(".answer");
  handle.setPointerCapture(event.pointerId);
  one.classList.add("dragged");
  document.body.classList.add("dragging");
  let moved = false;
  let scrolling = 0;
  const middle = (other) => { const box = other.getBoundingClientRect(); return box.top + box.height / 2; };
  const place = (y) => { // the others move around it: what is taken out of the page loses the pointer
    for (let other; (other = one.previousElementSibling) && y < middle(other); moved = true) one.after(other);
    for (let other; (other = one.nextElementSibling) && y > middle(other); moved = true) one.before(other);
  };
  const move = (to) => {
    place(to.clientY);
    cancelAnimationFrame(scrolling);
    const near = to.clientY < 90 ? -12 : to.clientY > innerHeight - 90 ? 12 : 0;
    const scroll = () => { scrollBy(0, near); place(to.clientY); scrolling = requestAnimationFrame(scroll); };
    if (near) scrolling = requestAnimationFrame(scroll);
  };
  const end = () => {
    handle.removeEventListener("pointermove", move);
    cancelAnimationFrame(scrolling);
    one.classList.remove("dragged");
    document.body.classList.remove("dragging");
    if (!moved) return;
    placed = 0;
    const above = one.previousElementSibling;
    const below = one.nextElementSibling;
    one.classList.toggle("tied", above !== null && below !== null && isTied(below));
    one.classList.toggle("left", above !== null && isLeft(above) && (below === null || isLeft(below)));
    changed();
    say(told(one));
  };
  handle.addEventListener("pointermove", move);
  handle.addEventListener("pointerup", end, { once: true });
  handle.addEventListener("pointercancel", end, { once: true });
});

// --- buttons and keys ---

list.addEventListener("click", (event) => {
  const button = event.target.closest("[data-do]");
  if (button) press(button.closest(".answer"), button.dataset.do);
});

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); handIn(); return; }
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  const inside = event.target.closest(".answer");
  const onButton = event.target.closest("button, a, summary, input") !== null;
  if (/^[1-9]$/.test(event.key) && Number(event.key) <= count) { event.preventDefault(); digit(event.key); return; }
  if (inside && (event.key === "ArrowUp" || event.key === "ArrowDown") && !event.target.matches("input")) {
    event.preventDefault();
    step(inside, event.key === "ArrowUp" ? -1 : 1);
    return;
  }
  const commands = {
    "=": () => { tieNext = placed > 0; say("The next one is as good."); },
    "0": restLeft,
    "Backspace": startAgain,
    "r": beginRewrite,
    "c": () => { document.getElementById("unrankable").open = true; form.elements.cannot_rank.focus(); },
    "s": () => document.getElementById("skip")?.click(),
    "u": () => { if (form.dataset.undo) location.href = `/rank/again/${form.dataset.undo}`; },
  };
  if (event.key === "Enter" && !onButton) { event.preventDefault(); handIn(); return; }
  if (Object.hasOwn(commands, event.key)) { event.preventDefault(); commands[event.key](); }
});

function beginRewrite() {
  if (covered()) return;
  const best = cards()[0];
  const of = document.getElementById("rewrite_of");
  const box = document.getElementById("rewrite");
  document.getElementById("rewriting").open = true;
  if (!box.value.trim()) {
    of.value = best.dataset.n;
    box.value = best.querySelector(".text").innerText.trim();
  }
  box.focus();
  draft.changed();
}
document.getElementById("begin-rewrite").addEventListener("click", beginRewrite);

for (const score of list.querySelectorAll(".score")) {
  const anchor = score.querySelector(".anchor");
  const anchors = anchor.dataset.anchors.split("|");
  const tell = () => {
    const value = score.querySelector("input:checked")?.value;
    anchor.textContent = value ? `${value} ${anchors[value - 1]}` : anchor.dataset.none;
  };
  score.addEventListener("change", tell);
  tell();
}

// --- what is kept and what is handed in ---

function read() {
  const data = new FormData(form);
  const flags = {};
  const criteria = {};
  for (const [name] of data) {
    const flag = name.match(/^flag_(\d)_(\w+)$/);
    const score = name.match(/^score_(\d)_(\w+)$/);
    if (flag) (flags[flag[1]] ??= []).push(flag[2]);
    if (score) (criteria[score[1]] ??= {})[score[2]] = Number(data.get(name));
  }
  return {
    order: cards().map((one) => ({ n: one.dataset.n, tied: isTied(one), left: isLeft(one) })),
    touched, flags, criteria,
    rewrite_of: data.get("rewrite_of"), rewrite: data.get("rewrite"), rationale: data.get("rationale"),
    cannot_rank: data.get("cannot_rank"),
  };
}

function write(kept) {
  for (const told of kept.order ?? []) {
    const one = card(told.n);
    if (!one) continue;
    list.append(one);
    one.classList.toggle("tied", told.tied);
    one.classList.toggle("left", told.left);
  }
  touched = kept.touched ?? touched;
  for (const [n, names_] of Object.entries(kept.flags ?? {})) {
    for (const name of names_) { const box = form.elements[`flag_${n}_${name}`]; if (box) box.checked = true; }
  }
  for (const [n, scores] of Object.entries(kept.criteria ?? {})) {
    for (const [name, value] of Object.entries(scores)) { const box = form.elements[`score_${n}_${name}`]; if (box) box.value = String(value); }
    card(n)?.querySelector(".scores")?.setAttribute("open", "");
  }
  for (const name of ["rewrite_of", "rewrite", "rationale", "cannot_rank"]) if (kept[name]) form.elements[name].value = kept[name];
  if (kept.rewrite) document.getElementById("rewriting").open = true;
  if (kept.cannot_rank) document.getElementById("unrankable").open = true;
  if (kept.rationale) document.getElementById("reasoning").open = true;
  list.querySelectorAll(".score").forEach((score) => score.dispatchEvent(new Event("change")));
}

async function send(body) {
  const buttons = [...form.querySelectorAll(".hand-in button")];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const kept = await ask("/api/v1/judgements", { method: "POST", body });
    draft.drop();
    location.href = `/rank?kept=${kept.id}`;
  } catch (error) {
    buttons.forEach((button) => { button.disabled = false; });
    draft.changed();
    if (error.status === 401) warn("Your session has ended. Your order is kept: log in in another tab, then hand it in again.");
    else if (error.status === undefined) warn("The studio does not answer. Your order is kept in this browser; hand it in again in a moment.");
    else warn(error.message);
  }
}

function common() {
  const now = read();
  const seconds = (performance.now() - started - hidden - (hiddenSince === null ? 0 : performance.now() - hiddenSince)) / 1000;
  return {
    lease: form.dataset.lease, supersedes: form.dataset.supersedes || null,
    criteria: now.criteria, flags: now.flags, rationale: now.rationale, touched,
    rewrite_of: now.rewrite.trim() ? now.rewrite_of || null : null, rewrite: now.rewrite.trim() || null,
    seconds: Math.round(seconds * 10) / 10,
  };
}

function handIn() {
  if (covered()) return;
  if (!touched && !warned) {
    warned = true;
    document.getElementById("untouched").hidden = false;
    return;
  }
  send({ ...common(), ranks: ranks() });
}

form.addEventListener("submit", (event) => {
  const what = event.submitter?.value;
  if (what === "skip") { draft.drop(); return; }
  event.preventDefault();
  if (what === "cannot") {
    const reason = form.elements.cannot_rank.value;
    if (!reason) { warn("Say why it cannot be ranked: choose a reason."); form.elements.cannot_rank.focus(); return; }
    send({ ...common(), cannot_rank: reason });
  } else handIn();
});
form.addEventListener("input", () => draft.changed());
document.addEventListener("visibilitychange", () => {
  if (document.hidden) hiddenSince = performance.now();
  else if (hiddenSince !== null) { hidden += performance.now() - hiddenSince; hiddenSince = null; }
});

if (form.dataset.lease) {
  setInterval(() => {
    if (!document.hidden) ask(`/api/v1/rank/${form.dataset.lease}/renew`, { method: "POST" }).catch(() => {});
  }, 5 * 60 * 1000);
}

// --- begin ---

const draft = new Draft(form.dataset.key, read);
form.classList.add("has-script");
form.querySelectorAll(".handle, .rank-of, .moves, #begin-rewrite").forEach((one) => { one.hidden = false; });
const given = cards().filter((one) => one.querySelector(".no-script select").value);
if (given.length) {
  // A judgement that is changed: as it was.
  const rank = (one) => Number(one.querySelector(".no-script select").value) || 99;
  const sorted = cards().sort((a, b) => rank(a) - rank(b));
  sorted.forEach((one, place) => {
    list.append(one);
    one.classList.toggle("left", rank(one) === 99);
    one.classList.toggle("tied", place > 0 && rank(one) !== 99 && rank(one) === rank(sorted[place - 1]));
  });
}
show();
const kept = await draft.restore();
if (kept && !placed && !draft.dirty) { write(kept); show(); say("What you had begun is back."); }
form.dataset.ready = "";

// Talk with models: an answer grows as text while it is made and becomes what the server has cleaned at its end. The
// conversation is a tree that the server keeps; this page shows the one path through it that its person is at.
import { events } from "./stream.js";
import { ask, say, typing, warn } from "./studio.js";
import { Draft } from "./drafts.js";
import { fill } from "./html.js";

const byId = (id) => document.getElementById(id);
const root = byId("chat");
const list = byId("talk");
const message = byId("message");
const judges = root.dataset.judges !== "";
const writes = root.dataset.writes !== "";
const WHOLE = new Set(["whole", "cut"]);
const VERDICTS = { a: "A is better", b: "B is better", t: "Equally good", x: "Both bad" };
const STORED = { a: "a", b: "b", t: "tie", x: "both_bad" };

let talk = { id: root.dataset.id, at: "", turns: [] };
let running = false;
let editing = ""; // the turn that is being edited or rewritten
let shownSince = 0; // when the two answers that wait for a choice were there
let problem = null; // what went wrong with the last question
let draft = draftOf();

/** What is being written, kept with the conversation it is for. */
function draftOf() {
  return new Draft(`chat:${talk.id || "new"}`, () => ({ text: message.value }));
}

// --- the tree ---

const turnOf = (id) => talk.turns.find((turn) => turn.id === id);
const isAnswer = (turn) => turn.role !== "user";
const siblings = (turn) => talk.turns.filter((other) => other.parent === turn.parent && isAnswer(other) === isAnswer(turn));
const waits = (turn) => turn?.role === "duel" && turn.verdict === null;
const whole = (turn) => (turn.role === "duel" ? WHOLE.has(turn.a.state) && WHOLE.has(turn.b.state) : WHOLE.has(turn.state));

function path() {
  const found = [];
  for (let turn = turnOf(talk.at); turn; turn = turnOf(turn.parent)) found.unshift(turn);
  return found;
}

function leafOf(turn) {
  for (;;) {
    const next = talk.turns.findLast((other) => other.parent === turn.id);
    if (!next) return turn;
    turn = next;
  }
}

function answerText(turn) {
  if (turn.role !== "duel") return turn.text;
  return turn.kept ? turn[turn.kept].text : "";
}

// --- elements ---

function make(tag, { text, on, ...attributes } = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === undefined || value === null) continue;
    made.setAttribute(name === "className" ? "class" : name, value === true ? "" : value);
  }
  if (text !== undefined) made.textContent = text;
  if (on) made.addEventListener("click", on);
  made.append(...children.filter(Boolean));
  return made;
}

const small = (text, on, more = {}) => make("button", { type: "button", className: "tool", text, on, ...more });

function pager(turn) {
  const all = siblings(turn);
  if (all.length < 2) return null;
  const at = all.indexOf(turn);
  const what = turn.role === "user" ? "version" : "answer";
  return make("span", { className: "pager", role: "group", "aria-label": `${at + 1} of ${all.length} ${what}s` },
    make("button", { type: "button", className: "plain", disabled: at === 0, title: `The ${what} before`, on: () => go(all[at - 1]) },
      make("span", { "aria-hidden": "true", text: "‹" }), make("span", { className: "aside", text: `The ${what} before` })),
    make("span", { text: `${at + 1} of ${all.length}` }),
    make("button", { type: "button", className: "plain", disabled: at === all.length - 1, title: `The next ${what}`, on: () => go(all[at + 1]) },
      make("span", { "aria-hidden": "true", text: "›" }), make("span", { className: "aside", text: `The next ${what}` })));
}

function stateOf(state) {
  if (state === "stopped") return make("span", { className: "badge", text: "stopped" });
  if (state === "cut") return make("span", { className: "badge", text: "ran out of room", title: "The model reads and writes only so much" });
  return null;
}

function userTurn(turn) {
  const item = make("li", { className: "said user", id: `t-${turn.id}`, tabindex: "-1" }, make("p", { className: "role", text: "You" }));
  if (editing === turn.id) item.append(questionEditor(turn));
  else {
    item.append(make("div", { className: "prose plain", text: turn.text }));
    item.append(make("div", { className: "tools-of" }, pager(turn), small("Edit", () => edit(turn.id), { disabled: running })));
  }
  return item;
}

function assistantTurn(turn) {
  const item = make("li", { className: "said assistant", id: `t-${turn.id}`, tabindex: "-1" });
  const question = turnOf(turn.parent);
  const best = question.preferred === turn.id;
  item.append(make("p", { className: "role" },
    make("span", { text: turn.by_person ? "Written by you" : turn.model }), stateOf(turn.state),
    best ? make("span", { className: "badge good", text: "the best one" }) : null));
  if (editing === turn.id) { item.append(rewriteEditor(turn)); return item; }
  const body = make("div", { className: "prose" });
  fill(body, turn.html);
  item.append(body, answerTools(turn, best));
  return item;
}

function answerTools(turn, best) {
  const others = siblings(turn).filter((one) => one.role === "assistant" && one.id !== turn.id && WHOLE.has(one.state) && one.text !== turn.text);
  const tools = make("div", { className: "tools-of" }, pager(turn),
    small("Ask again", () => again(turn.parent), { disabled: running, title: turn === path().at(-1) ? "Ask again (r)" : "Ask again" }),
    small("Copy", () => copy(answerText(turn))));
  const comparable = judges && turn.role === "assistant" && others.length > 0 && WHOLE.has(turn.state);
  if (comparable) {
    tools.append(small(others.length === 1 ? "Better than the other" : "Better than the others", () => prefer(turn), { "aria-pressed": String(best), disabled: best }));
  }
  if (judges && whole(turn)) tools.append(small("Write what it should have said", () => edit(turn.id), { disabled: running }));
  if (judges && writes) tools.append(small("Use as an example", () => improve(turn, answerText(turn), true), { disabled: running, title: "Begin a demonstration with this conversation" }));
  return tools;
}

function duelTurn(turn) {
  const item = make("li", { className: "said duel", id: `t-${turn.id}`, tabindex: "-1" });
  const both = make("div", { className: "both" });
  for (const slot of ["a", "b"]) {
    const side = turn[slot];
    const letter = slot.toUpperCase();
    const body = make("div", { className: "prose" });
    fill(body, side.html);
    const won = turn.verdict === slot;
    both.append(make("section", { className: `one-of-two${won ? " won" : ""}`, "aria-label": `Answer ${letter}` },
      make("p", { className: "role" }, make("span", { text: `Answer ${letter}` }),
        turn.names ? make("span", { className: "name", text: turn.names[slot] }) : null, stateOf(side.state),
        won ? make("span", { className: "badge good", text: "better" }) : null,
        turn.verdict && turn.kept === slot && !won ? make("span", { className: "badge", text: "goes on" }) : null),
      body));
  }
  item.append(both);
  if (editing === turn.id) item.append(rewriteEditor(turn));
  else item.append(waits(turn) ? voteBar(turn) : verdictOf(turn));
  return item;
}

function voteBar(turn) {
  if (!whole(turn)) {
    return make("div", { className: "vote" }, make("p", { className: "note", text: "It was stopped, so nobody can tell which is better." }),
      make("div", { className: "row" }, pager(turn), make("button", { type: "button", className: "button", text: "Ask both again", on: () => again(turn.parent), disabled: running })));
  }
  const same = turn.a.text === turn.b.text;
  const bar = make("div", { className: "vote", role: "group", "aria-label": "Which answer is better?", tabindex: "-1", id: "vote" });
  const row = make("div", { className: "row" });
  for (const [key, words] of Object.entries(VERDICTS)) {
    if (same && (key === "a" || key === "b")) continue;
    row.append(make("button", { type: "button", className: "button", on: () => vote(turn, key), title: `${words} (${key})` },
      make("span", { text: words }), make("kbd", { text: key, "aria-hidden": "true" })));
  }
  bar.append(make("p", { className: "vote-name", text: same ? "Both gave the same answer." : "Which answer is better?" }), row,
    make("div", { className: "row why" }, make("label", { for: "why", text: "Why?" }),
      make("input", { type: "text", id: "why", maxlength: "5000", placeholder: "If you want to say it, before you choose.", autocomplete: "off" })),
    make("div", { className: "tools-of" }, pager(turn), small("Ask both again", () => again(turn.parent), { disabled: running })));
  return bar;
}

function verdictOf(turn) {
  const words = { a: "You found A better.", b: "You found B better.", tie: "You found both equally good.", both_bad: "You found both bad." }[turn.verdict];
  const on = turn.verdict === "tie" || turn.verdict === "both_bad" ? ` The conversation goes on with ${turn.kept.toUpperCase()}, by chance.` : "";
  return make("div", { className: "told" }, make("p", { className: "note", text: `${words} A was ${turn.names.a}, B was ${turn.names.b}.${on} Stored as a judgement.` }), answerTools(turn, false));
}

function editor(label, text, key, buttons, more = []) {
  const id = `edit-${key}`;
  const area = make("textarea", { id, rows: String(Math.min(16, Math.max(3, text.split("\n").length + Math.ceil(text.length / 70)))), maxlength: "8000" });
  area.value = text;
  return { area, box: make("div", { className: "stack editor" }, make("label", { for: id, text: label }), area, ...more, make("div", { className: "row" }, ...buttons)) };
}

function questionEditor(turn) {
  const done = () => { const text = area.value.trim(); if (text) { editing = ""; speak({ text, parent: turn.parent }); } };
  const { area, box } = editor("Your message, changed", turn.text, turn.id, [
    make("button", { type: "button", className: "button first small", text: "Ask this instead", on: done }),
    make("button", { type: "button", className: "button small", text: "Cancel", on: () => edit("") }),
  ]);
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); done(); }
    if (event.key === "Escape") { event.stopPropagation(); edit(""); }
  });
  return box;
}

function rewriteEditor(turn) {
  const box = make("input", { type: "checkbox", id: "also" });
  const more = writes ? [make("label", { className: "check" }, box, " Also begin an example with it, for the model to imitate")] : [];
  const keep = () => improve(turn, area.value.trim(), box.checked);
  const { area, box: whole_ } = editor("What it should have said", answerText(turn), turn.id, [
    make("button", { type: "button", className: "button first small", text: "Keep it as the better answer", on: keep }),
    make("button", { type: "button", className: "button small", text: "Cancel", on: () => { draft.drop(); ask(`/api/v1/drafts/${draft.key}`, { method: "DELETE" }).catch(() => {}); edit(""); } }),
  ], more);
  area.setAttribute("maxlength", "50000");
  const draft = new Draft(`chat-rewrite:${turn.id}`, () => ({ text: area.value }));
  draft.restore().then((kept) => { if (kept?.text && area.value === answerText(turn)) area.value = kept.text; });
  area.addEventListener("input", () => draft.changed());
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); keep(); }
    if (event.key === "Escape") { event.stopPropagation(); edit(""); }
  });
  area.draft = draft;
  return whole_;
}

function show() {
  const shown = path();
  const items = shown.map((turn) => (turn.role === "user" ? userTurn(turn) : turn.role === "duel" ? duelTurn(turn) : assistantTurn(turn)));
  const last = shown.at(-1);
  if (!running && last?.role === "user") {
    items.push(make("li", { className: "said missing" },
      make("p", { className: problem ? "warning" : "note", text: problem ?? "This has no answer yet: it was cut off before one began." }),
      make("div", { className: "row" }, make("button", { type: "button", className: "button small", text: "Ask again", on: () => again(last.id) }))));
  }
  list.replaceChildren(...items);
  byId("empty").hidden = shown.length > 0;
  const choose = !running && waits(last);
  if (choose && !shownSince) shownSince = performance.now();
  if (!choose) shownSince = 0;
  byId("send").hidden = running;
  byId("stop").hidden = !running;
  byId("composer").hidden = choose || editing !== ""; // one thing at a time, and nobody goes on before choosing
}

// --- what people do ---

function go(turn) {
  talk.at = leafOf(turn).id;
  show();
  byId(`t-${turn.id}`)?.focus();
  const all = siblings(turn);
  say(`${all.indexOf(turn) + 1} of ${all.length}`);
  ask("/api/v1/chat/at", { method: "PUT", body: { conversation: talk.id, turn: talk.at } }).catch(() => { /* only where one comes back to */ });
}

function edit(id) {
  if (running) return;
  editing = id;
  show();
  if (id) { const area = byId(`edit-${id}`); area.focus(); area.setSelectionRange(area.value.length, area.value.length); }
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); say("Copied."); } catch { warn("The browser does not let this page copy. Select the text and press Ctrl C."); }
}

const again = (question) => speak({ text: null, parent: question });

async function vote(turn, key) {
  if (running || !waits(turn) || !whole(turn)) return;
  const seconds = shownSince ? (performance.now() - shownSince) / 1000 : null;
  try {
    const told = await ask("/api/v1/chat/vote", { method: "POST", body: { conversation: talk.id, turn: turn.id, verdict: STORED[key], reason: byId("why")?.value ?? "", seconds } });
    talk.turns[talk.turns.indexOf(turn)] = told;
    warn("");
    show();
    say(`Stored. A was ${told.names.a}, B was ${told.names.b}.`);
    message.focus();
  } catch (error) { warn(error.status ? error.message : "The studio does not answer. Nothing was stored; choose again when it is back."); }
}

async function prefer(turn) {
  try {
    const question = await ask("/api/v1/chat/prefer", { method: "POST", body: { conversation: talk.id, turn: turn.id } });
    talk.turns[talk.turns.findIndex((one) => one.id === question.id)] = question;
    warn("");
    show();
    byId(`t-${turn.id}`)?.focus();
    say("Stored: this answer is better.");
  } catch (error) { warn(error.message); }
}

async function improve(turn, text, example) {
  if (!text) { warn("There is nothing in it. Write what the model should have said."); return; }
  const area = byId(`edit-${turn.id}`);
  try {
    const told = await ask("/api/v1/chat/improve", { method: "POST", body: { conversation: talk.id, turn: turn.id, text, example } });
    if (area?.draft) { area.draft.drop(); ask(`/api/v1/drafts/${area.draft.key}`, { method: "DELETE" }).catch(() => {}); }
    talk = told.conversation;
    editing = "";
    warn("");
    show();
    if (told.example) { location.href = told.example; return; }
    byId(`t-${talk.at}`)?.focus();
    say("Stored: what you wrote is better than what the model said.");
  } catch (error) { warn(error.status ? error.message : "The studio does not answer. What you wrote stays here; keep it when the studio is back."); }
}

// --- asking ---

const kind = () => document.querySelector('[name="kind"]:checked')?.value ?? "one";

function asked() {
  const temperature = Math.min(2, Math.max(0, Number(byId("temperature").value) || 0));
  if (kind() === "one") return { blind: false, models: [byId("model").value], temperature };
  const two = [byId("first").value, byId("second").value];
  return { blind: true, models: two.every(Boolean) ? two : [], temperature };
}

async function speak({ text, parent }) {
  if (running) return;
  const how = asked();
  if (how.blind && how.models.length === 2 && how.models[0] === how.models[1]) { warn("Two different models, please."); return; }
  running = true;
  problem = null;
  editing = "";
  warn("");
  const before = { at: talk.at, written: message.value };
  let live = null;
  try {
    if (!talk.id) {
      talk = { ...await ask("/api/v1/chat/conversations", { method: "POST", body: { system: byId("system").value } }), turns: [] };
      history.replaceState(null, "", `/chat/${talk.id}`);
      byId("system").readOnly = true;
      draft.drop(); // the server forgets it with the question
      draft = draftOf();
    }
    const response = await fetch("/api/v1/chat/say", {
      method: "POST", headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify({ conversation: talk.id, parent, text, ...how }),
    });
    if (!response.ok) {
      const told = await response.json().catch(() => ({}));
      throw Object.assign(new Error(told.detail ?? `The studio answered ${response.status}.`), { status: response.status });
    }
    let finished = false;
    for await (const event of events(response.body)) {
      if (event.question) {
        if (text !== null) {
          talk.turns.push({ id: event.question, parent, role: "user", text, preferred: "" });
          if (message.value === before.written && message.value.trim() === text) { message.value = ""; grow(); }
          draft.drop();
        }
        talk.at = event.question;
        show();
        live = liveAnswer(how.blind);
        list.append(live.item);
        live.item.scrollIntoView({ block: "nearest" });
        say(how.blind ? "Both models are answering." : "The model is answering.");
      } else if (event.waiting) live.note(event.waiting === 1 ? "Somebody else is being answered. You are next." : `${event.waiting} others are answered first.`);
      else if (event.turn) { talk.turns.push(event.turn); talk.at = event.turn.id; finished = true; }
      else if (event.error) problem = event.error;
      else live.add(event);
    }
    running = false;
    if (!finished && !problem) await load();
    show();
    answered();
    if (text !== null && talk.turns.filter((turn) => turn.role === "user").length === 1) listThis(text);
  } catch (error) {
    running = false;
    if (message.value) draft.changed();
    if (error.status) {
      talk.at = before.at;
      show();
      warn(error.message);
    } else await recover();
  }
}

/** Where an answer appears while it is made: as text, whatever is in it. */
function liveAnswer(blind) {
  const bodies = {};
  const one = (slot, name) => {
    bodies[slot] = make("div", { className: "prose plain growing" });
    return [make("p", { className: "role", text: name }), bodies[slot]];
  };
  const note = make("p", { className: "note", text: blind ? "Two models are thinking…" : "…" });
  const item = make("li", { className: `said ${blind ? "duel" : "assistant"} live`, "aria-busy": "true" });
  if (blind) {
    item.append(make("div", { className: "both" }, make("section", { className: "one-of-two" }, ...one("a", "Answer A")), make("section", { className: "one-of-two" }, ...one("b", "Answer B"))), note);
  } else item.append(...one("text", byId("model").value), note);
  return {
    item,
    note: (words) => { note.hidden = false; note.textContent = words; },
    add: (event) => {
      note.hidden = true;
      const bottom = document.documentElement.scrollHeight - innerHeight - scrollY < 80;
      for (const [slot, piece] of Object.entries(event)) bodies[slot]?.append(piece);
      if (bottom) scrollTo(0, document.documentElement.scrollHeight);
    },
  };
}

function answered() {
  const last = path().at(-1);
  if (!last || last.role === "user") { if (problem) say(problem); return; }
  byId(`t-${last.id}`).scrollIntoView({ block: "nearest" });
  if (last.role === "duel") {
    const bar = byId("vote");
    if (bar) { bar.focus({ preventScroll: true }); bar.scrollIntoView({ block: "nearest" }); }
    say(`Both answers are there. A: ${last.a.text} B: ${last.b.text}`.slice(0, 2000));
  } else say(`${last.model}: ${last.text}`.slice(0, 2000));
}

async function load() {
  talk = await ask(`/api/v1/chat/conversations/${talk.id}`);
}

/** The studio is gone, or the way to it: what it kept is shown when it is back. */
async function recover() {
  warn("The studio does not answer. What was said before is kept; this goes on when it is back.");
  message.focus();
  for (;;) {
    await new Promise((done) => { setTimeout(done, 2000); });
    try { if (talk.id) await load(); break; } catch (error) { if (error.status) { warn(error.message); return; } }
  }
  warn("");
  show();
}

function listThis(text) {
  const link = make("a", { href: `/chat/${talk.id}`, text: text.split(/\s+/).join(" ").slice(0, 60), "aria-current": "page" });
  byId("past-list").prepend(make("li", {}, link));
  byId("past").hidden = false;
}

// --- the form ---

function showKind() {
  const two = kind() === "two";
  document.querySelector(".of-one").hidden = two;
  const names = document.querySelector(".of-two");
  if (names) names.hidden = !two;
  byId("lead-one").hidden = two;
  byId("lead-two").hidden = !two;
  root.classList.toggle("two", two);
}
for (const radio of document.querySelectorAll('[name="kind"]')) radio.addEventListener("change", showKind);
showKind();

function grow() {
  message.style.height = "auto";
  message.style.height = `${Math.min(message.scrollHeight + 2, innerHeight * 0.4)}px`;
}

function send() {
  const text = message.value.trim();
  const last = path().at(-1);
  if (!text || running) return;
  if (waits(last)) return;
  if (last?.role === "user") { speak({ text, parent: last.parent }); return; } // what has no answer is replaced
  speak({ text, parent: last?.id ?? "" });
}

const stop = () => ask("/api/v1/chat/stop", { method: "POST" }).catch(() => { /* it ends with the connection */ });

byId("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("setting").addEventListener("submit", (event) => event.preventDefault());
byId("stop").addEventListener("click", stop);
message.addEventListener("input", () => { grow(); draft.changed(); warn(""); });
message.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && running) { event.preventDefault(); stop(); return; }
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  const last = path().at(-1);
  const key = event.key.toLowerCase();
  if (event.key === "/") { event.preventDefault(); message.focus(); }
  else if (key === "n") location.href = "/chat";
  else if (running || !last) return;
  else if (key in VERDICTS && waits(last)) { event.preventDefault(); vote(last, key); }
  else if (key === "r") { event.preventDefault(); again(last.role === "user" ? last.id : last.parent); }
  else if (key === "e") { event.preventDefault(); edit(path().findLast((turn) => turn.role === "user").id); }
  else if ((event.key === "ArrowLeft" || event.key === "ArrowRight") && isAnswer(last) && event.target.type !== "radio") {
    const all = siblings(last);
    const next = all[all.indexOf(last) + (event.key === "ArrowLeft" ? -1 : 1)];
    if (next) { event.preventDefault(); go(next); }
  }
});

// --- coming in ---

const wide = matchMedia("(min-width: 66rem)");
const unfold = () => { byId("past").open = wide.matches; };
wide.addEventListener("change", unfold);
unfold();

if (talk.id) {
  await load().catch((error) => warn(error.message));
  show();
  if (path().at(-1)?.role === "user") setTimeout(() => { if (!running) load().then(show, () => {}); }, 1000); // it may just be being kept
  list.lastElementChild?.scrollIntoView({ block: "end" });
} else show();
const kept = await draft.restore().catch(() => null);
if (kept?.text && !message.value) { message.value = kept.text; grow(); }
message.focus({ preventScroll: true });
root.dataset.ready = "";

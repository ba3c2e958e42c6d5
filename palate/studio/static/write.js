// Write an example: turns are added, moved and removed on the page, everything is kept as it is typed, and beside it
// stands what is like it and how it reads. On the list of one's own it finds what only this browser has.
import { ask, say, typing, warn } from "./studio.js";
import { Draft } from "./drafts.js";
import { fill } from "./html.js";
import { events } from "./stream.js";

const byId = (id) => document.getElementById(id);
const words = (text) => text.normalize("NFKC").toLowerCase().match(/[\p{L}\p{N}_]+/gu) ?? [];

if (byId("writing")) list();
if (byId("compose")) await compose(byId("compose"));

// --- the list ---

function list() {
  document.addEventListener("keydown", (event) => {
    if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "n") { event.preventDefault(); byId("new").click(); }
  });
  const known = new Set([...document.querySelectorAll("#begun a")].map((link) => link.getAttribute("href")));
  const prefix = `palate:draft:${document.body.dataset.account}:write:`;
  const here = byId("kept-here");
  const found = [];
  try {
    for (let i = 0; i < localStorage.length; i += 1) {
      const key = localStorage.key(i);
      if (key.startsWith(prefix)) found.push(JSON.parse(localStorage.getItem(key)).content);
    }
  } catch { /* a browser that keeps nothing */ }
  for (const content of found) {
    const text = content.exchanges?.flatMap((one) => [one.ask, one.answer]).find((one) => one.trim());
    const address = addressOf(content);
    if (!text || known.has(address)) continue;
    const row = document.createElement("li");
    row.className = "card row between";
    const told = Object.assign(document.createElement("p"), { className: "one-line grow", textContent: text });
    const link = Object.assign(document.createElement("a"), { className: "button small", href: address, textContent: "Go on" });
    row.append(told, link);
    here.querySelector("ul").append(row);
    here.hidden = false;
  }
}

function addressOf(content) {
  if (content.supersedes) return `/write/${encodeURIComponent(content.supersedes)}`;
  if (content.prompt) return `/write/new?prompt=${encodeURIComponent(content.prompt)}`;
  return content.slot > 1 ? `/write/new?slot=${content.slot}` : "/write/new";
}

// --- the form ---

async function compose(form) {
  const turns = byId("exchanges");
  const field = (name) => form.elements[name];
  const exchanges = () => [...turns.children];
  const part = (one, name) => one.querySelector(`[data-part="${name}"]`);
  let model = null; // what stops a model that drafts
  let instead = null; // what a person wrote where its draft stands; null where that was drafted, too
  let began = false;

  function read() {
    const content = {
      token: field("token").value, system: field("system").value, skill: field("skill").value,
      exchanges: exchanges().map((one) => ({ ask: part(one, "ask").value, answer: part(one, "answer").value })),
      supersedes: field("supersedes").value, prompt: field("prompt").value, slot: Number(field("slot").value),
    };
    const anything = content.system.trim() || content.exchanges.some((one) => one.ask.trim() || one.answer.trim());
    began ||= Boolean(anything);
    return began ? content : null;
  }

  const draft = new Draft(form.dataset.key, read);

  /** The conversation as it stands; an empty answer at the end is none. */
  function messages() {
    const found = [];
    if (field("system").value.trim()) found.push({ role: "system", content: field("system").value });
    for (const one of exchanges()) {
      found.push({ role: "user", content: part(one, "ask").value }, { role: "assistant", content: part(one, "answer").value });
    }
    if (found.length && !found.at(-1).content.trim()) found.pop();
    return found;
  }

  function renumber() {
    exchanges().forEach((one, place) => {
      const n = place + 1;
      one.dataset.n = n;
      one.querySelector(".n").textContent = n;
      for (const name of ["ask", "answer"]) {
        const box = part(one, name);
        one.querySelector(`label[for="${box.id}"]`).htmlFor = `${name}_${n}`;
        if (name === "answer") one.querySelector("[data-words]").htmlFor = `${name}_${n}`;
        box.id = box.name = `${name}_${n}`;
      }
      for (const button of one.querySelectorAll("[data-do]")) {
        button.value = `${button.dataset.do}-${n}`;
        button.querySelector(".aside").textContent =
          { up: `Turn ${n} earlier`, down: `Turn ${n} later`, remove: `Remove turn ${n}` }[button.dataset.do];
      }
    });
    turns.className = exchanges().length > 1 ? "several" : "one";
    byId("add").disabled = exchanges().length >= 50;
    count();
  }

  function count() {
    for (const one of exchanges()) {
      const told = one.querySelector("[data-words]");
      const n = words(part(one, "answer").value).length;
      told.textContent = `${n.toLocaleString("en")} ${n === 1 ? "word" : "words"}`;
      told.hidden = n === 0;
    }
    const text = byId("drafted").dataset.draft;
    if (!byId("drafted").hidden && text) {
      const now = part(exchanges().at(-1), "answer").value;
      const share = Math.min(...exchanges().map((one) => changed(text, part(one, "answer").value)));
      byId("drafted").querySelector("[data-changed]").textContent = `${Math.round(100 * share)} % of its words are changed. The mark stays.`;
      const undraft = byId("undraft");
      if (undraft) undraft.hidden = now !== text || instead === null;
    }
  }

  /** The share of words that are not in both (palate/studio/desk.py). */
  function changed(one, other) {
    const left = new Map();
    const [a, b] = [words(one), words(other)];
    for (const word of a) left.set(word, (left.get(word) ?? 0) + 1);
    let shared = 0;
    for (const word of b) if (left.get(word)) { left.set(word, left.get(word) - 1); shared += 1; }
    return 1 - (2 * shared) / Math.max(a.length + b.length, 1);
  }

  function write(kept) {
    field("token").value = kept.token || field("token").value;
    field("system").value = kept.system ?? "";
    field("skill").value = kept.skill ?? "";
    if (kept.system) form.querySelector(".system").open = true;
    const told = kept.exchanges?.length ? kept.exchanges : [{ ask: "", answer: "" }];
    while (exchanges().length > told.length) exchanges().at(-1).remove();
    while (exchanges().length < told.length) turns.append(fresh());
    exchanges().forEach((one, place) => {
      part(one, "ask").value = told[place].ask;
      part(one, "answer").value = told[place].answer;
    });
    renumber();
  }

  const fresh = () => byId("exchange").content.firstElementChild.cloneNode(true);

  function touched() {
    count();
    draft.changed();
    byId("saved").textContent = "";
    later();
  }

  function add() {
    if (byId("add").disabled) return;
    turns.append(fresh());
    renumber();
    part(exchanges().at(-1), "ask").focus();
    say(`Turn ${exchanges().length} added.`);
    touched();
  }

  function arrange(one, what) {
    const place = exchanges().indexOf(one);
    if (what === "up" && place > 0) exchanges()[place - 1].before(one);
    if (what === "down" && place < exchanges().length - 1) exchanges()[place + 1].after(one);
    if (what === "remove" && exchanges().length > 1) {
      const next = exchanges()[place + 1] ?? exchanges()[place - 1];
      one.remove();
      renumber();
      part(next, "ask").focus();
      say(`Turn ${place + 1} removed.`);
    } else {
      renumber();
      const button = one.querySelector(`[data-do="${what}"]`);
      (getComputedStyle(button).visibility === "hidden" ? part(one, "ask") : button).focus();
      say(`Now turn ${one.dataset.n} of ${exchanges().length}.`);
    }
    touched();
  }

  // --- what is like it, and how it reads ---

  let timer = 0;
  let asked = 0;
  function later() {
    clearTimeout(timer);
    timer = setTimeout(look, 700);
  }

  async function look() {
    const now = messages();
    const turn = (asked += 1);
    const body = { messages: now, supersedes: form.dataset.supersedes || null };
    try {
      const [hints, html] = await Promise.all([
        now.length ? ask("/api/v1/demonstrations/alike", { method: "POST", body }) : { same: null, near: [] },
        ask("/api/v1/demonstrations/preview", { method: "POST", body: { texts: now.map((one) => one.content) } }),
      ]);
      if (turn !== asked) return;
      showHints(hints);
      showPreview(now, html);
    } catch { /* the draft says when the studio does not answer */ }
  }

  function element(tag, className, textContent) {
    return Object.assign(document.createElement(tag), { className, textContent });
  }

  let told = "";
  function showHints({ same, near }) {
    const told_ = JSON.stringify([same, near]);
    if (told_ === told) return; // what is said again is read out again
    told = told_;
    const rows = near.map((hint) => {
      const row = element("li", "card", "");
      const share = Math.round(100 * Math.max(hint.asked, hint.answered));
      const why = hint.id === same ? "the same, word for word: it will be refused"
        : `${hint.asked >= hint.answered ? "asks" : "answers"} nearly the same (${share} %)`;
      const link = Object.assign(element("a", "", hint.prompt), { href: `/write/${encodeURIComponent(hint.id)}`, target: "_blank" });
      const line = element("p", "one-line", "");
      line.append(link);
      row.append(element("p", "note", why), line, element("p", "one-line quiet", hint.answer));
      return row;
    });
    byId("alike").querySelector("ul").replaceChildren(...rows);
    byId("alike").hidden = !rows.length;
  }

  function showPreview(now, html) {
    const names = { user: "Prompt", assistant: "Answer", system: "System" };
    const rows = now.map((one, place) => {
      const row = element("div", `turn ${one.role}`, "");
      const prose = element("div", "prose", "");
      fill(prose, html[place]);
      row.append(element("p", "role", names[one.role]), prose);
      return row;
    }).filter((row) => row.lastElementChild.childElementCount);
    byId("preview").querySelector(".turns").replaceChildren(...rows);
    byId("preview").hidden = !rows.length;
  }

  // --- a model drafts ---

  async function letDraft() {
    if (model) { model.abort(); return; }
    const box = part(exchanges().at(-1), "answer");
    const before = messages();
    if (before.at(-1)?.role === "assistant") before.pop();
    if (before.at(-1)?.role !== "user" || !before.at(-1).content.trim()) {
      warn("Write what is asked first; then a model can draft the answer.");
      part(exchanges().at(-1), "ask").focus();
      return;
    }
    warn("");
    model = new AbortController();
    const stood = box.value;
    instead = byId("drafted").hidden ? stood : null;
    box.value = "";
    box.readOnly = true;
    box.classList.add("writes");
    byId("draft").textContent = "Stop";
    say("A model is writing.");
    try {
      await stream({ messages: before, token: field("token").value }, (piece) => { box.value += piece; count(); });
      say("The model has finished.");
    } catch (error) {
      if (error.name !== "AbortError") {
        warn(error.status === undefined && !error.told ? "The studio does not answer. No draft came." : error.message);
        if (!box.value) box.value = stood;
      }
    }
    model = null;
    box.readOnly = false;
    box.classList.remove("writes");
    byId("draft").textContent = "Let a model draft this answer";
    if (box.value && box.value !== stood) {
      byId("drafted").dataset.draft = box.value;
      byId("drafted").hidden = false;
    }
    box.focus();
    touched();
  }

  async function stream(body, piece) {
    const response = await fetch("/api/v1/demonstrations/draft", {
      method: "POST", headers: { "content-type": "application/json", accept: "text/event-stream" },
      body: JSON.stringify(body), signal: model.signal,
    });
    if (!response.ok) {
      const said = await response.json().catch(() => ({}));
      throw Object.assign(new Error(said.detail ?? `The studio answered ${response.status}.`), { status: response.status });
    }
    for await (const told of events(response.body)) {
      if (told.error) throw Object.assign(new Error(told.error), { told: true });
      if (told.waiting) say(`Waiting for the model: ${told.waiting} ${told.waiting === 1 ? "comes" : "come"} first.`);
      if (told.text) piece(told.text);
    }
  }

  byId("undraft")?.addEventListener("click", async () => {
    await ask(`/api/v1/demonstrations/draft/${field("token").value}`, { method: "DELETE" }).catch(() => {});
    part(exchanges().at(-1), "answer").value = instead ?? "";
    byId("drafted").hidden = true;
    byId("drafted").dataset.draft = "";
    byId("undraft").hidden = true;
    part(exchanges().at(-1), "answer").focus();
    touched();
  });

  // --- handing in ---

  async function send(path, body, kept) {
    const buttons = [...form.querySelectorAll(".hand-in button")];
    buttons.forEach((button) => { button.disabled = true; });
    try {
      const stored = await ask(path, { method: "POST", body });
      draft.drop();
      await ask(`/api/v1/drafts/${form.dataset.key}`, { method: "DELETE" }).catch(() => {});
      location.href = `/write?kept=${kept ?? encodeURIComponent(stored.id)}`;
    } catch (error) {
      buttons.forEach((button) => { button.disabled = false; });
      draft.changed();
      if (error.status === 401) warn("Your session has ended. What you wrote is kept: log in in another tab, then hand it in again.");
      else if (error.status === undefined) warn("The studio does not answer. What you wrote is kept in this browser; hand it in again in a moment.");
      else if (error.status === 409) { warn("The same is there already, word for word. It stands under “Like this one”."); told = ""; look(); }
      else warn(error.message);
    }
  }

  function handIn() {
    if (model) return;
    warn("");
    const empty = [...form.querySelectorAll("#exchanges textarea")].find((box) => !box.value.trim());
    if (empty) {
      warn(empty.dataset.part === "ask" ? "Write what is asked." : "Write the answer, or keep the prompt only.");
      empty.focus();
      return;
    }
    send("/api/v1/demonstrations", {
      messages: messages(), skill: field("skill").value, token: field("token").value,
      supersedes: form.dataset.supersedes || null,
    });
  }

  let sure = false;
  async function discard(button) {
    if (read() !== null && !sure) {
      sure = true;
      button.textContent = "For good?";
      say("Press it again to throw it away for good.");
      return;
    }
    draft.drop();
    await ask(`/api/v1/drafts/${form.dataset.key}`, { method: "DELETE" }).catch(() => {});
    await ask(`/api/v1/demonstrations/draft/${field("token").value}`, { method: "DELETE" }).catch(() => {});
    location.href = "/write";
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const button = event.submitter;
    const [what] = (button?.value ?? "").split("-");
    if (["up", "down", "remove"].includes(what)) arrange(button.closest(".exchange"), what);
    else if (what === "add") add();
    else if (what === "draft") letDraft();
    else if (what === "hand") handIn();
    else if (what === "prompt") {
      const asks = messages();
      if (asks.at(-1)?.role === "assistant") { warn("It has an answer. Hand it in, or empty the last answer to keep the prompt only."); return; }
      send("/api/v1/prompts", { messages: asks, skill: field("skill").value }, "prompt");
    } else if (what === "discard") discard(button);
  });
  form.addEventListener("input", touched);
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); handIn(); }
    if (event.key === "F1") { event.preventDefault(); byId("to-guidelines").click(); }
    if (event.altKey && (event.key === "+" || event.key === "=")) { event.preventDefault(); add(); }
  });

  // --- begin ---

  form.classList.add("has-script");
  renumber();
  const kept = await draft.restore();
  if (kept && !draft.dirty) {
    began = true;
    const now = read();
    if (JSON.stringify({ ...now, ...kept }) !== JSON.stringify(now)) { write(kept); say("What you had begun is back."); }
  }
  if (messages().length) look();
  if (!matchMedia("(hover: none)").matches && !kept) {
    const empty = [...form.querySelectorAll("#exchanges textarea")].find((box) => !box.value);
    empty?.focus();
  }
  form.dataset.ready = "";
}

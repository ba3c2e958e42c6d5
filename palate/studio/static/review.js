// Look at what somebody wrote, by keys. A comment that is not said yet is kept.
import { ask, covered, say, typing, warn } from "./studio.js";
import { Draft } from "./drafts.js";

const form = document.getElementById("review");
const byId = (id) => document.getElementById(id);
const boxes = () => [...form.querySelectorAll("#mending textarea")];
const as = boxes().map((box) => box.value);
let saying = "returned"; // what Ctrl+Enter in the comment says

const draft = new Draft(form.dataset.key, () => ({
  comment: byId("comment").value, turns: boxes().map((box) => box.value),
}));

async function judge(verdict, messages = null) {
  if (covered()) return;
  const comment = byId("comment").value.trim();
  if (verdict !== "accepted" && !comment) {
    saying = verdict;
    byId("comment").focus();
    say(verdict === "returned" ? "Say what is wrong, then Control Enter returns it." : "Say why, then Control Enter rejects it.");
    warn("");
    return;
  }
  const buttons = [...form.querySelectorAll("button")];
  buttons.forEach((button) => { button.disabled = true; });
  try {
    const told = await ask("/api/v1/reviews", {
      method: "POST", body: { demonstration: form.dataset.id, verdict, comment, messages },
    });
    draft.drop();
    location.href = `/review?done=${verdict}&last=${encodeURIComponent(told.id)}`;
  } catch (error) {
    buttons.forEach((button) => { button.disabled = false; });
    draft.changed();
    if (error.status === 401) warn("Your session has ended. Your comment is kept: log in in another tab, then say it again.");
    else if (error.status === undefined) warn("The studio does not answer. Your comment is kept in this browser; say it again in a moment.");
    else warn(error.message);
  }
}

function mended() {
  judge("accepted", boxes().map((box) => ({ role: box.dataset.role, content: box.value })));
}

const press = {
  a: () => judge("accepted"),
  r: () => judge("returned"),
  x: () => judge("rejected"),
  e: () => { if (covered()) return; byId("mending").open = true; boxes().at(-1).focus(); },
  s: () => { draft.drop(); location.href = `/review?after=${form.dataset.number}`; },
  u: () => byId("undo")?.click(),
};

document.addEventListener("keydown", (event) => {
  if (document.querySelector("dialog[open]")) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (event.target.closest("#mending")) mended();
    else if (event.target.closest("#comment")) judge(saying);
    return;
  }
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey) return;
  if (Object.hasOwn(press, event.key)) { event.preventDefault(); press[event.key](); }
});

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const what = event.submitter?.value;
  if (what === "skip") press.s();
  else if (what === "mended") mended();
  else judge(what ?? "accepted");
});
form.addEventListener("input", () => draft.changed());

const kept = await draft.restore();
if (kept && !draft.dirty) {
  byId("comment").value = kept.comment ?? "";
  boxes().forEach((box, place) => { box.value = kept.turns?.[place] ?? box.value; });
  if (boxes().some((box, place) => box.value !== as[place])) byId("mending").open = true;
}
form.dataset.ready = "";

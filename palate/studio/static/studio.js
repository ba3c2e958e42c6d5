// What every page has: the theme, the guidelines and the keys, and one way to tell people something.
import { fill } from "./html.js";

const byId = (id) => document.getElementById(id);

/** Tell people who listen instead of looking. */
export function say(text) {
  const said = byId("said");
  said.textContent = "";
  requestAnimationFrame(() => { said.textContent = text; });
}

/** Tell everybody, until it is over: `warn("")` ends it. */
export function warn(text) {
  const banner = byId("banner");
  banner.textContent = text;
  banner.hidden = !text;
}

/** Whether somebody is typing, so that a key is a letter and no command. */
export function typing(event) {
  return event.target.closest("textarea, select, input:not([type=radio], [type=checkbox]), [contenteditable]") !== null;
}

/** Whether what may upset is covered still; whoever has not read it cannot judge it. */
export function covered() {
  if (document.getElementById("uncover")?.checked !== false) return false;
  say("It is covered: v shows it.");
  document.getElementById("uncover").focus();
  return true;
}

/** Ask our own API. Returns what it says; throws an Error with its one line, and `status`. */
export async function ask(path, { method = "GET", body, keepalive = false, signal } = {}) {
  const response = await fetch(path, {
    method, keepalive, signal,
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  });
  if (response.ok) return response.status === 204 ? null : response.json();
  const told = await response.json().catch(() => ({}));
  throw Object.assign(new Error(told.detail ?? `The studio answered ${response.status}.`), { status: response.status });
}

// On a phone the places are a row that scrolls.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

const theme = byId("theme");
theme.hidden = false;
theme.addEventListener("click", () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("palate:theme", root.dataset.theme); } catch { /* until the page is left */ }
});

const guidelines = byId("guidelines");
async function showGuidelines() {
  const body = guidelines.querySelector("[data-guidelines]");
  if (!body.childElementCount) {
    const html = await fetch("/guidelines/text").then((r) => (r.ok ? r.text() : ""));
    if (!html) { location.href = "/guidelines"; return; }
    fill(body, html);
  }
  guidelines.showModal();
}
byId("to-guidelines")?.addEventListener("click", (event) => { event.preventDefault(); showGuidelines(); });
const keys = byId("keys");
if (keys) {
  keys.hidden = false;
  keys.addEventListener("click", () => byId("keys-help").showModal());
}
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  });
}
document.addEventListener("keydown", (event) => {
  if (typing(event) || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "v" && byId("uncover")) { event.preventDefault(); byId("uncover").click(); }
  if (event.key === "h" && guidelines) { event.preventDefault(); showGuidelines(); }
  if (event.key === "?" && keys) { event.preventDefault(); byId("keys-help").showModal(); }
});

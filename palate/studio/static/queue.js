// The queue for leads: what is in people's hands is kept up to date while the page is looked at.
import { ask } from "./studio.js";

const EVERY = 10_000; // ms
const holding = document.querySelector("[data-holding]");
const minutes = (seconds) => {
  const left = Math.floor(seconds / 60);
  return left < 1 ? "less than a minute" : left < 120 ? `${left} min` : `${Math.floor(left / 60)} h`;
};

function line(one) {
  const item = document.createElement("li");
  item.className = "line";
  const told = document.createElement("div");
  told.className = "grow";
  const link = Object.assign(document.createElement("a"), { href: `/queue/items/${one.number}`, textContent: one.prompt });
  const first = Object.assign(document.createElement("p"), { className: "one-line" });
  first.append(link);
  const now = Date.now() / 1000;
  told.append(first, Object.assign(document.createElement("p"), {
    className: "note",
    textContent: `${one.annotator}, for ${minutes(now - one.created_at)}; free in ${minutes(one.expires_at - now)}`,
  }));
  const button = Object.assign(document.createElement("button"), { className: "button small", type: "button", textContent: "Let others have it" });
  button.append(Object.assign(document.createElement("span"), { className: "aside", textContent: `: ${one.annotator}, ${one.prompt.slice(0, 60)}` }));
  button.addEventListener("click", async () => {
    await ask(`/api/v1/queue/leases/${one.lease}`, { method: "DELETE" }).catch(() => null); // it may be free by now
    refresh();
  });
  item.append(told, button);
  return item;
}

async function refresh() {
  if (document.hidden || holding.contains(document.activeElement)) return;
  const found = await ask("/api/v1/queue/leases").catch(() => null);
  if (found === null) return;
  document.querySelector("[data-held]").textContent = found.length;
  if (!found.length) {
    holding.replaceChildren(Object.assign(document.createElement("p"), { className: "note", textContent: "Nobody has a prompt open." }));
    return;
  }
  const list = Object.assign(document.createElement("ul"), { className: "list" });
  list.append(...found.map(line));
  holding.replaceChildren(list);
}
setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);

document.getElementById("show").addEventListener("change", (event) => event.target.form.requestSubmit());

const file = document.getElementById("file");
const most = Number(file.form.dataset.most);
file.addEventListener("change", () => {
  const size = file.files[0]?.size ?? 0;
  const told = `${(size / 1e6).toFixed(1)} MB`;
  file.setCustomValidity(size > most ? `This file has ${told}; it may have ${most / 1e6} MB.` : "");
  file.form.querySelector("[data-size]").textContent = size ? told : "";
  file.reportValidity();
});

const computing = document.querySelector("[data-computing]");
if (computing) {
  const wait = setInterval(async () => {
    if (document.hidden) return;
    const told = await ask("/api/v1/see/arms").catch(() => null);
    if (told && told.state !== "computing") { clearInterval(wait); computing.textContent = "It is there: load the page again."; }
  }, 3000);
}

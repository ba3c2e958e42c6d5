// What pages about people can do better with a script: copy a secret, and leave nothing behind in this browser.
import { say } from "./studio.js";

for (const button of document.querySelectorAll("[data-copy]")) {
  const field = button.parentElement.querySelector("input");
  field.addEventListener("focus", () => field.select());
  if (!navigator.clipboard) continue; // without HTTPS there is none; the field is selected for the hand to copy
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(field.value);
    button.textContent = "Copied";
    say("Copied.");
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
}

// Drafts are on the server, too; whoever uses this browser next must not find them here.
for (const form of document.querySelectorAll("form[data-forget-drafts]")) {
  form.addEventListener("submit", () => {
    const mine = `palate:draft:${document.body.dataset.account}:`;
    try {
      for (const key of Object.keys(localStorage)) if (key.startsWith(mine)) localStorage.removeItem(key);
    } catch { /* nothing was kept */ }
  });
}

// What somebody is in the middle of: at once in this browser, a moment later on the server, and back from whichever of
// the two is newer. A closed tab, a server that was killed and a session that ended lose nothing.
import { ask, warn } from "./studio.js";

const account = document.body.dataset.account;
const SERVER_AFTER = 1000; // ms without a change

/** A draft under `key`; `read()` gives its content as JSON-ready values, null when there is nothing to keep. */
export class Draft {
  constructor(key, read) {
    this.key = key;
    this.read = read;
    this.local = `palate:draft:${account}:${key}`;
    this.timer = 0;
    this.dirty = false;
    document.addEventListener("visibilitychange", () => { if (document.hidden) this.flush(); });
    addEventListener("pagehide", () => this.flush());
  }

  /** What was kept last, here or on the server; null when nothing was. */
  async restore() {
    let here = null;
    try { here = JSON.parse(localStorage.getItem(this.local)); } catch { /* nothing was kept here */ }
    const there = await ask(`/api/v1/drafts/${this.key}`).catch(() => null);
    if (here && (!there || here.updated_at >= there.updated_at)) return here.content;
    return there?.content ?? null;
  }

  /** Something changed. */
  changed() {
    const content = this.read();
    if (content === null) return;
    this.dirty = true;
    try {
      localStorage.setItem(this.local, JSON.stringify({ content, updated_at: Date.now() / 1000 }));
    } catch { /* full, or forbidden: the server still has it in a second */ }
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.flush(), SERVER_AFTER);
  }

  /** Send it now. */
  async flush() {
    clearTimeout(this.timer);
    if (!this.dirty) return;
    const content = this.read();
    if (content === null) return;
    this.dirty = false;
    try {
      await ask(`/api/v1/drafts/${this.key}`, { method: "PUT", body: { content }, keepalive: true });
      warn("");
    } catch (error) {
      this.dirty = true;
      if (error.status === 401) {
        warn("Your session has ended. What you wrote is kept in this browser: log in in another tab, then go on here.");
      } else if (error.status === undefined) {
        warn("The studio does not answer. What you wrote is kept in this browser; it is sent when the studio is back.");
        this.timer = setTimeout(() => this.flush(), 3000);
      }
    }
  }

  /** It was handed in, or given up. */
  drop() {
    clearTimeout(this.timer);
    this.dirty = false;
    try { localStorage.removeItem(this.local); } catch { /* it was never there */ }
  }
}

// What was still being counted comes into the page when it is there; a stage that runs is drawn as its figures come.
import { fill } from "./html.js";
import { ask } from "./studio.js";

const EVERY = 2000; // ms

// --- parts that are being computed ---
for (const part of document.querySelectorAll("[data-part][data-computing]")) {
  const timer = setInterval(async () => {
    if (document.hidden) return;
    const response = await fetch(`/see/part/${part.dataset.part}`).catch(() => null);
    if (!response || response.status === 204) return;
    clearInterval(timer);
    if (response.ok) fill(part, await response.text());
  }, EVERY);
}

// --- the run ---
const live = document.getElementById("live");
const SVG = "http://www.w3.org/2000/svg";
const SHOWN = ["loss", "held_out_loss", "held_out_bits_per_byte", "held_out_accuracy", "score", "best_score", "kl", "entropy", "reply_tokens", "eos_rate"];
const NAMES = {
  loss: "loss", held_out_loss: "loss, held out", held_out_bits_per_byte: "bits per byte, held out",
  held_out_accuracy: "accuracy, held out", score: "reward", best_score: "best reward", kl: "KL, nats a reply",
  entropy: "entropy, nats a token", reply_tokens: "tokens a reply", eos_rate: "replies that end",
};
const MOST = 600; // points of a line
let log = "";
let after = 0;
let series = new Map(); // name -> [[step, value]]

const made = (kind, values = {}, ...children) => {
  const element = Object.assign(document.createElement(kind), values);
  element.append(...children);
  return element;
};
const short = (value) => (Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 1 ? value.toFixed(2) : value.toPrecision(3));

function chart(name, points) {
  const step = Math.max(1, Math.ceil(points.length / MOST));
  const some = points.filter((_, at) => at % step === 0 || at === points.length - 1);
  const xs = some.map(([x]) => x);
  const ys = some.map(([, y]) => y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const d = some.map(([x, y], at) => `${at ? "L" : "M"}${((x - left) / (right - left || 1) * 1000).toFixed(1)} ${(66 - (y - low) / (high - low || 1) * 60).toFixed(1)}`).join("");
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 1000 72", preserveAspectRatio: "none", role: "img" })) svg.setAttribute(key, value);
  svg.setAttribute("aria-label", `${NAMES[name]}: from ${short(ys[0])} at step ${xs[0]} to ${short(ys.at(-1))} at step ${xs.at(-1)}, between ${short(low)} and ${short(high)}`);
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", some.length > 1 ? d : `${d}h0.1`);
  svg.append(path);
  return made("figure", {}, made("figcaption", {}, NAMES[name], made("strong", { textContent: short(ys.at(-1)) })), svg,
    made("p", { className: "range", textContent: `${short(low)} to ${short(high)}; steps ${left} to ${right}` }));
}

function told(now) {
  const strong = (text) => made("strong", { textContent: text });
  const steps = Math.max(0, ...[...series.values()].map((points) => points.at(-1)[0]));
  const run = [strong(now.stage || "A stage"), ` runs${now.control ? ` for the control ${now.control}` : ""}${steps ? `, step ${steps}` : ""}${now.seconds ? `, ${clock(now.seconds)} so far` : ""}.`];
  return {
    running: run,
    waiting: ["The run waits for people: it has ", strong(`${now.has} of ${now.wanted}`), `${now.next === "rank" ? " judgements" : " examples"}, and goes on by itself.`],
    stopped: [strong(now.stage), " was begun and has stopped. Run the recipe again: it goes on where it was."],
    idle: ["Nothing runs. ", strong(now.next), " comes next."],
    done: ["Nothing runs; everything this run’s recipe asks for is there."],
    none: [""],
  }[now.state];
}

const clock = (seconds) => (seconds < 90 ? `${Math.round(seconds)} s` : seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`);

async function look() {
  if (document.hidden) return;
  const now = await ask(`/api/v1/live?log=${encodeURIComponent(log)}&after=${after}`).catch(() => null);
  if (now === null) return;
  const charts = live.querySelector("[data-charts]");
  if (now.log !== log) { log = now.log; series = new Map(); charts.replaceChildren(); }
  after = now.after;
  for (const line of now.lines) {
    for (const name of SHOWN) {
      if (!(name in line)) continue;
      const points = series.get(name) ?? [];
      if (points.length && points.at(-1)[0] >= line.step) points.splice(points.findIndex(([step]) => step >= line.step)); // it was resumed
      points.push([line.step, line[name]]);
      series.set(name, points);
    }
  }
  if (live.dataset.live !== now.state || now.state === "running" || now.state === "waiting") live.querySelector("[data-state]").replaceChildren(...told(now));
  live.dataset.live = now.state;
  if (now.lines.length) charts.replaceChildren(...SHOWN.filter((name) => series.has(name)).map((name) => chart(name, series.get(name))));
  const samples = live.querySelector("[data-samples]");
  samples.hidden = !now.samples.length;
  samples.querySelector("[data-sampled]").replaceChildren(...now.samples.map((one) => made("div", { className: "said" },
    made("p", { className: "role", textContent: `${one.prompt}${one.score === null ? "" : `  (reward ${short(one.score)}, step ${one.step})`}` }),
    made("p", { className: "plain", textContent: one.text || "(an empty answer)" }))));
}

if (live) {
  look();
  setInterval(look, EVERY);
  document.addEventListener("visibilitychange", look);
}

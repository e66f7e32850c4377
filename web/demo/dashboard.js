/**
 * The example's dashboard: follows the channel `orders` from the earliest event that is retained,
 * and shows what it says.
 */

import { GatewayClient } from "/static/gateway.js";
import { keptTransport, showConnection } from "/static/ui/connection.js";
import { drawing } from "/static/ui/drawing.js";
import { byId, setText } from "/static/ui/elements.js";
import { count, duration, quantile, shortId, time } from "/static/ui/format.js";
import { Board } from "./board.js";
import { Charts, Timeline } from "./charts.js";
import { Load } from "./load.js";
import { Orders } from "./orders.js";
import { Resumption } from "./resumption.js";

/** What the shop of the example sells; see examples/orders/handlers.py. */
const ARTICLES = ["tea-250", "coffee-500", "cocoa-250", "filters-100"];

const client = new GatewayClient({ transport: keptTransport() });
const orders = new Orders();
const timeline = new Timeline();
const charts = new Charts(timeline);
const resumption = new Resumption(client, "orders");
const board = new Board(orders, async ({ order, customer }) => {
  await client.send(`/orders/${encodeURIComponent(order)}/ship`, { customer, tracking: trackingNumber() });
});
const scheduleFigures = drawing(drawFigures);
const scheduleLoad = drawing(drawLoad);
const load = new Load({ place, articles: ARTICLES, changed: scheduleLoad });

let lastPosition = "–";
let lastEventAt = 0;
let peak = 0;

showConnection(client);
client.subscribe("orders", take, { after: "earliest" });
client.connect();
setInterval(tick, 1000);

/** @type {import("/static/gateway.js").Handler} */
function take(event, { position }) {
  const now = Date.now();
  const order = orders.take(event);
  const isReplayed = resumption.count(event, now);
  // What was there before the page was opened is not its traffic; what it caught up with is.
  if (!isReplayed || resumption.wasLost) timeline.add(now, isReplayed ? null : latencyOf(event, now));
  if (order) board.show(order);
  lastPosition = position ?? lastPosition;
  lastEventAt = now;
  scheduleFigures();
}

/**
 * From the placing of the order to its appearance here; of a later event, from when it happened.
 *
 * @param {import("/static/gateway.js").CloudEvent} event
 * @param {number} now
 */
function latencyOf(event, now) {
  const isPlacing = event.type !== "order.shipped";
  const from = (isPlacing && event.data?.placed_at) || event.time;
  const since = Date.parse(from ?? "");
  return Number.isNaN(since) ? null : Math.max(0, now - since);
}

function drawFigures() {
  const total = byId("total", HTMLElement);
  total.dataset.total = String(orders.events);
  setText(total, count(orders.events));
  const duplicates = byId("duplicates", HTMLElement);
  duplicates.dataset.duplicates = String(orders.duplicates);
  setText(duplicates, count(orders.duplicates));
  setText(byId("orders-total", HTMLElement), count(orders.total));
  const position = byId("position", HTMLElement);
  position.title = lastPosition;
  setText(position, lastPosition);
  setText(byId("last-event", HTMLElement), time(lastEventAt));
}

/** What is measured over seconds is shown once a second. */
function tick() {
  const now = Date.now();
  const rate = timeline.rate(now);
  peak = Math.max(peak, rate);
  setText(byId("rate", HTMLElement), count(rate));
  setText(byId("peak", HTMLElement), count(peak));
  const latencies = timeline.recent(now);
  if (latencies.length > 0) {
    setText(byId("median", HTMLElement), duration(quantile(latencies, 0.5)));
    setText(byId("p95", HTMLElement), duration(quantile(latencies, 0.95)));
  }
  charts.update();
}

// Placing orders

const placeForm = byId("place", HTMLFormElement);
const outcome = byId("outcome", HTMLElement);
const sku = byId("sku", HTMLSelectElement);
sku.append(...ARTICLES.map((article) => new Option(article)));

placeForm.addEventListener("submit", async (submission) => {
  submission.preventDefault();
  if (!placeForm.reportValidity()) return;
  const customer = byId("customer", HTMLInputElement).value.trim();
  const qty = byId("qty", HTMLInputElement).valueAsNumber;
  const startedAt = performance.now();
  say("", "Sending…");
  try {
    const { id } = await client.send("/orders", { customer, sku: sku.value, qty });
    say("", `${shortId(id)} is in the log after ${duration(performance.now() - startedAt)}.`);
    client.follow(id, ({ data }) => tellLife(id, data, performance.now() - startedAt));
  } catch (error) {
    say("bad", error instanceof Error ? error.message : String(error));
  }
});

/** @param {string} id @param {any} life @param {number} elapsed */
function tellLife(id, life, elapsed) {
  const status = life?.result?.status ?? life?.status;
  const isGood = life?.status === "succeeded" && status !== "rejected";
  const kind = isGood ? "good" : life?.status === "succeeded" || life?.error ? "bad" : "";
  const why = life?.error ?? life?.result?.reason;
  say(kind, `${shortId(id)}: ${status}${why ? `, ${why}` : ""}, seen here after ${duration(elapsed)}.`);
}

/** @param {string} kind @param {string} text */
function say(kind, text) {
  outcome.dataset.kind = kind;
  outcome.textContent = text;
}

/** @param {object} order */
function place(order) {
  const over = client.transport === "websocket" && client.state.state === "open" ? "websocket" : "http";
  return client.send("/orders", order, { over });
}

function trackingNumber() {
  return `T-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
}

// Load

const loadForm = byId("load", HTMLFormElement);
loadForm.addEventListener("submit", (submission) => {
  submission.preventDefault();
  if (load.isRunning) return load.stop();
  if (!loadForm.reportValidity()) return;
  load.start(byId("load-rate", HTMLInputElement).valueAsNumber, byId("load-seconds", HTMLInputElement).valueAsNumber);
});

function drawLoad() {
  const { sent, accepted, failed, wanted, lastError } = load.progress;
  setText(byId("load-button", HTMLButtonElement), load.isRunning ? "Stop" : "Start load");
  const progress = byId("load-progress", HTMLProgressElement);
  progress.max = wanted || 1;
  progress.value = accepted + failed;
  const note = byId("load-note", HTMLElement);
  Object.assign(note.dataset, { sent, accepted, failed });
  const failure = failed ? ` · ${count(failed)} failed: ${lastError}` : "";
  setText(note, `${count(accepted)} of ${count(wanted)} accepted${failure}`);
}

/**
 * The web console: connect, subscribe, post commands, and watch events arrive.
 */

import { Composer } from "./console/composer.js";
import { EventList } from "./console/eventlist.js";
import { readable } from "./console/json.js";
import { Lives } from "./console/lives.js";
import { Subscriptions } from "./console/subscriptions.js";
import { GatewayClient } from "./gateway.js";
import { keptTransport, showConnection } from "./ui/connection.js";
import { byId, element, setText } from "./ui/elements.js";
import { count, duration, preciseTime, quantile } from "./ui/format.js";

/** @typedef {import("./console/eventlist.js").Record} Record */
/** @typedef {import("./console/composer.js").KnownCommand} KnownCommand */

/**
 * @typedef {object} Configured What `GET /console.json` tells.
 * @property {string} name
 * @property {string} version
 * @property {KnownCommand[]} commands
 * @property {{pattern: string, history: {size: number, ttl: number} | null}[]} channels
 * @property {boolean} demo
 * @property {boolean} anonymous whether it lets in who shows no credentials
 */

/** Latencies that the median is taken of. */
const MAX_LATENCIES = 1_000;

const client = new GatewayClient({ transport: keptTransport() });
const list = new EventList(showDetail);
const lives = new Lives(client);
const subscriptions = new Subscriptions(client, received);
const composer = new Composer(client, (id, path, sentAt) => lives.follow(id, path, sentAt));

/** The gateway lets in who shows no credentials. */
let anonymously = true;
/** We have been given a token. */
let identified = false;
let total = 0;
let lastTotal = 0;
/** @type {number[]} */
let latencies = [];

showConnection(client);
showConfigured(await configured());
client.connect();
setInterval(showFigures, 1000);
setInterval(showReceived, 100);

/**
 * What is configured; where that cannot be had, the console works without.
 *
 * @returns {Promise<Configured>}
 */
async function configured() {
  const nothing = {
    name: "push gateway",
    version: "",
    commands: [],
    channels: [],
    demo: false,
    anonymous: true,
  };
  try {
    const response = await fetch("/console.json");
    return response.ok ? { ...nothing, ...(await response.json()) } : nothing;
  } catch {
    return nothing;
  }
}

/** @param {Configured} configuration */
function showConfigured({ name, version, commands, channels, demo, anonymous }) {
  anonymously = anonymous;
  showIdentity();
  setText(byId("about", HTMLElement), [name, version].filter(Boolean).join(" "));
  byId("demo-link", HTMLElement).hidden = !demo;
  composer.offer(commands);
  subscriptions.offer(channels);
  setText(byId("curl", HTMLElement), curlFor(commands[0]));
  const asked = new URLSearchParams(location.search).getAll("channel");
  const plain = channels.map(({ pattern }) => pattern).filter((pattern) => !pattern.includes("{"));
  for (const channel of asked.length > 0 ? new Set(asked) : plain.slice(0, 1)) {
    subscriptions.subscribe(channel);
  }
}

/** @param {KnownCommand | undefined} command */
function curlFor(command) {
  const path = command?.path ?? "/orders";
  const data = JSON.stringify(command?.example ?? {});
  const headers = ["-H 'Content-Type: application/json'"];
  if (!anonymously) headers.push('-H "Authorization: Bearer $TOKEN"');
  return [`curl ${location.origin}${path}`, ...headers, `-d '${data}'`].join(" \\\n  ");
}

/**
 * @param {import("./gateway.js").CloudEvent} event
 * @param {string | null} position
 * @param {number} since when its channel was confirmed
 */
function received(event, position, since) {
  const at = Date.now();
  const happened = Date.parse(event.time ?? "");
  const isReplayed = !(happened >= since);
  const latency = isReplayed ? null : Math.max(0, at - happened);
  total += 1;
  if (latency !== null) latencies.push(latency);
  if (latencies.length > 2 * MAX_LATENCIES) latencies = latencies.slice(-MAX_LATENCIES);
  list.add({ event, position, at, latency });
}

function showReceived() {
  const badge = byId("received", HTMLElement);
  badge.dataset.received = String(total);
  setText(badge, count(total));
  const { waiting } = list;
  setText(pause, isPaused() ? `Resume${waiting ? ` (${count(waiting)})` : ""}` : "Pause");
}

function showFigures() {
  setText(byId("rate", HTMLElement), count(total - lastTotal));
  lastTotal = total;
  if (latencies.length === 0) return;
  const sorted = latencies.slice(-MAX_LATENCIES).sort((a, b) => a - b);
  setText(byId("latency", HTMLElement), duration(quantile(sorted, 0.5)));
}

/** @param {Record | null} record */
function showDetail(record) {
  byId("detail", HTMLElement).hidden = record === null;
  if (!record) return;
  const { event, position, at, latency } = record;
  setText(byId("detail-type", HTMLElement), event.type);
  const facts = {
    Channel: event.channel,
    Position: position ?? "from the history",
    Arrived: preciseTime(at),
    Latency: latency === null ? "replayed" : duration(latency),
  };
  const entries = Object.entries(facts).map(([name, value]) =>
    element("div", "", element("dt", "", name), element("dd", "mono truncate", value)),
  );
  byId("detail-facts", HTMLElement).replaceChildren(...entries);
  byId("detail-json", HTMLElement).replaceChildren(readable(event));
}

// The controls above the list

const pause = byId("pause", HTMLButtonElement);

function isPaused() {
  return pause.getAttribute("aria-pressed") === "true";
}

pause.addEventListener("click", () => {
  pause.setAttribute("aria-pressed", String(!isPaused()));
  list.pause(isPaused());
  showReceived();
});

byId("clear", HTMLButtonElement).addEventListener("click", () => list.clear());
byId("detail-close", HTMLButtonElement).addEventListener("click", () => list.select(null));
byId("filter", HTMLInputElement).addEventListener("input", ({ target }) => {
  if (target instanceof HTMLInputElement) list.filter(target.value);
});

// Who one is

const UNAUTHORIZED = 4501;

byId("identify", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  const field = byId("token", HTMLInputElement);
  const token = field.value.trim();
  field.value = "";
  identified = token !== "";
  showIdentity();
  byId("identity", HTMLDetailsElement).open = false;
  client.identify(token ? { token } : {});
  subscriptions.retry();
});

client.on("state", ({ state, code }) => {
  if (state !== "closed" || code !== UNAUTHORIZED) return;
  showIdentity(identified ? "That was not accepted." : "This gateway wants to know who you are.");
  byId("identity", HTMLDetailsElement).open = true;
});

function showIdentity(note = "") {
  const words = byId("identity-words", HTMLElement);
  setText(words, identified ? "With a token" : anonymously ? "Anonymous" : "Sign in");
  words.classList.toggle("primary", !anonymously && !identified);
  const kept = "What you enter is kept in the memory of this page only.";
  setText(byId("identity-note", HTMLElement), [note, kept].filter(Boolean).join(" "));
}

// The connection

const connect = byId("connect", HTMLButtonElement);
connect.addEventListener("click", () => {
  if (client.state.state === "closed") client.connect();
  else client.close();
});
client.on("state", ({ state }) => setText(connect, state === "closed" ? "Connect" : "Disconnect"));

/**
 * The channels that are subscribed to: the form, and a line for each with where it stands.
 */

import { byId, element, setText } from "../ui/elements.js";
import { count } from "../ui/format.js";

/** @typedef {import("../gateway.js").GatewayClient} GatewayClient */
/** @typedef {import("../gateway.js").Subscription} Subscription */
/** @typedef {import("../gateway.js").Handler} Handler */

/**
 * @typedef {object} Line
 * @property {Subscription} subscription
 * @property {HTMLLIElement} row
 * @property {HTMLElement} badge
 * @property {HTMLElement} where
 * @property {number} events
 * @property {number} since when it was confirmed, in milliseconds since the epoch
 */

/** Milliseconds between two looks at counts and positions. */
const REFRESH = 250;

export class Subscriptions {
  /** @type {Map<string, Line>} */
  #lines = new Map();
  #list = byId("subscriptions", HTMLUListElement);
  #note = byId("subscribe-note", HTMLElement);

  /**
   * @param {GatewayClient} client
   * @param {(event: import("../gateway.js").CloudEvent, position: string | null, since: number) => void} received
   */
  constructor(client, received) {
    this.#client = client;
    this.#received = received;
    client.on("subscribed", ({ channel, recovered, resumed }) => this.#confirmed(channel, recovered, resumed));
    client.on("refused", ({ channel, error }) => this.#refused(channel, error));
    byId("subscribe", HTMLFormElement).addEventListener("submit", (submission) => {
      submission.preventDefault();
      this.#submit();
    });
    const from = byId("from", HTMLSelectElement);
    from.addEventListener("change", () => {
      byId("position-field", HTMLElement).hidden = from.value !== "position";
    });
    setInterval(() => this.#refresh(), REFRESH);
  }

  #client;
  #received;
  /** Channels that were refused because nobody knew who we are. @type {Set<string>} */
  #unknown = new Set();

  /** Offer what is configured. @param {{pattern: string, history: {size: number} | null}[]} patterns */
  offer(patterns) {
    const options = patterns.map(({ pattern, history }) => {
      const label = history ? `keeps ${count(history.size)} events` : "keeps no history";
      return new Option(label, pattern);
    });
    byId("patterns", HTMLDataListElement).replaceChildren(...options);
  }

  /** @param {string} channel @param {string} [after] */
  subscribe(channel, after) {
    if (this.#lines.has(channel)) throw new Error(`${channel} is subscribed already.`);
    /** @type {Handler} */
    const handler = (event, { position }) => {
      line.events += 1;
      this.#received(event, position, line.since);
    };
    const subscription = this.#client.subscribe(channel, handler, after ? { after } : {});
    const line = this.#line(subscription);
    this.#lines.set(channel, line);
    this.#list.append(line.row);
    this.#refresh();
  }

  #submit() {
    const name = byId("channel", HTMLInputElement);
    const channel = name.value.trim();
    const from = byId("from", HTMLSelectElement).value;
    const position = byId("after", HTMLInputElement).value.trim();
    setText(this.#note, "");
    try {
      const [parameter] = /\{\w+\}/.exec(channel) ?? [];
      if (!channel) throw new Error("Type the name of a channel.");
      if (parameter) throw new Error(`Put a value in place of ${parameter}.`);
      if (from === "position" && !position) throw new Error("Type the position to start after.");
      this.subscribe(channel, from === "now" ? undefined : from === "earliest" ? from : position);
      name.value = "";
    } catch (error) {
      setText(this.#note, error instanceof Error ? error.message : String(error));
      name.focus();
    }
  }

  /** @param {Subscription} subscription @returns {Line} */
  #line(subscription) {
    const { channel } = subscription;
    const badge = element("span", "badge", "waiting");
    badge.dataset.testid = "recovered";
    const where = element("p", "where truncate numeric");
    where.dataset.testid = "channel-position";
    const leave = element("button", "button small icon quiet leave", "×");
    leave.type = "button";
    leave.setAttribute("aria-label", `Unsubscribe from ${channel}`);
    leave.dataset.testid = "channel-unsubscribe";
    leave.addEventListener("click", () => this.#leave(channel));
    const row = element("li", "subscription", element("p", "name mono truncate", channel), badge, where, leave);
    row.dataset.testid = "subscription";
    row.dataset.channel = channel;
    return { subscription, row, badge, where, events: 0, since: Date.now() };
  }

  /** @param {string} channel */
  #leave(channel) {
    const line = this.#lines.get(channel);
    this.#lines.delete(channel);
    line?.subscription.unsubscribe();
    line?.row.remove();
  }

  /** @param {string} channel @param {boolean} recovered @param {boolean} resumed */
  #confirmed(channel, recovered, resumed) {
    const line = this.#lines.get(channel);
    if (!line) return;
    line.since = Date.now();
    line.badge.dataset.recovered = String(recovered);
    line.badge.className = `badge ${recovered ? "good" : "warn"}`;
    setText(line.badge, !recovered ? "recovered: false" : resumed ? "recovered: true" : "live");
  }

  /** Subscribe again to what was refused because nobody knew who we are. */
  retry() {
    const unknown = [...this.#unknown];
    this.#unknown.clear();
    for (const channel of unknown) this.subscribe(channel);
  }

  /** @param {string} channel @param {import("../gateway.js").GatewayError} error */
  #refused(channel, { detail, status }) {
    if (!this.#lines.has(channel)) return;
    this.#leave(channel);
    if (status === 401) this.#unknown.add(channel);
    else setText(this.#note, `${channel}: ${detail}`);
  }

  #refresh() {
    for (const { subscription, where, row, events } of this.#lines.values()) {
      const { position } = subscription;
      row.dataset.events = String(events);
      where.title = position ?? "";
      setText(where, `${count(events)} ${events === 1 ? "event" : "events"} · ${position ?? "no position yet"}`);
    }
  }
}

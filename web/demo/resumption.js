/**
 * Tells what became of the connection: that it is lost, that it is back, how many events it
 * caught up with, and whether any is missing.
 */

import { byId, setText } from "/static/ui/elements.js";
import { count, duration } from "/static/ui/format.js";

/** @typedef {import("/static/gateway.js").GatewayClient} GatewayClient */
/** @typedef {import("/static/gateway.js").StateChange} StateChange */
/** @typedef {import("/static/gateway.js").CloudEvent} CloudEvent */

/** Milliseconds for which news stay. That something is missing stays on beside the channel. */
const GOOD_NEWS = 12_000;
const BAD_NEWS = 30_000;

/** Milliseconds without another such event after which a resumption is told. */
const SETTLED = 250;

/** What to say of why the connection is lost. @type {{[reason: string]: string}} */
const CAUSES = {
  offline: "There is no network.",
  goodbye: "The gateway said goodbye.",
  silence: "The gateway has gone silent.",
};

export class Resumption {
  #connections = 0;
  /** When the connection was lost, and when it was there again; in milliseconds since the epoch. */
  #lostAt = 0;
  #backAt = 0;
  #resumed = 0;
  #isRecovered = true;
  /** How far the gateway's clock is behind ours, at most: the shortest way that an event took.
   * @type {number | null} */
  #skew = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #tell;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #hide;

  /** @param {GatewayClient} client @param {string} channel */
  constructor(client, channel) {
    client.on("state", (change) => this.#changed(change));
    client.on("subscribed", (subscribed) => {
      if (subscribed.channel === channel) this.#subscribed(subscribed);
    });
    client.on("refused", ({ error }) => this.#notice("closed", `The gateway refused: ${error.detail}`));
  }

  /** Whether the connection was lost at least once. */
  get wasLost() {
    return this.#lostAt > 0;
  }

  /**
   * Take note of an event, and tell whether it is replayed: it happened before the connection was
   * there. Each clock goes its own way, so the gateway's is set by the shortest
   * delay that was seen.
   *
   * @param {CloudEvent} event
   * @param {number} now
   */
  count(event, now) {
    const happened = Date.parse(event.time ?? "");
    const isReplayed = happened < this.#backAt - (this.#skew ?? 0);
    if (!isReplayed) {
      this.#skew = Math.min(this.#skew ?? Infinity, now - happened);
    } else if (this.#lostAt > 0) {
      this.#resumed += 1;
      this.#tellSoon();
    }
    return isReplayed;
  }

  /** @param {StateChange} change */
  #changed({ state, reason, code }) {
    if (state === "open") {
      this.#connections += 1;
      this.#backAt = Date.now();
      setText(byId("connections", HTMLElement), count(this.#connections));
    } else if (state === "closed") {
      this.#notice("closed", `The gateway closed the connection for good: ${reason} (${code ?? "–"}).`);
    } else if (this.#connections > 0 && this.#lostAt <= this.#backAt) {
      this.#lostAt = Date.now();
    }
    if (state === "waiting") this.#lost(reason);
  }

  /** @param {string} reason */
  #lost(reason) {
    const cause = CAUSES[reason] ?? "The connection is lost.";
    this.#notice("lost", `${cause} The board catches up by itself when it is back.`);
  }

  /** @param {import("/static/gateway.js").Subscribed} subscribed */
  #subscribed({ recovered }) {
    this.#isRecovered = recovered;
    const badge = byId("recovered", HTMLElement);
    badge.dataset.recovered = String(recovered);
    badge.className = `end badge ${recovered ? "good" : "warn"}`;
    setText(badge, recovered ? "recovered: true" : "recovered: false");
    this.#resumed = 0;
    if (this.#lostAt > 0) this.#tellSoon();
  }

  #tellSoon() {
    clearTimeout(this.#tell);
    this.#tell = setTimeout(() => this.#told(), SETTLED);
  }

  #told() {
    const resumed = byId("resumed", HTMLElement);
    resumed.dataset.resumed = String(this.#resumed);
    setText(resumed, count(this.#resumed));
    const away = duration(this.#backAt - this.#lostAt);
    setText(byId("resumed-note", HTMLElement), `events caught up, after ${away}`);
    const events = this.#resumed === 1 ? "1 event" : `${count(this.#resumed)} events`;
    if (this.#isRecovered) {
      this.#notice("resumed", `Back after ${away}. Caught up with ${events}, none missing.`);
    } else {
      const gap = "some older ones are no longer retained, so the board may lack orders.";
      this.#notice("gap", `Back after ${away}. Caught up with ${events}, but ${gap}`);
    }
    this.#hide = setTimeout(() => this.#notice("none", ""), this.#isRecovered ? GOOD_NEWS : BAD_NEWS);
  }

  /** @param {string} kind @param {string} text */
  #notice(kind, text) {
    clearTimeout(this.#hide);
    const notice = byId("notice", HTMLElement);
    notice.dataset.kind = kind;
    notice.hidden = kind === "none";
    setText(notice, text);
  }
}

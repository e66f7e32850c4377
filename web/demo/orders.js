/**
 * The shop's orders, as its events tell of them. No page here: what happened, and what of it is news.
 */

/** @typedef {import("/static/gateway.js").CloudEvent} CloudEvent */
/** @typedef {"accepted" | "shipped" | "rejected"} Status */

/**
 * @typedef {object} Order
 * @property {string} order
 * @property {Status} status
 * @property {string} customer
 * @property {string} [sku]
 * @property {number} [qty]
 * @property {number} [total]
 * @property {string} [reason]
 * @property {string} [placed_at]
 * @property {number} at when its last event happened, in milliseconds since the epoch
 */

/** @type {Status[]} */
export const STATUSES = ["accepted", "shipped", "rejected"];

/** Orders kept in memory, about 300 bytes each; beyond it the oldest are only counted. */
const MAX_ORDERS = 20_000;

/** Ids of events kept to notice that one comes twice: some minutes at a high rate. */
const MAX_IDS = 100_000;

export class Orders {
  /** Of each status, oldest first. @type {Record<Status, Map<string, Order>>} */
  byStatus = { accepted: new Map(), shipped: new Map(), rejected: new Map() };
  /** Of each status, also those that are no longer kept. @type {Record<Status, number>} */
  counts = { accepted: 0, shipped: 0, rejected: 0 };
  /** Events that were taken in. */
  events = 0;
  /** Events that came although they had come before. Stays at zero, or something is wrong. */
  duplicates = 0;
  /** @type {Set<string>} */
  #seen = new Set();

  /**
   * Take an event in.
   *
   * @param {CloudEvent} event
   * @returns {Order | null} the order as it is now, or null if the event tells nothing new
   */
  take(event) {
    if (this.#seen.has(event.id)) {
      this.duplicates += 1;
      return null;
    }
    this.#remember(event.id);
    this.events += 1;
    const { order: id, status } = event.data ?? {};
    if (typeof id !== "string" || !STATUSES.includes(status)) return null;
    const known = this.#remove(id);
    const order = { ...known, ...event.data, at: Date.parse(event.time ?? "") || Date.now() };
    this.byStatus[/** @type {Status} */ (status)].set(id, order);
    this.counts[/** @type {Status} */ (status)] += 1;
    this.#forgetOldest(status);
    return order;
  }

  /** Every order that was seen, kept or not. */
  get total() {
    return this.counts.accepted + this.counts.shipped + this.counts.rejected;
  }

  /** @param {string} id @returns {Order | undefined} */
  #remove(id) {
    for (const status of STATUSES) {
      const known = this.byStatus[status].get(id);
      if (known) {
        this.byStatus[status].delete(id);
        this.counts[status] -= 1;
        return known;
      }
    }
    return undefined;
  }

  /** @param {Status} status */
  #forgetOldest(status) {
    const orders = this.byStatus[status];
    if (orders.size > MAX_ORDERS) orders.delete(/** @type {string} */ (orders.keys().next().value));
  }

  /** @param {string} id */
  #remember(id) {
    this.#seen.add(id);
    if (this.#seen.size > MAX_IDS) this.#seen.delete(/** @type {string} */ (this.#seen.values().next().value));
  }
}

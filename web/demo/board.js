/**
 * The board: a lane of cards for each status, newest first. Drawn a few times a second, whatever the
 * number of events, and with a bounded number of cards.
 */

import { drawing } from "/static/ui/drawing.js";
import { element, setText } from "/static/ui/elements.js";
import { count, shortId, time } from "/static/ui/format.js";
import { STATUSES } from "./orders.js";

/** @typedef {import("./orders.js").Order} Order */
/** @typedef {import("./orders.js").Status} Status */

/** Cards in one lane; older orders are counted and come up when newer ones leave the lane. */
const MAX_CARDS = 400;

/** With more new cards than this in one drawing, none of them is highlighted. */
const MAX_HIGHLIGHTS = 4;

const money = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });

export class Board {
  /** Orders that changed since the last frame, by id. @type {Map<string, Order>} */
  #changed = new Map();
  /** @type {Map<string, HTMLLIElement>} */
  #cards = new Map();
  #schedule = drawing(() => this.#draw());

  /**
   * @param {import("./orders.js").Orders} orders
   * @param {(order: Order) => Promise<void>} ship
   */
  constructor(orders, ship) {
    this.#orders = orders;
    this.#ship = ship;
  }

  #orders;
  #ship;

  /** Show an order as it is now, with one of the next frames. @param {Order} order */
  show(order) {
    this.#changed.delete(order.order);
    this.#changed.set(order.order, order);
    this.#schedule();
  }

  #draw() {
    const changed = [...this.#changed.values()];
    this.#changed.clear();
    for (const status of STATUSES) {
      const all = changed.filter((order) => order.status === status);
      for (const order of all.slice(0, -MAX_CARDS)) this.#discard(order.order);
      const cards = all.slice(-MAX_CARDS).map((order) => this.#replace(order));
      if (changed.length <= MAX_HIGHLIGHTS) for (const card of cards) card.classList.add("fresh");
      laneOf(status).prepend(...cards.reverse());
    }
    for (const status of STATUSES) this.#fit(status);
  }

  /** Keep a lane at its length, fill it up from older orders, and count it. @param {Status} status */
  #fit(status) {
    const lane = laneOf(status);
    while (lane.childElementCount > MAX_CARDS) {
      this.#discard(/** @type {HTMLElement} */ (lane.lastElementChild).dataset.order ?? "");
    }
    const kept = this.#orders.byStatus[status];
    const missing = Math.min(MAX_CARDS, kept.size) - lane.childElementCount;
    if (missing > 0) {
      const hidden = [...kept.values()].reverse().filter(({ order }) => !this.#cards.has(order));
      lane.append(...hidden.slice(0, missing).map((order) => this.#replace(order)));
    }
    const badge = document.getElementById(`count-${status}`);
    if (badge) setText(badge, count(this.#orders.counts[status]));
  }

  /** @param {string} id */
  #discard(id) {
    this.#cards.get(id)?.remove();
    this.#cards.delete(id);
  }

  /** @param {Order} order */
  #replace(order) {
    this.#discard(order.order);
    const card = this.#card(order);
    this.#cards.set(order.order, card);
    return card;
  }

  /** @param {Order} order */
  #card(order) {
    const card = element("li", "card", what(order), price(order));
    card.dataset.testid = "order-card";
    card.dataset.order = order.order;
    card.dataset.status = order.status;
    card.title = order.order;
    card.append(who(order));
    if (order.status === "accepted") card.append(clock(order), this.#shipButton(order));
    if (order.status === "shipped") card.append(clock(order));
    return card;
  }

  /** @param {Order} order */
  #shipButton(order) {
    const button = element("button", "button small ship", "Ship");
    button.type = "button";
    button.dataset.testid = "ship";
    button.setAttribute("aria-label", `Ship order ${shortId(order.order)}`);
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await this.#ship(order);
      } catch (error) {
        button.disabled = false;
        button.title = String(error);
        button.textContent = "Retry";
      }
    });
    return button;
  }
}

/** @param {Status} status */
function laneOf(status) {
  return /** @type {HTMLElement} */ (document.getElementById(`cards-${status}`));
}

/** @param {Order} order */
function what({ sku, qty }) {
  const quantity = element("span", "", qty === undefined ? "" : ` × ${count(qty)}`);
  return element("p", "what truncate", sku ?? "order", quantity);
}

/** @param {Order} order */
function who({ customer, order, status, reason }) {
  const line = element("p", "who truncate");
  if (status === "rejected") {
    line.append(element("span", "reason", reason ?? "rejected"), ` · ${customer}`);
  } else {
    line.append(`${customer} · `, element("span", "mono", shortId(order)));
  }
  return line;
}

/** @param {Order} order */
function price({ total, status, at }) {
  if (status === "rejected") return element("span", "total when", time(at));
  return element("span", "total", total === undefined ? "" : money.format(total));
}

/** @param {Order} order */
function clock({ at }) {
  return element("span", "aside", time(at));
}

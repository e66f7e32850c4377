/**
 * The commands that were sent, and what became of them: each is followed on its own channel.
 */

import { byId, element, setText } from "../ui/elements.js";
import { duration, shortId } from "../ui/format.js";

/** @typedef {import("../gateway.js").GatewayClient} GatewayClient */

/** Commands shown; the oldest ones go, and are no longer followed. */
const MAX_LIVES = 20;

/** Characters of a result that are shown. */
const MAX_OUTCOME = 300;

/** How a status looks. @type {{[status: string]: string}} */
const KINDS = {
  succeeded: "good",
  failed: "bad",
  "dead-lettered": "bad",
  retrying: "warn",
  accepted: "info",
  started: "info",
};

export class Lives {
  /** @type {{row: HTMLLIElement, unsubscribe: () => void}[]} */
  #lives = [];
  #list = byId("lives", HTMLOListElement);

  /** @param {GatewayClient} client */
  constructor(client) {
    this.#client = client;
  }

  #client;

  /**
   * Follow a command that was accepted.
   *
   * @param {string} id
   * @param {string} path
   * @param {number} sentAt as `performance.now()` tells it
   */
  follow(id, path, sentAt) {
    const badge = element("span", "badge", "accepted");
    const name = element("span", "name mono truncate", path);
    const head = element("div", "life-head", name, element("span", "muted mono", shortId(id)), badge);
    const steps = element("ol", "steps");
    const outcome = element("p", "outcome truncate");
    const row = element("li", "life", head, steps, outcome);
    row.title = id;
    row.dataset.testid = "life";
    row.dataset.command = id;
    row.dataset.status = "accepted";
    this.#list.prepend(row);

    const { unsubscribe } = this.#client.follow(id, ({ data }) => {
      const status = String(data?.status);
      row.dataset.status = status;
      badge.className = `badge ${KINDS[status] ?? ""}`;
      setText(badge, status);
      const after = element("span", "after", duration(performance.now() - sentAt));
      steps.append(element("li", "", status, after));
      setText(outcome, outcomeOf(data));
      outcome.title = outcome.textContent ?? "";
    });
    this.#lives.push({ row, unsubscribe });
    this.#forgetOldest();
  }

  #forgetOldest() {
    if (this.#lives.length <= MAX_LIVES) return;
    const oldest = this.#lives.shift();
    oldest?.unsubscribe();
    oldest?.row.remove();
  }
}

/** @param {any} life */
function outcomeOf(life) {
  if (life?.error) return String(life.error);
  if (life?.result === undefined || life.result === null) return "";
  return JSON.stringify(life.result).slice(0, MAX_OUTCOME);
}

/**
 * Places orders at a steady rate for a while.
 */

/** Orders sent and not yet answered. More would only wait in the browser: it opens few connections. */
const MAX_UNDER_WAY = 200;

/** Milliseconds between two looks at the clock. */
const STEP = 20;

/** One order in so many is larger than the shop accepts. */
const TOO_LARGE_ONE_IN = 20;

/** @typedef {{sent: number, accepted: number, failed: number, wanted: number, lastError: string}} Progress */

export class Load {
  /** @type {Progress} */
  progress = { sent: 0, accepted: 0, failed: 0, wanted: 0, lastError: "" };
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #timer;

  /**
   * @param {object} options
   * @param {(order: object) => Promise<unknown>} options.place
   * @param {string[]} options.articles
   * @param {() => void} options.changed called when the load starts, goes on or ends
   */
  constructor({ place, articles, changed }) {
    this.#place = place;
    this.#articles = articles;
    this.#changed = changed;
  }

  #place;
  #articles;
  #changed;

  get isRunning() {
    return this.#timer !== undefined;
  }

  /** @param {number} rate orders per second @param {number} seconds */
  start(rate, seconds) {
    this.stop();
    this.progress = { sent: 0, accepted: 0, failed: 0, wanted: Math.round(rate * seconds), lastError: "" };
    const startedAt = performance.now();
    this.#timer = setInterval(() => {
      const due = Math.min(this.progress.wanted, ((performance.now() - startedAt) / 1000) * rate);
      this.#send(due, this.progress);
      if (this.progress.sent >= this.progress.wanted) this.stop();
      this.#changed();
    }, STEP);
    this.#changed();
  }

  stop() {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#changed();
  }

  /** @param {number} due @param {Progress} progress of the run that these orders belong to */
  #send(due, progress) {
    const underWay = () => progress.sent - progress.accepted - progress.failed;
    while (progress.sent < due && underWay() < MAX_UNDER_WAY) {
      progress.sent += 1;
      this.#place(this.#order()).then(
        () => {
          progress.accepted += 1;
          this.#changed();
        },
        (error) => {
          progress.failed += 1;
          progress.lastError = error.message;
          this.#changed();
        },
      );
    }
  }

  #order() {
    const isTooLarge = Math.random() * TOO_LARGE_ONE_IN < 1;
    return {
      customer: `c-${1 + Math.floor(Math.random() * 60)}`,
      sku: this.#articles[Math.floor(Math.random() * this.#articles.length)],
      qty: isTooLarge ? 120 : 1 + Math.floor(Math.random() * 8),
    };
  }
}

/**
 * One channel that an application follows: where it stands, and who listens. No I/O.
 */

import { EARLIEST, isNewer } from "./positions.js";

/**
 * @typedef {Record<string, unknown> & {
 *   id: string, type: string, source: string, channel: string,
 *   time?: string, subject?: string, data?: any,
 * }} CloudEvent A CloudEvents 1.0 event in its JSON form.
 *
 * @typedef {{channel: string, position: string | null}} Arrival
 *   How an event came: on which channel, and the position after it (null where it was fetched from
 *   the channel's history in one batch, whose events have no positions of their own).
 *
 * @typedef {(event: CloudEvent, arrival: Arrival) => void} Handler
 *
 * @typedef {{recovered: boolean, position?: string}} Reply What the gateway says of a subscription.
 */

/**
 * @typedef {{maxRate?: number, conflate?: boolean}} Pace How a channel is to be heard: deliveries a
 *   second at most, and whether only the latest of what waits is wanted.
 */

export class Channel {
  /** Where to resume: a position, `earliest`, or null to start live. Only moves forward.
   * @type {string | null} */
  cursor;
  /** Whether the present connection has confirmed the subscription. */
  joined = false;
  /** Whether nothing was missed at the last time it was confirmed; null before the first.
   * @type {boolean | null} */
  recovered = null;
  /** @type {Set<Handler>} */
  handlers = new Set();
  /** Set while only the next event can tell whether something is missing; see `confirm`. */
  inDoubt = false;

  /** @param {string} name @param {string | null} after @param {Pace} [pace] */
  constructor(name, after, pace = {}) {
    this.name = name;
    this.cursor = after;
    this.pace = pace;
  }

  /** The pace as the gateway knows it. @returns {{max_rate?: number, conflate?: boolean}} */
  get wish() {
    const { maxRate, conflate } = this.pace;
    return {
      ...(maxRate === undefined ? {} : { max_rate: maxRate }),
      ...(conflate === undefined ? {} : { conflate }),
    };
  }

  /** Whether there is a position to resume from, other than the earliest. */
  get isPlaced() {
    return this.cursor !== null && this.cursor !== EARLIEST;
  }

  /**
   * Take the gateway's confirmation of a subscription that asked for `asked`.
   *
   * A stream of several channels asks for the oldest of their positions. If the gateway then says
   * that something after *that* is gone, it need not be something after ours: if the next event is
   * one that we have, nothing is missing. Until it comes the channel is in doubt.
   *
   * @param {Reply} reply
   * @param {string | null} asked
   * @returns {boolean | null} whether it is recovered, or null while that is in doubt
   */
  confirm(reply, asked) {
    this.joined = true;
    this.inDoubt = !reply.recovered && asked !== this.cursor;
    if (this.cursor === null && reply.position) this.cursor = reply.position;
    if (this.inDoubt) return null;
    this.recovered = reply.recovered;
    return this.recovered;
  }

  /**
   * Move to an event's position.
   *
   * @param {string} position
   * @returns {boolean} false if the event was seen before
   */
  advance(position) {
    if (!isNewer(position, this.cursor)) return false;
    this.cursor = position;
    return true;
  }
}

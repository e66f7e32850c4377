/**
 * Positions: where a subscriber stands in the log. A token is `<epoch>-<ms>-<seq>`; to an
 * application it is opaque.
 */

/** In place of a position: everything that is retained, from the oldest event on. */
export const EARLIEST = "earliest";

/**
 * Compare two positions: below 0 if `left` is the older one, above 0 if it is the newer one.
 * NaN if they belong to different epochs, because then neither comes before the other.
 *
 * Both numbers may be as large as 64 bits, which a JavaScript number cannot hold, so their digits
 * are compared: the longer is the larger, and of the same length the alphabet decides.
 *
 * @param {string} left
 * @param {string} right
 */
export function compare(left, right) {
  const [leftEpoch, leftMs = "", leftSeq = ""] = left.split("-");
  const [rightEpoch, rightMs = "", rightSeq = ""] = right.split("-");
  if (leftEpoch !== rightEpoch) return NaN;
  return compareDigits(leftMs, rightMs) || compareDigits(leftSeq, rightSeq);
}

/** @param {string} left @param {string} right */
function compareDigits(left, right) {
  if (left.length !== right.length) return left.length - right.length;
  return left < right ? -1 : Number(left > right);
}

/**
 * Whether an event at `position` is news to somebody who stands at `cursor`. A position of another
 * epoch is: the log was begun anew, and whoever resumed in it was told `recovered: false`.
 *
 * @param {string} position
 * @param {string | null} cursor
 */
export function isNewer(position, cursor) {
  if (cursor === null || cursor === EARLIEST) return true;
  return !(compare(position, cursor) <= 0);
}

/**
 * The oldest of some positions: the one place from which none of them misses anything.
 * Null where there is no such place, because they belong to different epochs.
 *
 * @param {string[]} positions
 * @returns {string | null}
 */
export function oldest(positions) {
  let [found = null, ...others] = positions;
  for (const position of others) {
    if (found === null) return null;
    const order = compare(position, found);
    if (Number.isNaN(order)) return null;
    if (order < 0) found = position;
  }
  return found;
}

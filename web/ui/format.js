/**
 * Numbers and times as people read them.
 */

const counts = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });

/** 12,345 @param {number} value */
export const count = (value) => counts.format(value);

/** A duration in milliseconds: `<1 ms`, `0.4 ms`, `12 ms`, `1.2 s`. @param {number | null} ms */
export function duration(ms) {
  if (ms === null || Number.isNaN(ms)) return "–";
  if (ms < 0.1) return "<1 ms"; // the clocks that are compared tell whole milliseconds
  if (ms < 10) return `${ms.toFixed(1).replace(".0", "")} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.round(ms / 60_000)} min`;
}

/** 12:04:31 @param {number} at milliseconds since the epoch */
export const time = (at) => clock.format(at);

/** 12:04:31.042 @param {number} at milliseconds since the epoch */
export const preciseTime = (at) => `${clock.format(at)}.${String(at % 1000).padStart(3, "0")}`;

/** The end of an id, which is the part that differs. @param {string} id */
export const shortId = (id) => (id.length > 10 ? `…${id.slice(-8)}` : id);

/**
 * The value below which a share of the samples lies; NaN without samples.
 *
 * @param {number[]} sorted ascending
 * @param {number} share 0 to 1
 */
export function quantile(sorted, share) {
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? NaN;
}

/**
 * The two live charts: events per second, and how long they took from the order to the screen.
 */

import uPlot from "/static/vendor/uplot/uPlot.esm.js";
import { quantile } from "/static/ui/format.js";

/** Seconds that are shown. */
const SPAN = 120;

/** Samples of one second that are looked at; more would not change a quantile that anybody can see. */
const MAX_SAMPLES = 4_000;

/** Milliseconds of the last seconds in which the present median is measured. */
const RECENT = 10;

/** What happened, second by second. */
export class Timeline {
  /** @type {Map<number, {events: number, latencies: number[]}>} */
  #seconds = new Map();
  /** Before it there is nothing to tell, not even that nothing happened. */
  #began = Math.floor(Date.now() / 1000);

  /** @param {number} at milliseconds since the epoch @param {number | null} latency in milliseconds */
  add(at, latency) {
    const second = Math.floor(at / 1000);
    let bucket = this.#seconds.get(second);
    if (!bucket) {
      bucket = { events: 0, latencies: [] };
      this.#seconds.set(second, bucket);
      this.#forget(second - SPAN - RECENT);
    }
    bucket.events += 1;
    if (latency !== null && bucket.latencies.length < MAX_SAMPLES) bucket.latencies.push(latency);
  }

  /** @param {number} until */
  #forget(until) {
    for (const second of this.#seconds.keys()) {
      if (second >= until) return;
      this.#seconds.delete(second);
    }
  }

  /**
   * The columns of the charts, up to the last second that is over. Seconds without events count as
   * zero events and have no latency.
   *
   * @param {number} now milliseconds since the epoch
   */
  columns(now) {
    const last = Math.floor(now / 1000) - 1;
    const seconds = Array.from({ length: SPAN }, (_, index) => last - SPAN + 1 + index);
    const buckets = seconds.map((second) => this.#seconds.get(second));
    const sorted = buckets.map((bucket) => bucket?.latencies.toSorted((a, b) => a - b) ?? []);
    return {
      seconds,
      rates: buckets.map((bucket, index) => bucket?.events ?? this.#silence(seconds[index] ?? 0)),
      medians: sorted.map((samples) => orNull(quantile(samples, 0.5))),
      p95s: sorted.map((samples) => orNull(quantile(samples, 0.95))),
    };
  }

  /** @param {number} second */
  #silence(second) {
    return second < this.#began ? null : 0;
  }

  /** Events of the last second that is over. @param {number} now */
  rate(now) {
    return this.#seconds.get(Math.floor(now / 1000) - 1)?.events ?? 0;
  }

  /** Latencies of the last seconds, ascending. @param {number} now @returns {number[]} */
  recent(now) {
    const from = Math.floor(now / 1000) - RECENT;
    const samples = [];
    for (const [second, bucket] of this.#seconds) if (second >= from) samples.push(...bucket.latencies);
    return samples.sort((a, b) => a - b);
  }
}

/** @param {number} value */
function orNull(value) {
  return Number.isNaN(value) ? null : value;
}

export class Charts {
  /** @param {Timeline} timeline */
  constructor(timeline) {
    this.#timeline = timeline;
    this.#build();
    const rebuild = () => this.#build();
    addEventListener("themechange", rebuild);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuild);
    new ResizeObserver(() => this.#resize()).observe(this.#rateHost);
    // The canvas is drawn in the page's font, which may come after the first drawing.
    document.fonts.ready.then(rebuild);
  }

  #timeline;
  #rateHost = host("chart-rate");
  #latencyHost = host("chart-latency");
  /** @type {uPlot | undefined} */
  #rate;
  /** @type {uPlot | undefined} */
  #latency;

  /** Draw what is there now. */
  update() {
    const { seconds, rates, medians, p95s } = this.#timeline.columns(Date.now());
    this.#rate?.setData([seconds, rates]);
    this.#latency?.setData([seconds, medians, p95s]);
  }

  /** A canvas knows no style sheet: whatever changes colours means to build anew. */
  #build() {
    this.#rate?.destroy();
    this.#latency?.destroy();
    const colours = coloursOf(this.#rateHost);
    const { accent, amber, accentSoft } = colours;
    this.#rate = new uPlot(
      options(this.#rateHost, colours, (value) => `${value}`, [
        { label: "Events", stroke: accent, fill: accentSoft, width: 1.6, points: { show: false } },
      ]),
      [[], []],
      this.#rateHost,
    );
    this.#latency = new uPlot(
      options(this.#latencyHost, colours, (value) => (value < 1000 ? `${value} ms` : `${value / 1000} s`), [
        { label: "Median", stroke: accent, width: 1.6, points: { size: 3, fill: accent } },
        { label: "95%", stroke: amber, width: 1.6, points: { size: 3, fill: amber } },
      ]),
      [[], [], []],
      this.#latencyHost,
    );
    this.update();
  }

  #resize() {
    this.#rate?.setSize(sizeOf(this.#rateHost));
    this.#latency?.setSize(sizeOf(this.#latencyHost));
  }
}

/** @param {string} id */
function host(id) {
  return /** @type {HTMLElement} */ (document.getElementById(id));
}

/** @param {HTMLElement} element */
function sizeOf(element) {
  const { paddingLeft, paddingRight, paddingBottom } = getComputedStyle(element);
  const width = element.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
  return { width, height: element.clientHeight - parseFloat(paddingBottom) };
}

/**
 * The tokens that a chart uses, as the browser resolves them here and now.
 *
 * @param {HTMLElement} element
 */
function coloursOf(element) {
  const probe = element.appendChild(document.createElement("i"));
  const resolve = (/** @type {string} */ token) => {
    probe.style.color = `var(${token})`;
    return getComputedStyle(probe).color;
  };
  const colours = {
    accent: resolve("--accent"),
    accentSoft: resolve("--accent-soft"),
    amber: resolve("--amber"),
    text: resolve("--ink-3"),
    grid: resolve("--line"),
  };
  probe.remove();
  return colours;
}

/**
 * @param {HTMLElement} element
 * @param {ReturnType<typeof coloursOf>} colours
 * @param {(value: number) => string} label
 * @param {uPlot.Series[]} series
 * @returns {uPlot.Options}
 */
function options(element, { text, grid }, label, series) {
  const font = `11px ${getComputedStyle(element).fontFamily}`;
  return {
    ...sizeOf(element),
    legend: { show: false },
    cursor: { show: false },
    padding: [8, 26, 0, 0],
    scales: { y: { range: (_, __, max) => [0, niceMaximum(max)] } },
    axes: [
      { font, stroke: text, grid: { show: false }, ticks: { show: false }, size: 28, gap: 8, space: 80, values: clockLabels },
      {
        font,
        stroke: text,
        grid: { stroke: grid, width: 1 },
        ticks: { show: false },
        size: 52,
        space: 34,
        values: (_, values) => values.map(label),
      },
    ],
    series: [{}, ...series],
  };
}

/** An end of the scale that leaves room above, and does not move with every point. @param {number | null} max */
function niceMaximum(max) {
  const wanted = Math.max(10, (max ?? 0) * 1.15);
  const magnitude = 10 ** Math.floor(Math.log10(wanted));
  return ([1, 2, 4, 5, 6].find((step) => step * magnitude >= wanted) ?? 10) * magnitude;
}

/** @type {uPlot.Axis.DynamicValues} */
function clockLabels(_, seconds) {
  return seconds.map((second) => {
    const at = new Date(second * 1000);
    const parts = [at.getHours(), at.getMinutes(), at.getSeconds()];
    return parts.map((part) => String(part).padStart(2, "0")).join(":");
  });
}

/**
 * The list of events, newest first. Thousands are kept and only those in sight are elements, so the
 * rate at which they come costs next to nothing.
 */

import { drawing } from "../ui/drawing.js";
import { byId, element, setText } from "../ui/elements.js";
import { duration, preciseTime } from "../ui/format.js";

/** @typedef {import("../gateway.js").CloudEvent} CloudEvent */

/**
 * @typedef {object} Record One event as it came.
 * @property {CloudEvent} event
 * @property {string | null} position
 * @property {number} at when it came, in milliseconds since the epoch
 * @property {number | null} latency milliseconds since its `time`; null if it was replayed
 * @property {string} [text] what the filter looks at, once it was asked for
 */

/** Events kept: beyond it the oldest go. */
const MAX_RECORDS = 5_000;

/** Height of a row in pixels, as in console.css. */
const ROW = 34;

/** Milliseconds between two drawings under load. */
const PAUSE = 50;

/** Rows that are ready above and below those in sight, for who scrolls. */
const SPARE = 8;

/** Characters of the data that a row can show at most. */
const MAX_PREVIEW = 220;

export class EventList {
  /** Oldest first. @type {Record[]} */
  #kept = [];
  /** Those that the filter lets through. @type {Record[]} */
  #shown = [];
  /** Those that came since the last drawing. @type {Record[]} */
  #arrived = [];
  #filter = "";
  #isPaused = false;
  #schedule = drawing(() => this.#draw(), PAUSE);
  /** @type {Record | null} */
  #selected = null;
  /** @type {HTMLElement[]} */
  #rows = [];
  #list = byId("list", HTMLElement);
  #length = byId("length", HTMLElement);

  /** @param {(record: Record | null) => void} selected called when another event is selected */
  constructor(selected) {
    this.#onSelected = selected;
    this.#list.addEventListener("scroll", () => this.#schedule(true));
    this.#list.addEventListener("click", (click) => this.#clicked(click));
    this.#list.addEventListener("keydown", (key) => this.#pressed(key));
    new ResizeObserver(() => this.#schedule(true)).observe(this.#list);
  }

  #onSelected;

  /** Events that wait because the list is paused. */
  get waiting() {
    return this.#isPaused ? this.#arrived.length : 0;
  }

  /** @param {Record} record */
  add(record) {
    this.#arrived.push(record);
    if (this.#arrived.length > 2 * MAX_RECORDS) this.#arrived.splice(0, MAX_RECORDS);
    this.#schedule();
  }

  /** @param {boolean} isPaused */
  pause(isPaused) {
    this.#isPaused = isPaused;
    this.#schedule(true);
  }

  clear() {
    this.#kept = [];
    this.#shown = [];
    this.#arrived = [];
    this.select(null);
  }

  /** Show only events that have this text in them. @param {string} text */
  filter(text) {
    this.#filter = text.trim().toLowerCase();
    this.#shown = this.#kept.filter((record) => this.#passes(record));
    this.#list.scrollTop = 0;
    this.#schedule(true);
  }

  /** @param {Record | null} record */
  select(record) {
    this.#selected = record;
    this.#onSelected(record);
    this.#schedule(true);
  }

  /** @param {Record} record */
  #passes(record) {
    if (!this.#filter) return true;
    const { channel, type, subject, data } = record.event;
    record.text ??= `${channel} ${type} ${subject} ${JSON.stringify(data)}`.toLowerCase();
    return record.text.includes(this.#filter);
  }

  #draw() {
    if (!this.#isPaused) this.#takeArrived();
    const count = this.#shown.length;
    this.#length.style.height = `${count * ROW}px`;
    byId("list-empty", HTMLElement).hidden = this.#kept.length > 0;
    this.#list.removeAttribute("aria-activedescendant");
    const first = Math.max(0, Math.floor(this.#list.scrollTop / ROW) - SPARE);
    const visible = Math.min(count - first, Math.ceil(this.#list.clientHeight / ROW) + 2 * SPARE);
    for (let index = 0; index < Math.max(visible, this.#rows.length); index++) {
      this.#drawRow(index, index < visible ? first + index : null);
    }
  }

  /** Take what arrived into the list; what somebody is looking at stays where it is. */
  #takeArrived() {
    const arrived = this.#arrived.filter((record) => this.#passes(record));
    this.#kept.push(...this.#arrived.slice(-MAX_RECORDS));
    this.#shown.push(...arrived.slice(-MAX_RECORDS));
    this.#arrived = [];
    if (this.#kept.length > MAX_RECORDS) this.#kept.splice(0, this.#kept.length - MAX_RECORDS);
    if (this.#shown.length > MAX_RECORDS) this.#shown.splice(0, this.#shown.length - MAX_RECORDS);
    if (this.#list.scrollTop > 0 && arrived.length > 0) {
      this.#length.style.height = `${this.#shown.length * ROW}px`;
      this.#list.scrollTop += arrived.length * ROW;
    }
  }

  /** @param {number} index of the element @param {number | null} place in the list, from the top */
  #drawRow(index, place) {
    const row = (this.#rows[index] ??= this.#makeRow(index));
    const record = place === null ? undefined : this.#shown[this.#shown.length - 1 - place];
    row.hidden = !record;
    if (!record || place === null) return;
    const { event, at, latency } = record;
    row.style.transform = `translateY(${place * ROW}px)`;
    row.dataset.place = String(place);
    row.dataset.event = event.id;
    const isSelected = record === this.#selected;
    row.setAttribute("aria-selected", String(isSelected));
    if (isSelected) this.#list.setAttribute("aria-activedescendant", row.id);
    row.setAttribute("aria-setsize", String(this.#shown.length));
    row.setAttribute("aria-posinset", String(place + 1));
    const texts = [preciseTime(at), event.channel, event.type, previewOf(event), latencyText(latency)];
    texts.forEach((text, column) => setText(/** @type {Node} */ (row.children[column]), text));
  }

  /** @param {number} index */
  #makeRow(index) {
    const cells = ["when", "channel", "type", "data", "latency"].map((name) => element("span", name));
    const row = element("div", "row", ...cells);
    row.id = `row-${index}`;
    row.setAttribute("role", "option");
    row.dataset.testid = "event-row";
    this.#list.append(row);
    return row;
  }

  /** @param {MouseEvent} click */
  #clicked({ target }) {
    const row = target instanceof Element ? target.closest(".row") : null;
    if (row instanceof HTMLElement) this.#selectPlace(Number(row.dataset.place));
  }

  /** @param {KeyboardEvent} key */
  #pressed(key) {
    const last = this.#shown.length - 1;
    const present = this.#selected ? last - this.#shown.indexOf(this.#selected) : -1;
    const page = Math.max(1, Math.floor(this.#list.clientHeight / ROW) - 1);
    /** @type {{[key: string]: number}} */
    const moves = {
      ArrowDown: present + 1,
      ArrowUp: present - 1,
      PageDown: present + page,
      PageUp: present - page,
      Home: 0,
      End: last,
    };
    const place = moves[key.key];
    if (key.key === "Escape") return this.select(null);
    if (place === undefined || last < 0) return;
    key.preventDefault();
    this.#selectPlace(Math.min(last, Math.max(0, place)));
  }

  /** @param {number} place */
  #selectPlace(place) {
    const top = place * ROW;
    const { scrollTop, clientHeight } = this.#list;
    if (top < scrollTop) this.#list.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.#list.scrollTop = top + ROW - clientHeight;
    this.select(this.#shown[this.#shown.length - 1 - place] ?? null);
  }
}

/**
 * The data in one line, without what stands elsewhere in the row anyway.
 *
 * @param {CloudEvent} event
 */
function previewOf({ data, subject }) {
  if (data === undefined) return subject ?? "";
  if (data === null || typeof data !== "object" || Array.isArray(data)) return preview(data);
  const parts = Object.entries(data)
    .filter(([, value]) => value !== subject)
    .map(([name, value]) => `${name}: ${preview(value)}`);
  return parts.join(" · ").slice(0, MAX_PREVIEW);
}

/** @param {unknown} value */
function preview(value) {
  return (typeof value === "string" ? value : JSON.stringify(value)).slice(0, MAX_PREVIEW);
}

/** @param {number | null} latency */
function latencyText(latency) {
  return latency === null ? "replay" : duration(latency);
}

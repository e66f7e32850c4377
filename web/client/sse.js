/**
 * A link to the gateway over Server-Sent Events.
 *
 * An event stream has one set of channels, which is in its address, and one position for all of
 * them. So a change of the set means another EventSource: the new one resumes where the old one
 * stands, the old one goes on until the new one is confirmed, and what both deliver is dropped once.
 * A channel that joins a running stream first has to get a position: one that starts live gets it
 * from an EventSource of its own, one that starts in the past from its history.
 *
 * An EventSource by itself would come back without jitter, give up for good after any HTTP error
 * without saying which, and know nothing of `goodbye`; so the first error ends it here, and the
 * client decides what follows.
 */

import { EARLIEST, isNewer, oldest } from "./positions.js";

/** @typedef {import("./channel.js").Channel} Channel */
/** @typedef {import("./link.js").LinkEvents} LinkEvents */
/** @typedef {import("./errors.js").GatewayError} GatewayError */

/** The close code of a WebSocket that was refused for its credentials. */
const UNAUTHORIZED = 4501;

/** Pages of history to fetch before the rest is left to the stream; bounds the race with a busy channel. */
const MAX_PAGES = 20;

/**
 * @typedef {object} Stream One EventSource and what it carries.
 * @property {EventSource | null} source null until there is a ticket for it
 * @property {boolean} isOver
 * @property {Set<Channel>} channels
 * @property {string | null} asked the position it was opened with
 * @property {string | null} position the newest that it has delivered, which covers all its channels
 */

export class EventSourceLink {
  /** The stream in use. @type {Stream | null} */
  #main = null;
  /** One that will take its place once it is confirmed. @type {Stream | null} */
  #next = null;
  /** One through which live newcomers get their position. @type {Stream | null} */
  #joining = null;
  /** Ends the requests under way when the link is closed. */
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #coalesce;
  /** What is read from its history at present: no stream may carry it meanwhile, or it came twice.
   * @type {Set<Channel>} */
  #replaying = new Set();
  #isOpen = false;
  /** When the gateway was last heard of; 0 until a `position` event shows that heartbeats are seen. */
  #heard = 0;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #watch;

  /**
   * @param {URL} base
   * @param {Map<string, Channel>} channels what to be subscribed to; shared with the client
   * @param {LinkEvents} events
   * @param {{liveness: number, credentials: import("./credentials.js").Credentials}} options
   */
  constructor(base, channels, events, { liveness, credentials }) {
    this.#credentials = credentials;
    this.#base = base;
    this.#channels = channels;
    this.#events = events;
    this.#liveness = liveness;
  }

  #base;
  #channels;
  #events;
  #liveness;
  #credentials;

  open() {
    this.#settle();
  }

  /** The channels have changed: all changes of one turn of the event loop become one change. */
  sync() {
    clearTimeout(this.#coalesce);
    this.#coalesce = setTimeout(() => this.#settle());
  }

  close() {
    clearTimeout(this.#coalesce);
    clearInterval(this.#watch);
    this.#abort.abort();
    this.#end(this.#joining);
    this.#end(this.#next);
    this.#end(this.#main);
    this.#joining = this.#next = this.#main = null;
  }

  /** Compare what is wanted with what is there and take the next step from one to the other. */
  #settle() {
    if (this.#abort.signal.aborted) return;
    const wanted = [...this.#channels.values()];
    if (wanted.length === 0) return this.#rest();
    const current = this.#next ?? this.#main;
    const newcomers = wanted.filter((channel) => !current?.channels.has(channel));
    if (newcomers.length === 0 && current?.channels.size === wanted.length) return;
    const isBeginning = !this.#main && this.#replaying.size === 0;
    if (isBeginning && isOneKind(wanted)) return this.#open(wanted);
    const live = newcomers.filter((channel) => channel.cursor === null);
    const past = this.#credentials.areTickets ? [] : newcomers.filter((channel) => channel.cursor !== null && !this.#fits(channel, wanted));
    if (live.length > 0) this.#join(live);
    if (past.length > 0) void this.#catchUp(past);
    if (live.length === 0 && past.length === 0) this.#open(wanted);
  }

  /** Without a channel there is no stream to open. */
  #rest() {
    this.#end(this.#joining);
    this.#end(this.#next);
    this.#end(this.#main);
    this.#joining = this.#next = this.#main = null;
    this.#isOpen = false;
    this.#events.idle();
  }

  /**
   * Whether a stream that is opened at the oldest position of its channels serves this one as it
   * is: it has got its place, or it has one that throws nothing back that runs already.
   *
   * @param {Channel} channel
   * @param {Channel[]} wanted
   */
  #fits(channel, wanted) {
    if (!channel.isPlaced || this.#replaying.has(channel)) return false;
    return channel.joined || (!this.#main && oldest(placesOf(wanted)) !== null);
  }

  /** Open the stream that is to carry all that is wanted. @param {Channel[]} wanted */
  #open(wanted) {
    this.#fold(this.#main);
    this.#end(this.#next);
    const places = placesOf(wanted);
    const isFromEarliest = wanted.some((channel) => channel.cursor === EARLIEST);
    const asked = isFromEarliest ? EARLIEST : (oldest(places) ?? places[0] ?? null);
    this.#next = this.#stream(wanted, asked, () => this.#promote());
  }

  /** The next stream is confirmed: it takes the place of the present one. */
  #promote() {
    this.#fold(this.#main);
    this.#end(this.#main);
    this.#main = this.#next;
    this.#next = null;
    const isServed = (/** @type {Channel} */ channel) => this.#main?.channels.has(channel);
    if (this.#joining && [...this.#joining.channels].every(isServed)) {
      this.#end(this.#joining);
      this.#joining = null;
    }
    this.sync();
  }

  /** Give live newcomers their position, through a stream of their own. @param {Channel[]} live */
  #join(live) {
    if (this.#joining && live.every((channel) => this.#joining?.channels.has(channel))) return;
    this.#end(this.#joining);
    this.#joining = this.#stream(live, null, () => this.sync());
  }

  /** Give channels that start in the past their position, from their history. @param {Channel[]} past */
  async #catchUp(past) {
    if (this.#replaying.size > 0) return; // at its end there is another look at what is wanted
    this.#replaying = new Set(past);
    try {
      for (const channel of past) await this.#replay(channel);
    } finally {
      this.#replaying.clear();
    }
    this.sync();
  }

  /** @param {Channel} channel */
  async #replay(channel) {
    try {
      for (let page = 0; page < MAX_PAGES && this.#isWanted(channel); page++) {
        if (!(await this.#replayPage(channel))) break;
      }
    } catch (error) {
      if (!this.#abort.signal.aborted) this.#failed([channel], /** @type {GatewayError} */ (error));
    }
  }

  /** @param {Channel} channel @returns {Promise<boolean>} whether there may be more */
  async #replayPage(channel) {
    const url = new URL(`channels/${encodeURIComponent(channel.name)}/history`, this.#base);
    const asked = channel.cursor ?? EARLIEST;
    url.searchParams.set("after", asked);
    const { signal } = this.#abort;
    const response = await this.#credentials.request(url, { signal });
    /** @type {import("./channel.js").CloudEvent[]} */
    const batch = await response.json();
    const position = response.headers.get("Gateway-Position");
    const recovered = response.headers.get("Gateway-Recovered") !== "false";
    if (signal.aborted || !this.#isWanted(channel)) return false;
    if (!channel.joined || !recovered) this.#events.subscribed(channel, { recovered }, asked);
    for (const event of batch) this.#events.event(event, null);
    if (position) channel.cursor = position;
    return batch.length > 0 && position !== null && position !== asked;
  }

  /**
   * @param {Channel[]} channels
   * @param {string | null} asked
   * @param {() => void} confirmed
   * @returns {Stream}
   */
  #stream(channels, asked, confirmed) {
    /** @type {Stream} */
    const stream = { source: null, isOver: false, channels: new Set(channels), asked, position: null };
    if (this.#credentials.areGiven) void this.#connectAs(stream, confirmed);
    else this.#connect(stream, this.#address(channels, asked), confirmed);
    return stream;
  }

  /**
   * Connect with a ticket. It is for this one EventSource: whatever ends it, the next has another.
   *
   * @param {Stream} stream
   * @param {() => void} confirmed
   */
  async #connectAs(stream, confirmed) {
    try {
      const ticket = await this.#credentials.streamTicket(this.#abort.signal);
      if (stream.isOver) return;
      const url = this.#address([...stream.channels], stream.asked);
      url.searchParams.set("ticket", ticket);
      this.#connect(stream, url, confirmed);
    } catch (error) {
      if (!stream.isOver) this.#failed([...stream.channels], /** @type {GatewayError} */ (error));
    }
  }

  /** @param {Stream} stream @param {URL} url @param {() => void} confirmed */
  #connect(stream, url, confirmed) {
    const source = new EventSource(url);
    stream.source = source;
    source.onmessage = (message) => this.#message(stream, message);
    source.onerror = () => void this.#broken(stream);
    source.addEventListener("subscribed", ({ data }) => {
      this.#confirmOpen();
      confirmed();
      this.#confirm(stream, JSON.parse(data).channels);
    });
    source.addEventListener("position", ({ lastEventId }) => {
      stream.position = lastEventId;
      this.#startWatch();
    });
    source.addEventListener("goodbye", ({ data }) => this.#goodbye(JSON.parse(data)));
  }

  #confirmOpen() {
    if (!this.#isOpen) this.#events.opened();
    this.#isOpen = true;
  }

  /** @param {Channel[]} channels @param {string | null} asked */
  #address(channels, asked) {
    const url = new URL("sse", this.#base);
    for (const channel of channels) url.searchParams.append("channel", channel.name);
    if (asked !== null) url.searchParams.set("last_event_id", asked);
    for (const [name, value] of Object.entries(commonWish(channels))) {
      url.searchParams.set(name, String(value));
    }
    return url;
  }

  /** @param {Stream} stream @param {Record<string, import("./channel.js").Reply>} replies */
  #confirm(stream, replies) {
    for (const channel of stream.channels) {
      const reply = replies[channel.name];
      if (reply && this.#isWanted(channel)) this.#events.subscribed(channel, reply, stream.asked);
    }
  }

  /** @param {Stream} stream @param {MessageEvent} message */
  #message(stream, { data, lastEventId }) {
    if (this.#heard) this.#heard = performance.now();
    const event = JSON.parse(data);
    const channel = this.#channels.get(event.channel);
    // One that was left and joined again is another: its events do not come from this stream.
    if (channel && stream.channels.has(channel)) this.#events.event(event, lastEventId);
    stream.position = lastEventId;
  }

  /** Let the channels of a stream stand where it stands. @param {Stream | null} stream */
  #fold(stream) {
    const position = stream?.position;
    if (!stream || !position) return;
    for (const channel of stream.channels) {
      if (isNewer(position, channel.cursor)) channel.cursor = position;
    }
  }

  /** @param {Stream | null} stream */
  #end(stream) {
    if (!stream) return;
    this.#fold(stream);
    stream.isOver = true;
    if (!stream.source) return;
    stream.source.onmessage = stream.source.onerror = null;
    stream.source.close();
  }

  /** @param {{code: number, retry_ms?: number}} goodbye */
  #goodbye({ code, retry_ms: retryMs }) {
    this.#lost({ code, retryMs, reason: "goodbye", final: code >= 4500 && code <= 4999 });
  }

  /** An EventSource does not say why it failed: ask again in a way that does. @param {Stream} stream */
  async #broken(stream) {
    const wasRefused = stream.source?.readyState === EventSource.CLOSED;
    this.#end(stream);
    if (stream === this.#main) this.#main = null;
    if (stream === this.#next) this.#next = null;
    if (stream === this.#joining) this.#joining = null;
    if (!wasRefused) return this.#lost({ reason: "network", final: false });
    const candidates = [...stream.channels].filter((channel) => this.#isWanted(channel));
    for (const channel of candidates) {
      const error = await this.#probe(channel);
      if (this.#abort.signal.aborted) return;
      if (error) return this.#failed([channel], error);
    }
    this.#lost({ reason: "the stream ended", final: false });
  }

  /** Why the gateway refuses this channel, or undefined if it does not. @param {Channel} channel */
  async #probe(channel) {
    const enough = new AbortController();
    try {
      const signal = AbortSignal.any([this.#abort.signal, enough.signal]);
      const url = this.#address([channel], channel.cursor);
      if (this.#credentials.areTickets) {
        url.searchParams.set("ticket", await this.#credentials.streamTicket(signal));
      }
      await this.#credentials.request(url, { signal });
      return undefined;
    } catch (error) {
      return /** @type {GatewayError} */ (error);
    } finally {
      enough.abort();
    }
  }

  /** @param {Channel[]} channels @param {GatewayError} error */
  #failed(channels, error) {
    if (error.isTransient) {
      const retryMs = error.retryAfter === undefined ? undefined : error.retryAfter * 1000;
      return this.#lost({ reason: error.message, retryMs, final: false });
    }
    if (error.status === 401 && this.#credentials.areGiven) {
      return this.#lost({ code: UNAUTHORIZED, reason: error.message, final: true });
    }
    for (const channel of channels) this.#events.refused(channel, error);
  }

  /** @param {import("./link.js").Loss} loss */
  #lost(loss) {
    if (this.#abort.signal.aborted) return;
    this.close();
    this.#events.lost(loss);
  }

  /** @param {Channel} channel */
  #isWanted(channel) {
    return this.#channels.get(channel.name) === channel;
  }

  /**
   * A network can go away without a word. An EventSource hides comments, so silence can be judged
   * only where heartbeats come as `position` events.
   */
  #startWatch() {
    this.#heard = performance.now();
    this.#watch ??= setInterval(() => {
      const silence = performance.now() - this.#heard;
      if (silence > this.#liveness) this.#lost({ reason: "silence", final: false });
    }, this.#liveness / 5);
  }
}

/**
 * What all these channels wish for their pace; nothing where they differ, because a stream has one.
 *
 * @param {Channel[]} channels
 */
function commonWish(channels) {
  const [first = {}, ...others] = channels.map(({ wish }) => wish);
  const text = JSON.stringify(first);
  return others.every((wish) => JSON.stringify(wish) === text) ? first : {};
}

/** The positions that these channels have. @param {Channel[]} channels */
function placesOf(channels) {
  return channels.flatMap(({ cursor, isPlaced }) => (isPlaced && cursor !== null ? cursor : []));
}

/**
 * Whether one position serves all these channels from the start: all live, all from the earliest,
 * or all from positions of which one is the oldest.
 *
 * @param {Channel[]} channels
 */
function isOneKind(channels) {
  const places = placesOf(channels);
  if (places.length === channels.length) return oldest(places) !== null;
  return channels.every(({ cursor }) => cursor === channels[0]?.cursor);
}

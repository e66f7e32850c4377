/**
 * The browser's client of the push gateway: follows channels in order and without gaps, over
 * WebSocket or Server-Sent Events, through reconnections; posts commands; reads histories.
 *
 *     import { GatewayClient } from "/static/gateway.js";
 *
 *     const client = new GatewayClient();
 *     client.on("state", ({ state }) => console.log(state));
 *     client.subscribe("orders", (event) => console.log(event.type, event.data), { after: "earliest" });
 *     client.connect();
 *     const { id } = await client.send("/orders", { customer: "c-19", sku: "tea-250", qty: 2 });
 *
 * ES modules, no dependencies, no build step. Copy this file and the folder `client/` beside it.
 */

import { Channel } from "./client/channel.js";
import { Credentials } from "./client/credentials.js";
import { GatewayError } from "./client/errors.js";
import { EARLIEST } from "./client/positions.js";
import { EventSourceLink } from "./client/sse.js";
import { WebSocketLink } from "./client/websocket.js";

export { EARLIEST, GatewayError };
export { compare as comparePositions } from "./client/positions.js";

/** @typedef {import("./client/channel.js").CloudEvent} CloudEvent */
/** @typedef {import("./client/channel.js").Arrival} Arrival */
/** @typedef {import("./client/channel.js").Handler} Handler */
/** @typedef {import("./client/link.js").Link} Link */
/** @typedef {import("./client/link.js").Loss} Loss */

/** @typedef {"websocket" | "sse"} Transport */

/**
 * @typedef {object} Options
 * @property {string | URL} [url] where the gateway is; without it, where the page came from
 * @property {Transport} [transport] `websocket` unless it says otherwise
 * @property {number} [heartbeat] the gateway's heartbeat in milliseconds (25,000)
 * @property {number} [liveness] silence in milliseconds after which a connection counts as dead
 *   (2.5 heartbeats)
 * @property {string | (() => string | Promise<string>)} [token] a bearer token, or a function that gives
 *   a fresh one: it is called for each connection, and before and after a token has expired
 * @property {() => string | Promise<string>} [ticket] gives a new ticket for one connection, from a
 *   server that may ask `POST /tickets` for it; for pages that hold no token
 * @property {{base?: number, max?: number}} [backoff] milliseconds: the wait before attempt n is
 *   random between 0 and `base * 2^n`, at most `max` (500 and 30,000)
 */

/**
 * @typedef {object} StateChange
 * @property {"connecting" | "open" | "waiting" | "closed"} state `waiting` for the next attempt, for
 *   the network or for a first channel; `closed` for good, until `connect` is called
 * @property {Transport} transport
 * @property {number | null} delay milliseconds to the next attempt, where one is planned
 * @property {number} attempt attempts since the last connection that lasted
 * @property {string} reason why, in a word or two
 * @property {number | null} code the close code, if there was one
 */

/**
 * @typedef {object} Subscribed
 * @property {string} channel
 * @property {boolean} recovered false: something after the position asked for is gone
 * @property {boolean} resumed whether a position was asked for at all
 * @property {string | null} position
 */

/**
 * @typedef {object} ClientEvents
 * @property {StateChange} state
 * @property {Subscribed} subscribed a channel is confirmed, at first and after each reconnection
 * @property {{channel: string, error: GatewayError}} refused a channel that cannot be had; it is dropped
 * @property {{code: number | null, retryMs: number | null}} goodbye
 */

/**
 * @typedef {object} Subscription
 * @property {string} channel
 * @property {string | null} position the newest event seen, to be kept and given as `after` some day
 * @property {boolean | null} recovered as last reported; null before the first report
 * @property {() => void} unsubscribe
 */

/** A connection that lasted this long (ms) was a good one: attempts are counted from zero again. */
const LASTING = 5_000;

/** Close codes: the credentials have expired; they are no good. */
const TOKEN_EXPIRED = 4003;
const UNAUTHORIZED = 4501;

/** What a command's status may end with. */
const FINAL = new Set(["succeeded", "failed", "dead-lettered"]);

export class GatewayClient {
  #base;
  #transport;
  #liveness;
  #backoff;
  #credentials;
  /** The last attempt was refused for its credentials. */
  #wasRefused = false;
  /** @type {Map<string, Channel>} */
  #channels = new Map();
  /** @type {Link | null} */
  #link = null;
  #attempt = 0;
  #openedAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retry;
  /** @type {{[K in keyof ClientEvents]: Set<(detail: ClientEvents[K]) => void>}} */
  #listeners = { state: new Set(), subscribed: new Set(), refused: new Set(), goodbye: new Set() };
  /** @type {StateChange} */
  #state;

  /** @param {Options} [options] */
  constructor(options = {}) {
    const { url = globalThis.location?.origin, transport = "websocket", heartbeat = 25_000 } = options;
    this.#base = new URL(url);
    if (!this.#base.pathname.endsWith("/")) this.#base.pathname += "/";
    this.#credentials = new Credentials(this.#base, options);
    this.#transport = transport;
    this.#liveness = options.liveness ?? 2.5 * heartbeat;
    this.#backoff = { base: 500, max: 30_000, ...options.backoff };
    this.#state = { state: "closed", transport, delay: null, attempt: 0, reason: "new", code: null };
  }

  /** The present state, as `state` events report it. */
  get state() {
    return this.#state;
  }

  get transport() {
    return this.#transport;
  }

  /**
   * Listen to what happens to the client. Returns a function that ends it.
   *
   * @template {keyof ClientEvents} Name
   * @param {Name} name
   * @param {(detail: ClientEvents[Name]) => void} listener
   * @returns {() => void}
   */
  on(name, listener) {
    this.#listeners[name].add(listener);
    return () => void this.#listeners[name].delete(listener);
  }

  /** Connect, and stay connected until `close` or until the gateway says not to come back. */
  connect() {
    if (this.#state.state !== "closed") return;
    globalThis.addEventListener?.("offline", this.#offline);
    globalThis.addEventListener?.("online", this.#online);
    this.#attempt = 0;
    this.#dial();
  }

  /** Close the connection. The subscriptions stay, with their positions: `connect` resumes them. */
  close() {
    this.#shut("closed by the application", null);
  }

  /** Change to another transport. What is subscribed resumes there. @param {Transport} transport */
  use(transport) {
    if (transport === this.#transport) return;
    this.#transport = transport;
    if (this.#state.state === "closed") this.#change("closed", "transport changed");
    else this.#dial();
  }

  /**
   * Be somebody else from now on, or nobody. What is subscribed resumes as that one.
   *
   * @param {import("./client/credentials.js").Sources} sources
   */
  identify(sources) {
    this.#credentials = new Credentials(this.#base, sources);
    this.#wasRefused = false;
    if (this.#state.state !== "closed") this.#dial();
    else if (this.#state.code !== null) this.connect();
  }

  /**
   * Follow a channel; at any time, connected or not.
   *
   * The handler is called for each event once and in order. `after` is a position to resume from, or
   * `"earliest"` for all that is retained; without it only what is new comes. Several handlers may
   * follow one channel; those that come later join live.
   *
   * `maxRate` is how many deliveries a second to have at most, `conflate` whether only the latest of
   * what waits is wanted, where the channel allows that. An event stream has one pace: over SSE they
   * have an effect where all channels that are followed wish for the same.
   *
   * @param {string} channel
   * @param {Handler} handler
   * @param {{after?: string} & import("./client/channel.js").Pace} [options]
   * @returns {Subscription}
   * @throws {Error} if `after` is given for a channel that is followed already
   */
  subscribe(channel, handler, { after, ...pace } = {}) {
    let followed = this.#channels.get(channel);
    if (followed && after !== undefined) {
      throw new Error(`"${channel}" is followed already: one channel has one position`);
    }
    if (!followed) {
      followed = new Channel(channel, after ?? null, pace);
      this.#channels.set(channel, followed);
      this.#link?.sync();
    }
    // A wrapper, so that the same function can be given twice and taken away once.
    const own = /** @type {Handler} */ ((event, arrival) => handler(event, arrival));
    followed.handlers.add(own);
    return this.#subscription(followed, own);
  }

  /** @param {Channel} followed @param {Handler} own @returns {Subscription} */
  #subscription(followed, own) {
    return {
      channel: followed.name,
      get position() {
        return followed.cursor;
      },
      get recovered() {
        return followed.recovered;
      },
      unsubscribe: () => {
        followed.handlers.delete(own);
        if (followed.handlers.size === 0) this.#forget(followed);
      },
    };
  }

  /**
   * Follow the life of a command, from `accepted` to its end.
   *
   * @param {string} id
   * @param {Handler} handler
   * @returns {Subscription} which ends by itself with the command
   */
  follow(id, handler) {
    const subscription = this.subscribe(
      `commands:${id}`,
      (event, arrival) => {
        if (FINAL.has(event.data?.status)) subscription.unsubscribe();
        handler(event, arrival);
      },
      { after: EARLIEST },
    );
    return subscription;
  }

  /**
   * Send a command. Resolves once it is accepted, which means that it is in the log.
   *
   * @param {string} path the command's path, such as `/orders`
   * @param {unknown} data
   * @param {{idempotencyKey?: string, over?: "http" | "websocket", wait?: number}} [options]
   *   `idempotencyKey`: sent again with the same key, it is the same command. `over`: a frame of the
   *   open WebSocket instead of a POST. `wait`: seconds to wait for the outcome (POST only)
   * @returns {Promise<any>} over HTTP `{id, status, status_url, events_url}`, or after a `wait` the
   *   command's status; over WebSocket `{id}`
   * @throws {GatewayError}
   */
  async send(path, data, { idempotencyKey, over = "http", wait } = {}) {
    if (over === "websocket") return this.#sendFrame(path, data, idempotencyKey);
    const headers = new Headers({ "Content-Type": "application/json" });
    if (idempotencyKey !== undefined) headers.set("Idempotency-Key", idempotencyKey);
    if (wait !== undefined) headers.set("Prefer", `wait=${wait}`);
    const url = this.#resolve(path);
    const body = JSON.stringify(data);
    const response = await this.#credentials.request(url, { method: "POST", headers, body });
    return response.json();
  }

  /** @param {string} path @param {unknown} data @param {string | undefined} key */
  async #sendFrame(path, data, key) {
    if (this.#link?.command) return this.#link.command(path, data, key);
    throw new GatewayError("unreachable", 0, "There is no open WebSocket to send the command over.");
  }

  /**
   * Read what a channel retains.
   *
   * @param {string} channel
   * @param {{after?: string, limit?: number}} [options]
   * @returns {Promise<{events: CloudEvent[], position: string | null, recovered: boolean}>} with the
   *   position to subscribe with
   * @throws {GatewayError}
   */
  async history(channel, { after, limit } = {}) {
    const url = this.#resolve(`channels/${encodeURIComponent(channel)}/history`);
    if (after !== undefined) url.searchParams.set("after", after);
    if (limit !== undefined) url.searchParams.set("limit", String(limit));
    const response = await this.#credentials.request(url);
    return {
      events: await response.json(),
      position: response.headers.get("Gateway-Position"),
      recovered: response.headers.get("Gateway-Recovered") !== "false",
    };
  }

  /** @param {string} path */
  #resolve(path) {
    return new URL(path.replace(/^\/+/, ""), this.#base);
  }

  /** Make the next attempt to connect, now. */
  #dial() {
    this.#hangUp();
    this.#change("connecting", "connecting");
    const Kind = this.#transport === "sse" ? EventSourceLink : WebSocketLink;
    const link = new Kind(this.#base, this.#channels, this.#linkEvents(), {
      liveness: this.#liveness,
      credentials: this.#credentials,
    });
    this.#link = link;
    link.open();
  }

  /** @returns {import("./client/link.js").LinkEvents} */
  #linkEvents() {
    return {
      opened: () => {
        this.#openedAt = performance.now();
        this.#wasRefused = false;
        this.#change("open", "connected");
      },
      idle: () => this.#change("waiting", "no channel"),
      subscribed: (channel, reply, asked) => this.#confirmed(channel, reply, asked),
      event: (event, position) => this.#deliver(event, position),
      standing: (position) => {
        for (const channel of this.#channels.values()) if (channel.joined) channel.advance(position);
      },
      refused: (channel, error) => {
        this.#forget(channel);
        this.#emit("refused", { channel: channel.name, error });
      },
      lost: (loss) => this.#lost(loss),
    };
  }

  /** @param {Channel} channel @param {import("./client/channel.js").Reply} reply @param {string | null} asked */
  #confirmed(channel, reply, asked) {
    const isNews = !channel.joined;
    const recovered = channel.confirm(reply, asked);
    if (recovered === false || (isNews && recovered)) this.#report(channel, asked !== null);
  }

  /** @param {Channel} channel @param {boolean} resumed */
  #report(channel, resumed) {
    const { name, recovered, cursor } = channel;
    this.#emit("subscribed", { channel: name, recovered: recovered === true, resumed, position: cursor });
  }

  /** @param {CloudEvent} event @param {string | null} position */
  #deliver(event, position) {
    const channel = this.#channels.get(event.channel);
    if (!channel?.joined) return;
    const isNew = position === null || channel.advance(position);
    if (channel.inDoubt) {
      channel.inDoubt = false;
      channel.recovered = !isNew;
      this.#report(channel, true);
    }
    if (!isNew) return;
    for (const handler of channel.handlers) {
      try {
        handler(event, { channel: channel.name, position });
      } catch (error) {
        // One handler's mistake is shown where mistakes are shown, and is not the next one's.
        reportError(error);
      }
    }
  }

  /** @param {Channel} channel */
  #forget(channel) {
    if (this.#channels.get(channel.name) !== channel) return;
    this.#channels.delete(channel.name);
    this.#link?.sync();
  }

  /** @param {Loss} loss */
  #lost({ reason, final, ...loss }) {
    const { code = null, retryMs = null } = loss;
    this.#hangUp();
    if (reason === "goodbye") this.#emit("goodbye", { code, retryMs });
    if (code === TOKEN_EXPIRED || code === UNAUTHORIZED) this.#credentials.forget();
    if (final && !this.#mayTryAgain(code)) return this.#shut(reason, code);
    if (this.#openedAt && performance.now() - this.#openedAt > LASTING) this.#attempt = 0;
    this.#openedAt = 0;
    const delay = retryMs ?? fullJitter(this.#attempt, this.#backoff);
    this.#attempt += 1;
    this.#retry = setTimeout(() => this.#dial(), delay);
    this.#change("waiting", reason, { delay, code });
  }

  /**
   * Whether a refusal is worth another attempt: with other credentials, once.
   *
   * @param {number | null} code
   */
  #mayTryAgain(code) {
    if (code !== UNAUTHORIZED || !this.#credentials.areRenewable || this.#wasRefused) return false;
    this.#wasRefused = true;
    return true;
  }

  /** @param {string} reason @param {number | null} code */
  #shut(reason, code) {
    globalThis.removeEventListener?.("offline", this.#offline);
    globalThis.removeEventListener?.("online", this.#online);
    this.#hangUp();
    this.#change("closed", reason, { code });
  }

  #hangUp() {
    clearTimeout(this.#retry);
    this.#link?.close();
    this.#link = null;
    for (const channel of this.#channels.values()) channel.joined = channel.inDoubt = false;
  }

  /** The browser has no network: a socket may not notice for minutes, so it is dropped. */
  #offline = () => {
    this.#hangUp();
    this.#change("waiting", "offline");
  };

  #online = () => {
    this.#attempt = 0;
    this.#dial();
  };

  /**
   * @param {StateChange["state"]} state
   * @param {string} reason
   * @param {{delay?: number | null, code?: number | null}} [more]
   */
  #change(state, reason, more) {
    const { delay = null, code = null } = more ?? {};
    this.#state = { state, transport: this.#transport, delay, attempt: this.#attempt, reason, code };
    this.#emit("state", this.#state);
  }

  /**
   * @template {keyof ClientEvents} Name
   * @param {Name} name
   * @param {ClientEvents[Name]} detail
   */
  #emit(name, detail) {
    for (const listener of this.#listeners[name]) listener(detail);
  }
}

/**
 * Milliseconds to wait before an attempt: exponential backoff with full jitter, so that thousands
 * of clients that lost one server do not come back as one wave.
 * https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
 *
 * @param {number} attempt
 * @param {{base: number, max: number}} backoff
 */
function fullJitter(attempt, { base, max }) {
  return Math.random() * Math.min(max, base * 2 ** attempt);
}

/**
 * A link to the gateway over WebSocket: JSON text frames in both directions.
 */

import { GatewayError } from "./errors.js";

/** @typedef {import("./channel.js").Channel} Channel */
/** @typedef {import("./link.js").LinkEvents} LinkEvents */
/** @typedef {{channel: Channel} | {introduces: boolean} | {resolve: (value: any) => void, reject: (reason: GatewayError) => void}} Request */

/** Close codes from here to 4999 mean: do not come back, it would be the same again. */
const FIRST_REFUSAL = 4500;

/** Milliseconds before its end at which a token is exchanged; sooner where it lasts only briefly. */
const LEAD = 30_000;
/** Milliseconds between two attempts at least, and what a timer can wait at most. */
const MIN_WAIT = 1_000;
const MAX_WAIT = 2 ** 31 - 1;

export class WebSocketLink {
  /** @type {WebSocket | null} */
  #socket = null;
  #requests = 0;
  /** Requests without a reply yet, by their id. @type {Map<number, Request>} */
  #pending = new Map();
  /** What this connection is subscribed to, or has asked for. @type {Map<string, Channel>} */
  #asked = new Map();
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
    this.#channels = channels;
    this.#events = events;
    this.#liveness = liveness;
    this.url = new URL("ws", base);
    this.url.protocol = this.url.protocol.replace("http", "ws");
  }

  #channels;
  #events;
  #liveness;
  #credentials;
  #isClosed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #renewal;

  open() {
    if (this.#credentials.areGiven) void this.#openAs();
    else this.#dial(null);
  }

  /** Get the credentials first: the gateway does not wait for long for those who come without. */
  async #openAs() {
    try {
      const introduction = await this.#credentials.introduction();
      if (!this.#isClosed) this.#dial(introduction);
    } catch (error) {
      if (!this.#isClosed) this.#lost(1006, /** @type {Error} */ (error).message);
    }
  }

  /** @param {object | null} introduction */
  #dial(introduction) {
    const socket = new WebSocket(this.url);
    this.#socket = socket;
    this.#startWatch();
    socket.onopen = () => {
      if (introduction) this.#request({ authenticate: introduction }, { introduces: true });
      else this.#events.opened();
      this.sync(); // which waits at the gateway until it knows who asks
    };
    socket.onmessage = ({ data }) => {
      this.#heard = performance.now();
      this.#read(JSON.parse(data));
    };
    socket.onclose = ({ code, reason }) => this.#lost(code, reason || "connection lost");
  }

  /** Subscribe to what is new among the channels and unsubscribe from what is gone. */
  sync() {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    for (const [name, channel] of this.#asked) {
      if (this.#channels.get(name) !== channel) {
        this.#asked.delete(name);
        this.#socket.send(JSON.stringify({ id: ++this.#requests, unsubscribe: { channel: name } }));
      }
    }
    for (const channel of this.#channels.values()) {
      if (!this.#asked.has(channel.name)) this.#subscribe(channel);
    }
  }

  /** @param {Channel} channel */
  #subscribe(channel) {
    this.#asked.set(channel.name, channel);
    const after = channel.cursor === null ? {} : { after: channel.cursor };
    const wish = { channel: channel.name, ...after, ...channel.wish };
    this.#request({ subscribe: wish }, { channel });
  }

  /**
   * Send a command as a frame.
   *
   * @param {string} path
   * @param {unknown} data
   * @param {string | undefined} key its idempotency key
   * @returns {Promise<{id: string}>}
   */
  command(path, data, key) {
    return new Promise((resolve, reject) => {
      if (this.#socket?.readyState !== WebSocket.OPEN) {
        reject(new GatewayError("unreachable", 0, "The WebSocket is not open."));
        return;
      }
      const command = { path, data, ...(key === undefined ? {} : { idempotency_key: key }) };
      this.#request({ command }, { resolve, reject });
    });
  }

  /** Close the connection without a further word to the client. */
  close() {
    this.#isClosed = true;
    clearInterval(this.#watch);
    clearTimeout(this.#renewal);
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    for (const request of this.#pending.values()) {
      if ("reject" in request) {
        const detail = "The connection was lost before the reply: the command may have been accepted.";
        request.reject(new GatewayError("unreachable", 0, detail));
      }
    }
    this.#pending.clear();
  }

  /** @param {object} frame @param {Request} request */
  #request(frame, request) {
    const id = ++this.#requests;
    this.#pending.set(id, request);
    this.#socket?.send(JSON.stringify({ id, ...frame }));
  }

  /** @param {any} frame */
  #read(frame) {
    if (frame.event) this.#events.event(frame.event, frame.position);
    else if (frame.subscribed) this.#subscribed(frame.id, frame.subscribed);
    else if (frame.position) this.#events.standing(frame.position);
    else if (frame.authenticated) this.#introduced(frame.id, frame.authenticated);
    else if (frame.refreshed) this.#introduced(frame.id, frame.refreshed);
    else if (frame.unsubscribed?.error) this.#withdrawn(frame.unsubscribed);
    else if (frame.accepted) this.#settle(frame.id, (request) => request.resolve(frame.accepted));
    else if (frame.goodbye) this.#lost(frame.goodbye.code, "goodbye", frame.goodbye.retry_ms);
    else if (frame.error) this.#refused(frame.id, frame.error);
  }

  /** @param {number} id @param {import("./channel.js").Reply} reply */
  #subscribed(id, reply) {
    const request = this.#pending.get(id);
    this.#pending.delete(id);
    if (request && "channel" in request && this.#isWanted(request.channel)) {
      this.#events.subscribed(request.channel, reply, request.channel.cursor);
    }
  }

  /**
   * The gateway knows who we are, and for how long.
   *
   * @param {number} id
   * @param {{expires_in_ms?: number}} reply
   */
  #introduced(id, { expires_in_ms: left }) {
    const request = this.#pending.get(id);
    this.#pending.delete(id);
    if (left !== undefined) this.#renewIn(left - Math.min(LEAD, left / 3));
    if (request && "introduces" in request && request.introduces) this.#events.opened();
  }

  /** @param {number} wait milliseconds */
  #renewIn(wait) {
    clearTimeout(this.#renewal);
    if (!this.#credentials.areRenewable) return;
    const delay = Math.min(Math.max(wait, MIN_WAIT), MAX_WAIT);
    this.#renewal = setTimeout(() => void this.#renew(), delay);
  }

  /** Stay for longer, without a new connection. What fails here is tried again until it closes. */
  async #renew() {
    try {
      const refresh = await this.#credentials.introduction();
      if (!this.#isClosed) this.#request({ refresh }, { introduces: false });
    } catch {
      if (!this.#isClosed) this.#renewIn(LEAD / 6);
    }
  }

  /** A subscription was ended, because we may not have it any more. @param {any} reply */
  #withdrawn({ channel: name, error: { code, status, detail } }) {
    const channel = this.#asked.get(name);
    if (channel && this.#isWanted(channel)) this.#drop(channel, new GatewayError(code, status, detail));
  }

  /** @param {number} id @param {(request: Extract<Request, {resolve: unknown}>) => void} answer */
  #settle(id, answer) {
    const request = this.#pending.get(id);
    this.#pending.delete(id);
    if (request && "resolve" in request) answer(request);
  }

  /** @param {number} id @param {{code: string, status: number, detail: string}} problem */
  #refused(id, problem) {
    const error = new GatewayError(problem.code, problem.status, problem.detail);
    const request = this.#pending.get(id);
    if (request && "channel" in request) {
      this.#pending.delete(id);
      if (!this.#isWanted(request.channel)) return;
      if (error.isTransient) this.#lost(1013, error.message);
      else this.#drop(request.channel, error);
    } else if (request && "introduces" in request) {
      this.#pending.delete(id);
      if (!request.introduces) this.#renewIn(LEAD / 6);
    } else {
      this.#settle(id, ({ reject }) => reject(error));
    }
  }

  /** @param {Channel} channel @param {GatewayError} error */
  #drop(channel, error) {
    this.#asked.delete(channel.name);
    this.#events.refused(channel, error);
  }

  /** Whether a reply still concerns somebody. @param {Channel} channel */
  #isWanted(channel) {
    return this.#channels.get(channel.name) === channel;
  }

  /** @param {number} code @param {string} reason @param {number} [retryMs] */
  #lost(code, reason, retryMs) {
    this.close();
    this.#events.lost({ code, reason, retryMs, final: code >= FIRST_REFUSAL && code <= 4999 });
  }

  /** A network can go away without a word; a heartbeat that does not come is how that shows. */
  #startWatch() {
    this.#heard = performance.now();
    this.#watch = setInterval(() => {
      if (performance.now() - this.#heard > this.#liveness) this.#lost(1006, "silence");
    }, this.#liveness / 5);
  }
}

/**
 * Who the client is: a token, or tickets, and where to get another one. Nothing of it is kept
 * anywhere but in memory.
 */

import { GatewayError, request } from "./errors.js";

/**
 * @typedef {object} Sources
 * @property {string | (() => string | Promise<string>)} [token] a bearer token, or what gives a fresh one
 * @property {() => string | Promise<string>} [ticket] gives a new ticket for one connection
 */

export class Credentials {
  #base;
  #token;
  #ticket;
  /** The token in use. @type {string | null} */
  #current = null;

  /** @param {URL} base @param {Sources} sources */
  constructor(base, { token, ticket }) {
    this.#base = base;
    this.#token = token;
    this.#ticket = ticket;
  }

  /** Whether there is anything to show. */
  get areGiven() {
    return this.#token !== undefined || this.#ticket !== undefined;
  }

  /** Whether there can be others than those that were refused. */
  get areRenewable() {
    return typeof this.#token === "function" || this.#ticket !== undefined;
  }

  /** Whether only connections can be opened with them, and no requests made. */
  get areTickets() {
    return this.#token === undefined && this.#ticket !== undefined;
  }

  /** Those in use are not good any more. */
  forget() {
    this.#current = null;
  }

  /**
   * What a WebSocket says of itself, with a fresh credential.
   *
   * @returns {Promise<{token: string} | {ticket: string}>}
   * @throws {GatewayError} if there is none now
   */
  async introduction() {
    if (this.#token !== undefined) return { token: await this.#renew() };
    return { ticket: await this.#ask(this.#ticket) };
  }

  /**
   * A ticket for one event stream, whose address is all that can tell who it is.
   *
   * @param {AbortSignal} signal
   * @returns {Promise<string>}
   * @throws {GatewayError}
   */
  async streamTicket(signal) {
    if (this.#ticket !== undefined) return this.#ask(this.#ticket);
    const response = await this.request(new URL("tickets", this.#base), { method: "POST", signal });
    return (await response.json()).ticket;
  }

  /**
   * Make a request with the token, if there is one; once more with a fresh one if it is refused.
   *
   * @param {URL} url
   * @param {RequestInit} [init]
   * @returns {Promise<Response>}
   * @throws {GatewayError}
   */
  async request(url, init) {
    if (this.#token === undefined) return request(url, init);
    const isFresh = this.#current === null;
    const token = this.#current ?? (await this.#renew());
    try {
      return await request(url, bearing(token, init));
    } catch (error) {
      const isRefused = error instanceof GatewayError && error.status === 401;
      if (!isRefused || isFresh || !this.areRenewable) throw error;
    }
    return request(url, bearing(await this.#renew(), init));
  }

  async #renew() {
    this.#current = await this.#ask(this.#token);
    return this.#current;
  }

  /** @param {Sources["token"]} source */
  async #ask(source) {
    try {
      return /** @type {string} */ (typeof source === "function" ? await source() : source);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new GatewayError("no-credentials", 0, `No credentials could be had: ${reason}`);
    }
  }
}

/** @param {string} token @param {RequestInit} [init] @returns {RequestInit} */
function bearing(token, init) {
  const headers = new Headers(init?.headers);
  headers.set("Authorization", `Bearer ${token}`);
  return { ...init, headers };
}

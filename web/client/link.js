/**
 * What both transports have in common: one connection to the gateway, from `open` until it is lost
 * or closed. A link never comes back by itself; its client decides whether another is opened.
 */

/** @typedef {import("./channel.js").Channel} Channel */
/** @typedef {import("./channel.js").CloudEvent} CloudEvent */
/** @typedef {import("./errors.js").GatewayError} GatewayError */

/**
 * @typedef {object} Loss Why a connection is over.
 * @property {string} reason
 * @property {number} [code] the close code, if there was one
 * @property {number} [retryMs] when the gateway wants to see us again, if it said so
 * @property {boolean} final whether the gateway wants us not to come back
 */

/**
 * @typedef {object} LinkEvents What a link tells its client.
 * @property {() => void} opened
 * @property {() => void} idle there is no channel, so there is no connection (SSE)
 * @property {(channel: Channel, reply: import("./channel.js").Reply, asked: string | null) => void} subscribed
 * @property {(event: CloudEvent, position: string | null) => void} event
 * @property {(position: string) => void} standing every subscribed channel stands here now
 * @property {(channel: Channel, error: GatewayError) => void} refused
 * @property {(loss: Loss) => void} lost at most once, and the last word of a link
 */

/**
 * @typedef {object} Link
 * @property {() => void} open
 * @property {() => void} sync the set of channels has changed
 * @property {() => void} close
 * @property {(path: string, data: unknown, key: string | undefined) => Promise<{id: string}>} [command]
 */

export {};

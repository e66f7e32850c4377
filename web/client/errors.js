/**
 * How the gateway says no, as an error with the members of its problem document (RFC 9457).
 */

export class GatewayError extends Error {
  /**
   * @param {string} code what programs compare: `forbidden`, `validation-failed`, ...; `unreachable`
   *   where no answer came
   * @param {number} status the HTTP status, 0 where no answer came
   * @param {string} detail one sentence: what was expected and what came
   * @param {Record<string, unknown>} [problem] the whole problem document
   */
  constructor(code, status, detail, problem = {}) {
    super(detail);
    this.name = "GatewayError";
    this.code = code;
    this.status = status;
    this.detail = detail;
    this.problem = problem;
  }

  /** Whether the same request may be answered otherwise a little later. */
  get isTransient() {
    if (this.code === "too-many-subscriptions") return false;
    return this.status === 0 || this.status >= 500 || [408, 425, 429].includes(this.status);
  }

  /** Seconds of `Retry-After`, if the answer had one. @type {number | undefined} */
  retryAfter;
}

/**
 * Make a request; what is no success becomes a `GatewayError`.
 *
 * @param {URL} url
 * @param {RequestInit} [init]
 * @returns {Promise<Response>}
 */
export async function request(url, init) {
  /** @type {Response} */
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    if (init?.signal?.aborted) throw error;
    throw new GatewayError("unreachable", 0, `No answer from ${url.host}.`);
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** @param {Response} response */
async function problemOf(response) {
  /** @type {any} */
  const problem = await response.json().catch(() => ({}));
  const { code = "unknown", detail = `${response.status} ${response.statusText}` } = problem ?? {};
  const error = new GatewayError(code, response.status, detail, problem ?? {});
  const retryAfter = Number(response.headers.get("Retry-After"));
  if (retryAfter > 0) error.retryAfter = retryAfter;
  return error;
}

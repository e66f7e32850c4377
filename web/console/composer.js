/**
 * The form that posts a command.
 */

import { GatewayError } from "../gateway.js";
import { byId, setText } from "../ui/elements.js";

/** @typedef {import("../gateway.js").GatewayClient} GatewayClient */
/** @typedef {{path: string, type: string, schema: unknown, example: unknown}} KnownCommand */

export class Composer {
  #known = byId("known", HTMLSelectElement);
  #path = byId("path", HTMLInputElement);
  #body = byId("body", HTMLTextAreaElement);
  #key = byId("key", HTMLInputElement);
  #note = byId("command-note", HTMLElement);
  /** @type {KnownCommand[]} */
  #commands = [];

  /**
   * @param {GatewayClient} client
   * @param {(id: string, path: string, sentAt: number) => void} accepted
   */
  constructor(client, accepted) {
    this.#client = client;
    this.#accepted = accepted;
    const form = byId("command", HTMLFormElement);
    form.addEventListener("submit", (submission) => {
      submission.preventDefault();
      void this.#send();
    });
    this.#known.addEventListener("change", () => this.#choose(this.#known.selectedIndex));
    this.#body.addEventListener("input", () => this.#parse());
    this.#body.addEventListener("keydown", (key) => {
      if (key.key === "Enter" && (key.ctrlKey || key.metaKey)) form.requestSubmit();
    });
    byId("format", HTMLButtonElement).addEventListener("click", () => this.#format());
    byId("new-key", HTMLButtonElement).addEventListener("click", () => {
      this.#key.value = newKey();
    });
  }

  #client;
  #accepted;

  /** Offer what is configured. @param {KnownCommand[]} commands */
  offer(commands) {
    this.#commands = commands;
    const field = byId("known-field", HTMLElement);
    field.hidden = commands.length === 0;
    this.#known.replaceChildren(...commands.map(({ type, path }) => new Option(`${type} · ${path}`)));
    this.#choose(0);
  }

  /** @param {number} index */
  #choose(index) {
    const command = this.#commands[index];
    if (!command) return;
    this.#path.value = command.path;
    this.#body.value = JSON.stringify(command.example ?? {}, null, 2);
    this.#parse();
    setText(this.#note, "");
  }

  /** Read the body, and say what is wrong with it. @returns {{data: unknown} | null} */
  #parse() {
    try {
      const data = JSON.parse(this.#body.value);
      this.#invalid("");
      return { data };
    } catch (error) {
      this.#invalid(error instanceof Error ? error.message : String(error));
      return null;
    }
  }

  /** @param {string} why */
  #invalid(why) {
    setText(byId("body-note", HTMLElement), why);
    this.#body.setAttribute("aria-invalid", String(why !== ""));
  }

  #format() {
    const parsed = this.#parse();
    if (parsed) this.#body.value = JSON.stringify(parsed.data, null, 2);
  }

  async #send() {
    setText(this.#note, "");
    const parsed = this.#parse();
    if (!parsed) return this.#body.focus();
    const path = this.#path.value.trim();
    const [parameter] = /\{\w+\}/.exec(path) ?? [];
    if (!path || parameter) {
      setText(this.#note, parameter ? `Put a value in place of ${parameter}.` : "Type a path.");
      return this.#path.focus();
    }
    const over = overWebSocket() ? "websocket" : "http";
    const key = this.#key.value.trim();
    const sentAt = performance.now();
    try {
      const options = key ? { over, idempotencyKey: key } : { over };
      const { id } = await this.#client.send(path, parsed.data, /** @type {any} */ (options));
      this.#accepted(id, path, sentAt);
    } catch (error) {
      setText(this.#note, explain(error));
    }
  }
}

/** A refusal in one text, with what failed in the data if the gateway says so. @param {unknown} error */
function explain(error) {
  if (!(error instanceof GatewayError)) return String(error);
  const { status, detail, problem } = error;
  const first = Array.isArray(problem.errors) ? problem.errors[0] : undefined;
  const more = Object.values(first && typeof first === "object" ? first : {})
    .map(String)
    .filter((text) => text && !detail.includes(text));
  return [status ? `${status}:` : "", detail, more.length > 0 ? `(${more.join(" ")})` : ""]
    .filter(Boolean)
    .join(" ");
}

/** A key nobody has used. `randomUUID` would need a secure context. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function overWebSocket() {
  const chosen = document.querySelector('input[name="over"]:checked');
  return chosen instanceof HTMLInputElement && chosen.value === "websocket";
}

/**
 * The controls of a connection that both pages have: its state, in words, and the choice of transport.
 */

/** @typedef {import("../gateway.js").GatewayClient} GatewayClient */
/** @typedef {import("../gateway.js").StateChange} StateChange */

/**
 * What to say of a state. Nothing here depends on the time, so that a screen reader hears each
 * state once; the countdown is beside it.
 *
 * @param {StateChange} change
 */
export function describe({ state, reason, code }) {
  if (state === "open") return "Live";
  if (state === "connecting") return "Connecting";
  if (state === "waiting" && reason === "offline") return "Offline";
  if (state === "waiting" && reason === "no channel") return "No channel yet";
  if (state === "waiting") return "Reconnecting";
  return code === null ? "Disconnected" : `Refused (${code})`;
}

/**
 * Keep the pill, its countdown and the transport choice in step with a client.
 *
 * @param {GatewayClient} client
 */
export function showConnection(client) {
  const pill = /** @type {HTMLElement} */ (document.getElementById("state"));
  const words = /** @type {HTMLElement} */ (document.getElementById("state-words"));
  const countdown = /** @type {HTMLElement} */ (document.getElementById("state-countdown"));
  let dueAt = 0;

  client.on("state", (change) => {
    pill.dataset.state = change.state === "closed" && change.code !== null ? "refused" : change.state;
    pill.dataset.reason = change.reason;
    pill.title = change.reason;
    words.textContent = describe(change);
    dueAt = change.delay === null ? 0 : performance.now() + change.delay;
    showCountdown();
  });
  setInterval(showCountdown, 100);

  function showCountdown() {
    const left = Math.max(0, dueAt - performance.now());
    countdown.textContent = dueAt && left > 300 ? ` in ${(left / 1000).toFixed(1)} s` : "";
  }

  for (const choice of transportChoices()) {
    choice.checked = choice.value === client.transport;
    choice.addEventListener("change", () => {
      localStorage.setItem("transport", choice.value);
      client.use(choice.value === "sse" ? "sse" : "websocket");
    });
  }
}

/** The transport that was chosen last. @returns {import("../gateway.js").Transport} */
export function keptTransport() {
  return localStorage.getItem("transport") === "sse" ? "sse" : "websocket";
}

function transportChoices() {
  return /** @type {NodeListOf<HTMLInputElement>} */ (
    document.querySelectorAll('input[name="transport"]')
  );
}

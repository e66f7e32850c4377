/**
 * When to draw: events come thousands of times a second, frames sixty times, and nobody reads faster
 * than a few times a second.
 */

/** So many times as long as a drawing took, the next one waits: most of the time is for events and input. */
const REST = 4;

/**
 * Make a drawing that can be asked for at any rate. The first request is met with the next frame,
 * all that follow within the pause with one frame after it.
 *
 * @param {() => void} draw
 * @param {number} pause milliseconds between two drawings, at least
 * @returns {(now?: boolean) => void} asks for a drawing; `now` does not wait for the pause
 */
export function drawing(draw, pause = 100) {
  let isScheduled = false;
  let drawnAt = -Infinity;
  let cost = 0;

  function frame() {
    isScheduled = false;
    drawnAt = performance.now();
    draw();
    // A task of its own comes after the browser's part of the work, which is the larger one.
    setTimeout(() => {
      cost = performance.now() - drawnAt;
    });
  }

  return (now = false) => {
    if (isScheduled) return;
    isScheduled = true;
    const wait = now ? 0 : drawnAt + Math.max(pause, REST * cost) - performance.now();
    if (wait > 0) setTimeout(() => requestAnimationFrame(frame), wait);
    else requestAnimationFrame(frame);
  };
}

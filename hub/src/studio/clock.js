/**
 * clock.js: the times of a track on the page's clock.
 *
 * Owns: the offset between what a source stamps on its pictures or sound, and when they come. Sources count from
 * anywhere, and a sound card's second is not the machine's. What comes soonest after its making shows the offset best,
 * so the least lag of a window counts; a smaller difference than TOLERANCE is left alone, since each change is heard.
 * Pure: tests/hub/studio/ runs it in Node.
 */

const WINDOW = 10_000; // ms
const TOLERANCE = 80_000; // us

export class Clock {
  #offset = null; // us
  #least = Infinity;
  #until = 0;

  /** Something with this stamp (us) came now (ms). */
  look(stamp, now) {
    const lag = now * 1000 - stamp;
    if (this.#offset === null) {
      this.#offset = lag;
      this.#until = now + WINDOW;
    }
    this.#least = Math.min(this.#least, lag);
    if (now < this.#until) return;
    if (Math.abs(this.#least - this.#offset) > TOLERANCE) this.#offset = this.#least;
    this.#least = Infinity;
    this.#until = now + WINDOW;
  }

  /** The stamp on the page's clock, in us. */
  at(stamp) {
    return stamp + (this.#offset ?? 0);
  }

  /** Another source follows, which counts from elsewhere. */
  reset() {
    this.#offset = null;
    this.#least = Infinity;
  }
}

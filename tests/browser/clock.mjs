/**
 * clock.mjs: time and chance for tests of the page client alone, under Node: a clock that only the test advances, and random
 * numbers with a seed.
 *
 * Owns its timers. Knows nothing of the page client: who uses it gives `set` and `clear` to it as a browser's timers.
 */

/** A fake clock, advanced by the test. */
export class Clock {
  now = 1_000_000;
  #timers = new Map();
  #last = 0;

  set(run, wait, every = 0) {
    this.#timers.set((this.#last += 1), { at: this.now + Math.max(0, wait), run, every });
    return this.#last;
  }

  clear(timer) { this.#timers.delete(timer); }

  pass(duration) {
    const end = this.now + duration;
    for (;;) {
      let due = null;
      for (const timer of this.#timers) if (timer[1].at <= end && !(due?.[1].at <= timer[1].at)) due = timer;
      if (!due) break;
      const [number, timer] = due;
      this.now = timer.at;
      if (timer.every) timer.at += timer.every;
      else this.#timers.delete(number);
      timer.run();
    }
    this.now = end;
  }
}

/** Mulberry32: the same numbers for the same seed. */
export function chance(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

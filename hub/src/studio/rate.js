/**
 * rate.js: how much is sent over a line that may be too slow.
 *
 * Owns: the bitrate of the picture, and whether groups are dropped. It learns how far the line is behind, in seconds of
 * the stream: above LATE the bitrate goes down by steps, above LOST the rest of the group is dropped and those that
 * follow, until the line has caught up. Where the line keeps up for a while the bitrate goes up again, slowly.
 * Does not know: encoders or sockets. Pure: time is an argument, in ms; tests/hub/studio/ runs it in Node.
 */

export const LATE = 0.5; // s behind
export const LOST = 2;
const CAUGHT_UP = 0.3; // s behind, below which a new group is sent again, and the bitrate may go up
const DOWN = 0.7;
const SHARE = 0.85; // of what the line was seen to take
const STEEPEST = 0.25;
const UP = 1.2;
const DOWN_EVERY = 1500; // ms: what a step changes is seen only once the line has drained
const UP_EVERY = 4000;
const FLOOR = 150_000; // bit/s: below it a picture is none

export class Rate {
  /** `target`: what the person has chosen, in bit/s. */
  constructor(target) {
    this.target = target;
    this.bitrate = target;
    this.dropped = 0; // groups
    this.isDropping = false;
    this.hasLowered = false; // since it drops
    this.changed = -Infinity;
    this.fine = null; // since when the line keeps up
  }

  /** Looks at the line, whose speed is in bit/s or 0; returns whether the bitrate has changed. */
  look(now, behind, speed = 0) {
    const before = this.bitrate;
    if (behind > CAUGHT_UP) {
      this.fine = null;
      // Of what is dropped nothing is sent, so what is late says nothing about its bitrate.
      const isDue = behind > LATE && now - this.changed >= DOWN_EVERY && !(this.isDropping && this.hasLowered);
      if (isDue) {
        const lower = Math.max(Math.min(before * DOWN, speed > 0 ? SHARE * speed : Infinity), before * STEEPEST);
        this.hasLowered = this.isDropping;
        this.set(now, Math.max(Math.min(FLOOR, this.target), lower));
      }
    } else {
      this.fine ??= now;
      if (now - Math.max(this.fine, this.changed) >= UP_EVERY) this.set(now, Math.min(this.target, before * UP));
    }
    return this.bitrate !== before;
  }

  set(now, bitrate) {
    this.changed = now;
    this.bitrate = Math.round(bitrate);
  }

  /** Whether the next fragment is sent. Call it for each, in order. */
  admits(startsGroup, behind) {
    if (this.isDropping) {
      if (startsGroup && behind <= CAUGHT_UP) this.isDropping = this.hasLowered = false;
      else if (startsGroup) this.dropped += 1;
    } else if (behind > LOST) {
      this.isDropping = true;
      this.dropped += 1;
    }
    return !this.isDropping;
  }

  /** A new stream begins on a new line. */
  renew() {
    this.isDropping = this.hasLowered = false;
    this.fine = null;
  }
}

/**
 * sound.js: takes samples off an audio graph, for browsers that give a page no other way to them.
 *
 * Owns: blocks of 20 ms, as planar float samples, posted to the page. Runs in an audio worklet.
 */

class Samples extends AudioWorkletProcessor {
  #planes = [];
  #filled = 0;

  process([input]) {
    if (!input.length) return true;
    const size = Math.round(sampleRate / 50);
    if (this.#planes.length !== input.length) {
      this.#planes = input.map(() => new Float32Array(size));
      this.#filled = 0;
    }
    for (let at = 0; at < input[0].length;) {
      const part = Math.min(size - this.#filled, input[0].length - at);
      input.forEach((samples, n) => this.#planes[n].set(samples.subarray(at, at + part), this.#filled));
      at += part;
      this.#filled += part;
      if (this.#filled === size) {
        const data = new Float32Array(size * this.#planes.length);
        this.#planes.forEach((plane, n) => data.set(plane, n * size));
        this.port.postMessage({ data, channels: this.#planes.length, frames: size, rate: sampleRate }, [data.buffer]);
        this.#filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("samples", Samples);

/**
 * Between the stream and the page: events are applied once per animation frame, held back while the viewer pauses, and
 * released at a reader's pace while an old auction is replayed. It knows no event but the two that frame a text.
 */

import { oncePerFrame } from "./dom.js";

const REPLAY_MS = 5_000; // that a replay takes at most
const REPLAY_TOKEN_MS = 90; // a token, at most

export class Playback {
  #waiting = [];
  #onBatch;
  #ask;
  #isPaused = false;
  #released = Infinity; // how many events may be applied; grows with time in a replay
  #replay = null; // { total, perMs, last }

  /** `onBatch(events)` is called at most once a frame, also with none when only the number of waiting ones changed. */
  constructor(onBatch) {
    this.#onBatch = onBatch;
    this.#ask = oncePerFrame(() => this.#flush());
  }

  get isPaused() {
    return this.#isPaused;
  }

  get isReplaying() {
    return this.#replay !== null;
  }

  get numWaiting() {
    return this.#waiting.length;
  }

  push(event) {
    this.#waiting.push(event);
    this.#ask();
  }

  pause() {
    this.#isPaused = true;
  }

  resume() {
    this.#isPaused = false;
    if (this.#replay) this.#replay.last = performance.now();
    this.#ask();
  }

  /** Release `numTokens` tokens one after the other instead of all at once; nothing where motion is unwanted. */
  replay(numTokens) {
    if (matchMedia("(prefers-reduced-motion: reduce)").matches || numTokens === 0) return;
    const tokenMs = Math.min(REPLAY_TOKEN_MS, REPLAY_MS / numTokens);
    this.#replay = { perMs: 1 / tokenMs, last: performance.now() };
    this.#released = 1;
  }

  /** No more holding back. */
  hurry() {
    this.#replay = null;
    this.#released = Infinity;
    this.resume();
  }

  #flush() {
    if (this.#isPaused) return this.#onBatch([]);
    if (this.#replay) {
      const now = performance.now();
      this.#released += (now - this.#replay.last) * this.#replay.perMs;
      this.#replay.last = now;
    }
    const num = Math.min(this.#waiting.length, Math.floor(this.#released));
    const batch = num === this.#waiting.length ? this.#waiting.splice(0) : this.#waiting.splice(0, num);
    this.#released -= num;
    if (this.#replay && batch.some((event) => event.type === "auction.settled")) this.#replay = null;
    this.#onBatch(batch);
    if (this.#waiting.length > 0 || this.#replay) this.#ask();
  }
}

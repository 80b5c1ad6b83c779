/**
 * One auction being watched: where in its stream one is, so that every event comes exactly once.
 *
 * `seq` is dense. What is not the next one is a repetition (dropped), or shows that something is missing (then it is
 * asked for again), or is the `stream.reset` of a new epoch, which takes back what came behind its `after_seq`.
 * States: connecting → live ⇄ reconnecting → over, or failed (`error` says why). It knows no socket.
 */

import { Refused } from "./errors.js";
import { freshId } from "./requests.js";

const MAX_QUEUE = 1_024; // events that wait to be iterated over; more are left with the server until half are taken
const ENDED = new Set(["over", "failed"]);

export class Watch extends EventTarget {
  state = "connecting";
  error = null;
  requestId = null; // of the subscription
  #auctionId;
  #say;
  #onEvent;
  #afterSeq;
  #epoch;
  #agentId;
  #queue = [];
  #isPaused = false;
  #connection = null; // on which it has subscribed
  #billed = new Set(); // ids of `payment.posted`, which carry no seq
  #wake = () => {}; // tells who iterates
  #end;

  constructor(auctionId, { afterSeq, epoch, agentId = null, onEvent, onState }, say) {
    super();
    this.#auctionId = auctionId;
    this.#say = say;
    this.#afterSeq = afterSeq;
    this.#epoch = epoch;
    this.#agentId = agentId;
    this.#onEvent = onEvent;
    if (onState) this.addEventListener("state", ({ detail: { state, ...detail } }) => onState(state, detail));
    /** Resolves when the auction has settled or the watch is closed; rejects with Refused. */
    this.done = new Promise((resolve, reject) => (this.#end = { resolve, reject }));
    this.done.catch(() => {}); // who iterates hears of it there
  }

  get auctionId() {
    return this.#auctionId;
  }

  /** The last event's place, to go on from in another session: watch(id, { afterSeq, epoch }). */
  get position() {
    return { afterSeq: this.#afterSeq, epoch: this.#epoch };
  }

  /** Watch no longer. */
  close() {
    if (ENDED.has(this.state)) return;
    this.#say({ type: "unsubscribe", auction_id: this.#auctionId });
    this.#finish("over");
  }

  async *[Symbol.asyncIterator]() {
    if (this.#onEvent) throw new TypeError("onEvent takes the events of this watch; leave it out to iterate");
    try {
      while (true) {
        while (this.#queue.length > 0) {
          yield this.#queue.shift();
          if (this.#isPaused && this.#queue.length <= MAX_QUEUE / 2) this.#resume();
        }
        if (this.error) throw this.error;
        if (this.state === "over") return;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  // --- For the client -------------------------------------------------------------------------------------------

  /** There is a connection: ask for everything behind the last event, once on each. */
  subscribe(connection) {
    if (connection === this.#connection || ENDED.has(this.state)) return;
    this.#connection = connection;
    this.#ask();
  }

  #ask() {
    if (this.#isPaused) return;
    this.requestId = freshId();
    const place = { after_seq: this.#afterSeq, epoch: this.#epoch, agent_id: this.#agentId };
    if (this.#say({ type: "subscribe", request_id: this.requestId, auction_id: this.#auctionId, ...place })) this.tell("live", {});
  }

  /** Take in an event of this auction, or the refusal of the subscription. */
  take(event) {
    if (ENDED.has(this.state)) return;
    if (!("seq" in event)) return this.#takeNotice(event);
    const isNext = event.seq === this.#afterSeq + 1;
    const isReset = event.type === "stream.reset" && event.seq <= this.#afterSeq && event.epoch > (this.#epoch ?? 0);
    if (this.#isPaused || !(isNext || isReset)) {
      if (!this.#isPaused && event.seq > this.#afterSeq) this.#again();
      return;
    }
    this.#afterSeq = event.seq;
    this.#epoch = event.epoch ?? this.#epoch;
    this.#hand(event);
    if (event.type === "auction.settled") this.#finish("over");
  }

  tell(state, detail) {
    if (ENDED.has(this.state)) return;
    this.state = state;
    this.dispatchEvent(new CustomEvent("state", { detail: { state, ...detail } }));
  }

  fail(error) {
    this.error = error;
    this.#finish("failed", { reason: error.message, code: error.code });
  }

  #takeNotice(event) {
    if (event.type === "error") {
      if (event.request_id === this.requestId) this.fail(new Refused(event.code, event.message));
      return;
    }
    if (event.type === "payment.posted") {
      if (this.#billed.has(event.event_id)) return;
      this.#billed.add(event.event_id);
    }
    this.#hand(event);
  }

  #hand(event) {
    if (this.#onEvent) return this.#onEvent(event);
    this.#queue.push(event);
    if (this.#queue.length >= MAX_QUEUE && event.type !== "auction.settled") {
      this.#isPaused = true;
      this.#say({ type: "unsubscribe", auction_id: this.#auctionId });
    }
    this.#wake();
  }

  #resume() {
    this.#isPaused = false;
    this.#ask();
  }

  #again() {
    this.#say({ type: "unsubscribe", auction_id: this.#auctionId });
    this.#ask();
  }

  #finish(state, detail = {}) {
    if (ENDED.has(this.state)) return;
    this.tell(state, detail);
    if (this.error) this.#end.reject(this.error);
    else this.#end.resolve();
    this.#wake();
  }
}

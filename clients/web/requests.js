/**
 * Requests that wait for their answer: sent when there is a connection, sent again on the next one.
 *
 * A request may have a key: of those with the same key one is on its way at a time, and of those that wait behind it the
 * newest is sent, whose answer is everybody's. It knows no socket.
 */

import { Refused } from "./errors.js";

const ANSWERS = new Set(["auction.accepted", "agent.joined", "bid.accepted"]);

export class Requests {
  #say; // sends a message; false where there is no connection
  #open = new Map(); // by request_id, in the order in which they were made: { message, key, settlers, isSent }
  #queued = new Map(); // by key: the one that waits for the one on its way

  constructor(say) {
    this.#say = say;
  }

  get size() {
    return this.#open.size;
  }

  /** A promise of the server's answer; rejects with Refused. */
  add(id, message, key) {
    return new Promise((resolve, reject) => {
      const settler = { resolve, reject };
      const request = { id, message: { ...message, request_id: id }, key, settlers: [settler], isSent: false };
      if (key !== null && [...this.#open.values()].some((other) => other.key === key)) {
        request.settlers.push(...(this.#queued.get(key)?.settlers ?? []));
        this.#queued.set(key, request);
      } else {
        this.#send(request);
      }
    });
  }

  /** There is a new connection: nothing that was sent before has been answered. */
  resend() {
    for (const request of [...this.#open.values()]) this.#send(request);
  }

  /** Take in an event; whether it was an answer. */
  take(event) {
    const request = this.#open.get(event.request_id) ?? this.#blamed(event);
    if (event.type === "error" && event.code === "rate_limited") {
      setTimeout(() => this.resend(), event.retry_after_ms ?? 1_000); // the message was not read, whichever it was
      return true;
    }
    if (!request) return false;
    if (ANSWERS.has(event.type)) this.#settle(request, "resolve", event);
    else if (event.type === "error" || event.type === "bid.rejected") {
      this.#settle(request, "reject", new Refused(event.code, event.message));
    } else return false;
    return true;
  }

  /** Nothing will be answered any more. */
  fail(error) {
    const all = [...this.#open.values(), ...this.#queued.values()];
    this.#open.clear();
    this.#queued.clear();
    for (const { settlers } of all) for (const { reject } of settlers) reject(error);
  }

  /** A message that could not even be read is refused without its id: the oldest on its way is meant. */
  #blamed(event) {
    const isUnread = event.type === "error" && !("seq" in event) && !event.request_id && !event.request;
    return isUnread ? [...this.#open.values()].find((request) => request.isSent) : undefined;
  }

  #send(request) {
    this.#open.set(request.id, request);
    try {
      request.isSent = this.#say(request.message);
    } catch (error) {
      this.#settle(request, "reject", error);
    }
  }

  #settle(request, how, value) {
    this.#open.delete(request.id);
    for (const settler of request.settlers) settler[how](value);
    const next = this.#queued.get(request.key);
    if (next) {
      this.#queued.delete(request.key);
      this.#send(next);
    }
  }
}

/** 128 random bits. `crypto.randomUUID` is not there on a page that came over plain http from another machine. */
export function freshId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

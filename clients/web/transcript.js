/**
 * An auction as its events tell it so far: text, tokens, totals, bill. Feed it what a Watch hands out.
 *
 *     const transcript = new Transcript();
 *     for await (const event of client.watch(id)) { transcript.apply(event); show(transcript.text); }
 */

export class Transcript {
  created = null; // the `auction.created`
  settled = null; // the `auction.settled`
  tokens = []; // the `auction.token` events, by step
  payments = {}; // micros posted, by agent
  error = null; // the `error` event of a text that failed
  missing = null; // behind a `stream.gap`: how far the snapshot is ahead of `tokens`
  #snapshot = null;
  #text = "";

  /** The text so far; while events are missing, the server's own word for it. */
  get text() {
    return this.settled?.text ?? this.#snapshot?.text ?? this.#text;
  }

  /** joining, running, settling, or over. */
  get state() {
    if (this.settled) return "over";
    return this.#snapshot?.state ?? (this.created ? "running" : "joining");
  }

  /** Micros due so far, by agent, of those that the reader may see. */
  get totals() {
    const agents = this.settled?.agents ?? this.tokens.at(-1)?.agents ?? [];
    return Object.fromEntries(agents.map((agent) => [agent.id, agent.total_micros]));
  }

  /** Take in one event; itself, so that calls can be chained. */
  apply(event) {
    switch (event.type) {
      case "auction.created":
        this.created = event;
        break;
      case "auction.token":
        this.tokens.push(event);
        this.#text += event.text;
        break;
      case "stream.reset":
        this.#rewind(event.after_seq);
        break;
      case "stream.snapshot":
        this.#snapshot = event;
        this.missing = event.num_tokens - this.tokens.length;
        break;
      case "payment.posted":
        this.payments[event.agent_id] = event.total_micros;
        break;
      case "error":
        this.error = event;
        break;
      case "auction.settled":
        this.settled = event;
        break;
      default: // of a newer server: nothing that is known here
    }
    if (this.#snapshot && event.seq >= this.#snapshot.last_seq) this.#snapshot = this.missing = null;
    else if (this.#snapshot) this.missing = this.#snapshot.num_tokens - this.tokens.length;
    return this;
  }

  /** What came behind this seq is void: the server has crashed and writes it again. */
  #rewind(afterSeq) {
    this.tokens = this.tokens.filter((token) => token.seq <= afterSeq);
    this.#text = this.tokens.map((token) => token.text).join("");
    this.#snapshot = this.missing = null;
  }
}

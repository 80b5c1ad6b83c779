/**
 * A client of a tokenauction server, for browsers and Node 20 or newer: create an auction, watch it, bid, read receipts.
 *
 *     const client = new Client({ url: "http://127.0.0.1:8400" });
 *     const { auction_id } = await client.create(spec);
 *     for await (const event of client.watch(auction_id)) if (event.type === "auction.token") show(event.text);
 *
 * One WebSocket carries everything. When it breaks it is opened again, later and later and by chance a little earlier or
 * later still; every watch goes on behind its last event and every request that was not answered is sent again, which is
 * harmless: each has a key of its own. Events are the server's (docs/protocol.md), unknown types and fields included.
 * Types: tokenauction.d.ts. This file knows no page.
 */

import { Refused, Unreachable } from "./errors.js";
import { Requests, freshId } from "./requests.js";
import { Rest } from "./rest.js";
import { Watch } from "./watch.js";

export { Refused, Unreachable } from "./errors.js";
export { Transcript } from "./transcript.js";

const SUBPROTOCOL = "tokenauction.v1";
const FIRST_DELAY_MS = 100; // between two tries to connect; doubled each time
const LONGEST_DELAY_MS = 5_000;
const CONNECT_MS = 10_000; // for a connection to come about
const SILENCE_MS = 15_000; // after which the server is asked whether it is there, and again until it is given up

export class Client {
  #options;
  #rest;
  #socket = null;
  #greeting = null; // the `session.created` of this connection
  #isConnecting = false;
  #isClosed = false;
  #wake = () => {}; // ends the wait for the next try
  #watches = new Map(); // by auction
  #joined = new Map(); // by auction and agent: the `agent.join` to repeat on a new connection
  #requests = new Requests((message) => this.#say(message));
  #waiting = []; // for a session
  #heartbeat = 0;
  #heardAt = 0; // ms since 1970, as all times here
  #delay = 0; // before the next try; 0: at once, nothing has failed
  #lostAt = 0;

  constructor({ url = globalThis.location?.origin, token = null, ...others } = {}) {
    const { WebSocket = globalThis.WebSocket, fetch = globalThis.fetch?.bind(globalThis), giveUpMs = Infinity } = others;
    if (!url || !WebSocket || !fetch) throw new TypeError("a client needs a url, a WebSocket class and a fetch function");
    const address = String(url).replace(/\/+$/, "");
    this.#options = { url: address, token, WebSocket, giveUpMs };
    this.#rest = new Rest(address, fetch, () => this.#bearer());
    globalThis.addEventListener?.("online", this.retryNow);
  }

  /** Who the server takes this client for: { scopes, agent_id }; Refused ("unauthorized") where it wants a token. */
  session() {
    if (this.#greeting) return Promise.resolve(this.#greeting);
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#connect();
    });
  }

  /** Begin an auction; the server's `auction.accepted`. The same key with the same spec begins nothing twice. */
  create(spec, { idempotencyKey = freshId() } = {}) {
    return this.#ask({ type: "auction.create", spec, idempotency_key: idempotencyKey });
  }

  /** Stop an auction at its next token; what was written is charged. */
  cancel(auctionId) {
    return this.#ask({ type: "auction.cancel", auction_id: auctionId });
  }

  /**
   * Replace an agent's bid, in whole micros per token; the `bid.accepted` names the first step that it counts for.
   * One bid of an agent is on its way at a time: of those that wait the newest is sent, and answers for all of them.
   */
  bid(auctionId, agentId, bidMicros) {
    const message = { type: "bid.update", auction_id: auctionId, agent_id: agentId, bid_micros: bidMicros };
    return this.#ask({ ...message, bid_id: freshId() }, `${auctionId}\n${agentId}`);
  }

  /** Take part as an agent that the auction does not list: brief = { name, offer }; rejoins when a connection breaks. */
  async join(auctionId, agentId, bidMicros, { budgetMicros = null, brief = null } = {}) {
    const names = { auction_id: auctionId, agent_id: agentId };
    const message = { type: "agent.join", ...names, bid_micros: bidMicros, budget_micros: budgetMicros, brief };
    const answer = await this.#ask(message);
    this.#joined.set(`${auctionId}\n${agentId}`, message);
    return answer;
  }

  /** Take part no longer, for good; what is owed stays owed. */
  leave(auctionId, agentId) {
    this.#joined.delete(`${auctionId}\n${agentId}`);
    return this.#ask({ type: "agent.leave", auction_id: auctionId, agent_id: agentId });
  }

  /**
   * Every event of an auction behind `afterSeq`, exactly once, over as many connections as it takes: iterate over the
   * Watch that is returned, or give `onEvent`. `onState(state, detail)` hears how the connection is. `agentId` says as
   * whom to look, for a token that acts for several agents.
   */
  watch(auctionId, { afterSeq = -1, epoch = null, agentId = null, onEvent = null, onState = null, signal = null } = {}) {
    if (this.#isClosed) throw new TypeError("this client is closed");
    if (this.#watches.has(auctionId)) throw new TypeError(`this client watches ${auctionId} already`);
    const watch = new Watch(auctionId, { afterSeq, epoch, agentId, onEvent, onState }, (message) => this.#say(message));
    this.#watches.set(auctionId, watch);
    watch.done.catch(() => {}).then(() => this.#watches.delete(auctionId));
    signal?.addEventListener("abort", () => watch.close(), { once: true });
    if (signal?.aborted) watch.close();
    else if (this.#greeting) watch.subscribe(this.#greeting);
    else this.#connect();
    return watch;
  }

  /** Try to connect at once instead of waiting for the next try. */
  retryNow = () => this.#wake();

  /** End everything: watches close, requests that were not answered are rejected. */
  close() {
    this.#isClosed = true;
    globalThis.removeEventListener?.("online", this.retryNow);
    for (const watch of [...this.#watches.values()]) watch.close();
    this.#fail(new Refused("closed", "this client is closed"));
    this.#drop();
    this.#wake();
  }

  describe = (auctionId) => this.#rest.get(`/v1/auctions/${encodeURIComponent(auctionId)}`);
  list = ({ after, limit, newest } = {}) => this.#rest.get("/v1/auctions", { after, limit, newest });
  /** Durable events from the ledger, a page of them. */
  history = (auctionId, { afterSeq, limit } = {}) =>
    this.#rest.get(`/v1/auctions/${encodeURIComponent(auctionId)}/history`, { after_seq: afterSeq, limit });
  /** The receipt as text, a line of JSON each: what verify.js reads. For the auction's owner and admins. */
  receipt = (auctionId) => this.#rest.text(`/v1/auctions/${encodeURIComponent(auctionId)}/receipt`);
  presets = () => this.#rest.get("/v1/presets");
  withoutAds = (auctionId) => this.#rest.post(`/v1/auctions/${encodeURIComponent(auctionId)}/without-ads`);
  landscape = (auctionId, agentId) =>
    this.#rest.get(`/v1/auctions/${encodeURIComponent(auctionId)}/landscape`, { agent_id: agentId });
  /** Who is mentioned as weight moves; `onRow` hears each row as it is ready. */
  sweep = (body, { onRow = () => {} } = {}) => this.#rest.lines("/v1/sweeps", body, onRow);

  // --- The connection -------------------------------------------------------------------------------------------

  async #ask(message, key = null) {
    if (this.#isClosed) throw new TypeError("this client is closed");
    const answer = this.#requests.add(freshId(), message, key);
    if (!this.#greeting) this.#connect();
    return answer;
  }

  /** Send a message if there is a connection; if there is none, it is sent when there is. */
  #say(message) {
    if (!this.#greeting) return false;
    const text = JSON.stringify(message);
    const most = this.#greeting.max_message_bytes;
    if (new TextEncoder().encode(text).length > most) throw new Refused("message_too_large", `a message has at most ${most} bytes`);
    this.#socket.send(text);
    return true;
  }

  get #hasWork() {
    return !this.#isClosed && (this.#watches.size > 0 || this.#requests.size > 0 || this.#waiting.length > 0);
  }

  async #bearer() {
    const { token } = this.#options;
    return typeof token === "function" ? await token() : token;
  }

  async #connect() {
    if (this.#isConnecting || this.#greeting) return;
    this.#isConnecting = true;
    this.#lostAt ||= Date.now();
    let problem = new Unreachable("the connection broke");
    while (this.#hasWork && !this.#greeting) {
      if (this.#delay > 0) await this.#pause(Math.max(problem.retryMs, this.#delay * (0.5 + Math.random() / 2)), problem.message);
      this.#delay = Math.min(LONGEST_DELAY_MS, Math.max(FIRST_DELAY_MS, 2 * this.#delay));
      try {
        this.#begin(...(await this.#open()));
      } catch (error) {
        problem = error;
        const isHopeless = !(error instanceof Unreachable) || Date.now() - this.#lostAt > this.#options.giveUpMs;
        if (isHopeless) this.#fail(error);
      }
    }
    this.#isConnecting = false;
  }

  async #pause(retryMs, reason) {
    this.#tell("reconnecting", { reason, retry_ms: Math.round(retryMs) });
    await new Promise((resolve) => {
      const timer = setTimeout(resolve, retryMs);
      this.#wake = () => (clearTimeout(timer), resolve());
    });
    this.#wake = () => {};
    this.#tell("connecting", {});
  }

  /** A socket and the greeting that came on it; Refused, or Unreachable where it is worth another try. */
  async #open() {
    const { url, token, WebSocket } = this.#options;
    const offers = token === null ? [SUBPROTOCOL] : (await this.#rest.post("/v1/tickets")).subprotocols;
    const socket = new WebSocket(`${url.replace(/^http/, "ws")}/v1/stream`, offers);
    try {
      const greeting = await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new Unreachable("the server does not answer")), CONNECT_MS);
        const lost = () => (clearTimeout(timer), reject(new Unreachable("the server cannot be reached")));
        socket.onclose = lost;
        socket.onerror = lost;
        socket.onmessage = ({ data }) => (clearTimeout(timer), resolve(JSON.parse(data)));
      });
      return [socket, greeting];
    } catch (error) {
      release(socket);
      // A browser does not say why a handshake failed; a ticket that needs no token is refused for the same reason.
      if (token === null) await this.#rest.post("/v1/tickets");
      throw error;
    }
  }

  #begin(socket, greeting) {
    if (!this.#hasWork) return release(socket); // closed meanwhile
    this.#socket = socket;
    this.#greeting = greeting;
    this.#heardAt = Date.now();
    socket.onmessage = ({ data }) => this.#take(JSON.parse(data));
    socket.onclose = ({ code, reason }) => this.#lose(reason || `the connection broke (${code})`);
    socket.onerror = null; // a close follows
    this.#heartbeat = setInterval(() => this.#listen(), SILENCE_MS / 3);
    for (const { resolve } of this.#waiting.splice(0)) resolve(greeting);
    this.#requests.resend();
    this.#rejoin().then(() => this.#watches.forEach((watch) => this.#greeting === greeting && watch.subscribe(greeting)));
  }

  /** Whoever has joined sees the stream as a bidder, so that comes first; who may not join again has left or is late. */
  async #rejoin() {
    const again = [...this.#joined].map(([key, message]) =>
      this.#requests.add(freshId(), message, null).catch(() => this.#joined.delete(key)),
    );
    await Promise.all(again);
  }

  #take(event) {
    this.#heardAt = Date.now();
    if ("seq" in event || "request_id" in event) this.#delay = this.#lostAt = 0; // the connection is of use
    if (this.#requests.take(event)) return;
    const watch = this.#watches.get(event.auction_id) ?? this.#watchOf(event.request_id);
    watch?.take(event);
    if (event.type === "auction.settled") this.#forgetJoins(event.auction_id);
  }

  #watchOf(requestId) {
    for (const watch of this.#watches.values()) if (watch.requestId === requestId) return watch;
    return undefined;
  }

  #forgetJoins(auctionId) {
    for (const [key, message] of this.#joined) if (message.auction_id === auctionId) this.#joined.delete(key);
  }

  /** A connection over which nothing comes is asked for a sign of life, and given up without one. */
  #listen() {
    const silence = Date.now() - this.#heardAt;
    if (silence > 2 * SILENCE_MS) this.#lose("the server has fallen silent");
    else if (silence > SILENCE_MS) this.#say({ type: "ping" });
  }

  #drop() {
    clearInterval(this.#heartbeat);
    if (this.#socket) release(this.#socket);
    this.#socket = this.#greeting = null;
  }

  #lose(reason) {
    this.#drop();
    this.#tell("reconnecting", { reason, retry_ms: 0 });
    this.#connect();
  }

  #tell(state, detail) {
    for (const watch of this.#watches.values()) watch.tell(state, detail);
  }

  #fail(error) {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
    this.#requests.fail(error);
    for (const watch of [...this.#watches.values()]) watch.fail(error);
  }
}

/** Let go of a socket: nothing of it is heard any more. */
function release(socket) {
  socket.onopen = socket.onmessage = socket.onclose = null;
  socket.onerror = () => {}; // Node's complains where nobody listens
  socket.close();
}

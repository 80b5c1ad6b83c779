/** One auction on the page: its stream goes through a playback into a transcript, and from there to every part at once. */

import { Transcript } from "/client/tokenauction.js";
import { count, money, percent } from "./amounts.js";
import { billOf } from "./bill.js";
import { Bidders } from "./bidders.js";
import { Candidates } from "./candidates.js";
import { el, fill } from "./dom.js";
import { afterOf } from "./after.js";
import { AuctionHead } from "./head.js";
import { Looking } from "./looking.js";
import { Payments } from "./payments.js";
import { Playback } from "./playback.js";
import { Ribbon } from "./ribbon.js";
import { sidesOf } from "./sides.js";
import { Written } from "./written.js";

const SUMMARY_MS = 8_000; // between two summaries for those who listen
const SOFTMAX_EVENTS = new Set(["candidates.progress", "candidate.completed", "auction.finalized"]);

export class Auction {
  transcript = new Transcript();
  sides = [];
  #client;
  #id;
  #watch = null;
  #announce;
  #saidAt = 0;
  #looked = null; // the step that is looked at
  #isSettled = false;
  #isBehind = false; // events were missed, and are being fetched
  #mayBid = false;
  #playback = new Playback((events) => this.#take(events));
  #head;
  #notice = el("p", { class: "notice", role: "status", hidden: true });
  #legend = el("ul", { class: "legend", "aria-label": "How tokens are marked" });
  #written = new Written((step) => this.look(step));
  #ribbon = new Ribbon();
  #looking = new Looking((step) => this.look(step));
  #candidates = new Candidates();
  #bidders;
  #payments = new Payments();
  #bill = el("div", { class: "stackup", hidden: true });
  #after = el("div", { class: "after", hidden: true });

  /** `announce(text)` speaks to those who listen; `onState(state, detail)` hears how the connection is. */
  constructor(client, id, { announce, onState }) {
    this.#client = client;
    this.#id = id;
    this.#announce = announce;
    this.#bidders = new Bidders((agentId, micros) => this.#bid(agentId, micros));
    this.#head = new AuctionHead({
      onPause: () => (this.#playback.isPaused ? this.resume() : this.look(this.transcript.tokens.length - 1, true)),
      onSkip: () => this.#playback.hurry(),
      onStop: () => client.cancel(id).catch((error) => this.#say(error.message, true)),
    });
    const paper = el("article", { class: "card paper", "aria-label": "The text" }, this.#notice, this.#written.node, this.#ribbon.node, el("footer", {}, this.#legend));
    const left = el("div", { class: "stackup" }, paper, this.#looking.node, this.#candidates.node, this.#bill);
    const right = el("div", { class: "stackup" }, this.#bidders.node, this.#payments.node);
    this.node = el("div", {}, this.#head.node, this.#head.bar, el("div", { class: "columns" }, left, right), this.#after);
    this.#open(onState).catch((error) => onState("failed", { reason: error.message, code: error.code }));
  }

  close() {
    this.#watch?.close();
  }

  /** Look at a token; with `isPausing` the page stands still there, while the auction goes on. Null: look no more. */
  look(step, isPausing = false) {
    const { tokens } = this.transcript;
    this.#looked = step === null || tokens.length === 0 ? null : Math.max(0, Math.min(step, tokens.length - 1));
    if (isPausing && !this.transcript.settled) this.#playback.pause();
    if (step === null && this.#playback.isPaused) this.#playback.resume();
    this.#written.choose(this.#looked);
    this.#looking.show(tokens[this.#looked], tokens.length);
    this.#showHead();
    if (this.#looked !== null) this.#announce(this.#spoken(tokens[this.#looked]));
  }

  resume() {
    this.look(null);
  }

  async #open(onState) {
    const summary = await this.#client.describe(this.#id);
    if (summary.state === "settled" || summary.state === "over") this.#playback.replay(summary.num_tokens);
    this.#watch = this.#client.watch(this.#id, { onEvent: (event) => this.#playback.push(event), onState });
    this.#watch.done.catch(() => {}); // onState has heard of it
    const session = await this.#client.session();
    this.#mayBid = session.scopes.includes("admin") || session.scopes.includes("bid");
    this.#head.summary(summary, session.scopes.includes("admin"));
  }

  async #bid(agentId, micros) {
    const accepted = await this.#client.bid(this.#id, agentId, micros);
    return accepted.effective_from_step;
  }

  /** One frame's events, which are none while the page stands still. */
  #take(events) {
    for (const event of events) {
      this.transcript.apply(event);
      if (event.type === "auction.created") this.#begin(event);
      if (SOFTMAX_EVENTS.has(event.type)) this.#candidates.apply(event);
      this.#note(event);
    }
    if (events.length > 0 && this.transcript.created) {
      for (const part of [this.#written, this.#ribbon, this.#bidders, this.#payments]) part.update(this.transcript);
    }
    if (this.#looked !== null && events.length > 0) this.#looking.show(this.transcript.tokens[this.#looked], this.transcript.tokens.length);
    this.#showHead();
    this.#summarise();
    if (this.transcript.settled && !this.#isSettled) this.#settle();
  }

  #begin(created) {
    this.sides = sidesOf(created);
    const { currency } = created.spec;
    this.#head.begin(created);
    this.#announce(`The auction has begun. ${created.spec.query}`);
    this.#ribbon.begin(this.sides, created.spec);
    this.#looking.begin(this.sides, created.spec);
    for (const part of [this.#written, this.#payments]) part.begin(this.sides, currency);
    const isSoftmax = created.spec.mechanism === "softmax";
    if (isSoftmax) this.#candidates.begin(this.sides, currency);
    this.#bidders.begin(this.sides.filter((side) => !(isSoftmax && side.isHouse)), currency, this.#mayBid);
    if (!isSoftmax) return this.#explainMarks();
    this.#payments.node.replaceWith(this.#bill); // tokens have payments of their own and marks; whole texts do not
    return this.#legend.parentNode.remove();
  }

  #explainMarks() {
    const marks = this.sides.filter((side) => !side.isHouse).map((side) => {
      const name = side.name.length > 40 ? `${side.name.slice(0, 40)}…` : side.name;
      return el("li", {}, el("bdi", { class: `token ${side.look} t3`, text: name }));
    });
    fill(this.#legend, marks, el("li", {}, el("span", { class: "plain", text: "plain" }), "all agreed, or the house"));
  }

  /** Things that are said beside the text. */
  #note(event) {
    if (event.type === "stream.reset") this.#say(`The server was restarted. The text goes on behind token ${this.transcript.tokens.length}.`);
    if (event.type === "stream.gap") this.#say("This page fell behind, and fetches what it missed.");
    this.#isBehind = this.#isBehind || event.type === "stream.gap";
    if (event.type === "error") this.#say(event.message ?? `The text could not be finished (${event.code}).`, true);
    if (event.type === "agent.left" && event.agent_id) this.#say(`${this.#nameOf(event.agent_id)} has left, from token ${event.from_step + 1} on.`);
    if (event.type === "auction.token" && this.#isBehind && !this.transcript.missing) this.#notice.hidden = true;
  }

  #say(text, isBad = false) {
    this.#notice.textContent = text;
    this.#notice.classList.toggle("bad", isBad);
    this.#notice.hidden = false;
  }

  #showHead() {
    const { tokens, settled } = this.transcript;
    const { isPaused, isReplaying, numWaiting } = this.#playback;
    this.#head.progress({ numTokens: tokens.length, settled, isPaused, isReplaying, numWaiting });
  }

  #settle() {
    this.#isSettled = true;
    const { settled, created } = this.transcript;
    if (this.#isBehind) this.#notice.hidden = true;
    const bills = settled.agents.filter((agent) => this.#isBidder(agent.id)).map((agent) => `${this.#nameOf(agent.id)} pays ${money(agent.total_micros, settled.currency)}`);
    this.#announce(`The text is complete, with ${count(settled.num_tokens, "token")}. ${bills.join(", ")}.`);
    if (!created) return;
    const after = afterOf(this.#client, this.#id, this.transcript, this.sides);
    const isSoftmax = created.spec.mechanism === "softmax";
    fill(this.#bill, billOf(this.transcript, this.sides), isSoftmax && after);
    fill(this.#after, isSoftmax ? [] : after);
    this.#bill.hidden = this.#after.hidden = false;
  }

  #isBidder(id) {
    return this.sides.some((side) => side.id === id && !side.isHouse);
  }

  #nameOf(id) {
    return (this.sides.find((side) => side.id === id)?.name ?? id).slice(0, 80);
  }

  #summarise() {
    const { tokens, settled } = this.transcript;
    if (settled || tokens.length === 0 || performance.now() - this.#saidAt < SUMMARY_MS) return;
    this.#saidAt = performance.now();
    this.#announce(`${count(tokens.length, "token")} so far: ${this.transcript.text.slice(-160)}`);
  }

  #spoken(token) {
    const shares = token.agents.filter((agent) => agent.influence > 0).map((agent) => `${this.#nameOf(agent.id)} ${percent(agent.influence)}`);
    return `Token ${token.step + 1}: ${token.text || "end"}. ${shares.join(", ")}`;
  }
}

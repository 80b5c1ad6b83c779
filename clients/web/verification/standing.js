/** Where one auction stands while its receipt is read: bids, budgets, charges, text (engine/auction.py, engine/finish.py). */

import { same, toFloat } from "./numbers.js";
import { SPACE } from "./spec_fields.js";

const MAX_MICROS = 10n ** 15n;
const END = new RegExp(`(?<![0-9])[.!?…]+["'”’)\\]]*(?=${SPACE}|$)|[。！？]`, "g"); // as engine/sentences.py

export const countSentences = (text) => (text.match(END) ?? []).length;

export class Standing {
  text = "";
  tokenIds = [];
  voids = new Set();

  constructor(spec) {
    this.spec = spec;
    this.exactMicros = spec.rowIds.map(() => 0);
    this.budgets = spec.rowIds.map((_, row) => spec.agents[row]?.budget ?? null);
  }

  get numTokens() {
    return this.tokenIds.length;
  }

  /** Whole micros due per row: the exact sum rounded down. */
  get totals() {
    return this.exactMicros.map((exact) => BigInt(Math.floor(exact)));
  }

  /** The finish reason for which no token may follow; empty where one may. */
  get limitReached() {
    const { max_sentences: maxSentences, max_tokens: maxTokens } = this.spec;
    if (maxSentences !== null && countSentences(this.text) >= maxSentences) return "sentences";
    return this.numTokens >= maxTokens ? "max_tokens" : "";
  }

  /** The bids of a step line as this step must read them; throws for what is no bid. */
  readBids(bids, statuses) {
    const totals = this.totals;
    const read = { bids: [], effective: [], status: [] };
    for (const [row, { budget }] of this.spec.agents.entries()) {
      const bid = bids[row];
      if (typeof bid !== "bigint" || bid < 0n || bid > MAX_MICROS) throw new Error(`a bid is a whole number of micros, not ${bid}`);
      const left = budget === null || bid < budget - totals[row] ? bid : budget - totals[row];
      const isAbsent = statuses[row] === "absent";
      read.bids.push(bid);
      read.effective.push(isAbsent ? 0n : left);
      read.status.push(isAbsent ? "absent" : bid === 0n ? "no_bid" : left === 0n ? "budget_spent" : "bid");
    }
    if (this.spec.hasReference) {
      read.bids.push(this.spec.referenceWeight);
      read.effective.push(this.spec.referenceWeight);
      read.status.push("reference");
    }
    return read;
  }

  /** Take in one step; what it costs every row. */
  record(token, text, owed) {
    if (typeof text !== "string") throw new TypeError("a step's text is no text");
    this.tokenIds.push(token);
    this.text += text;
    return this.#charge(owed);
  }

  /** Take in a whole text that was chosen among candidates; what that costs every row. */
  choose(tokenIds, text, owed) {
    this.tokenIds = tokenIds;
    this.text = text;
    return this.#charge(owed);
  }

  #charge(owed) {
    const before = this.totals;
    const payments = owed.map(toFloat).map((payment, row) => {
      const left = this.budgets[row] === null ? Infinity : this.budgets[row] - before[row];
      return payment <= left ? payment : Number(left);
    });
    this.exactMicros = this.exactMicros.map((exact, row) => exact + payments[row]);
    const charges = this.totals.map((after, row) => after - before[row]);
    return { payments, charges, clipped: payments.map((paid, row) => !same(paid, owed[row])) };
  }

  /** Remember what in a step takes the auction out of its guarantee. */
  noteVoids(line) {
    if ((line.get("clipped") ?? []).some(Boolean)) this.voids.add("a payment was clipped to a budget");
    if (this.spec.finalizer) return;
    const [bids, effective, status] = ["bids", "effective", "status"].map((name) => line.get(name));
    const first = this.spec.agents.map((agent) => agent.bid);
    if (!same(bids.slice(0, first.length), first)) this.voids.add("a bid changed in mid-text");
    if (status.includes("absent")) this.voids.add("an agent was absent");
    const isCut = status.some((each, row) => each === "budget_spent" || (each === "bid" && effective[row] < bids[row]));
    if (isCut) this.voids.add("a budget cut a bid");
    if ((line.get("report_hashes") ?? []).some(Boolean)) this.voids.add("an agent reported its own distribution");
  }

  /** Whether the auction may have ended for this reason; undefined for a reason that is none. */
  mayEndBy(reason) {
    const { hasReference, agents } = this.spec;
    const totals = this.totals;
    return {
      end: this.numTokens > 0,
      max_tokens: this.limitReached === "max_tokens",
      sentences: this.limitReached === "sentences",
      budget_spent: !hasReference && agents.some(({ budget }, row) => budget === totals[row]),
      no_bid: !hasReference,
      cancelled: true,
      error: true,
    }[reason];
  }
}

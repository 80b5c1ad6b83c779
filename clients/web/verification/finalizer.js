/**
 * A softmax auction's numbers checked against each other, by the formulas of docs/mechanism.md and within the tolerances
 * of engine/finalizer_arithmetic.py: every candidate's draws, π from rewards, reference and proposal, the choice, τ·KL.
 */

import { field } from "./arithmetic.js";
import { exactSum, isClose, same } from "./numbers.js";
import { candidateSeed, stepKey, uniform } from "./randomness.js";
import { toHex } from "./sha256.js";
import { countSentences } from "./standing.js";

const TOLERANCE = 1e-9; // of probabilities and uniforms, and of amounts relative to τ and the rewards

export class FinalizerCheck {
  #candidates = [];
  #winner = null;

  /** `fault(where, problem)` makes what is thrown. */
  constructor(spec, seed, standing, fault) {
    Object.assign(this, { spec, seed, standing, fault });
  }

  /** Check one line between the first and the last. */
  take(line) {
    const kind = line.get("kind");
    if (this.#winner) throw this.fault(kind, "it stands behind the choice");
    if (kind === "candidate") this.#takeCandidate(line);
    else this.#takeChoice(line);
  }

  /** Check that the last line ends what the lines before it left. */
  settle(line) {
    const reason = field(line, "finish_reason");
    const says = (problem) => this.fault("settlement", `finish_reason is ${reason}, ${problem}`);
    if (!this.#winner && !["cancelled", "error"].includes(reason)) throw says("and no candidate was chosen");
    if (this.#winner && reason !== this.#winner.reason) throw says("the chosen text ended by another");
    if (field(line, "text") !== this.standing.text) throw this.fault("settlement", "its text is not the one that was chosen");
  }

  #takeCandidate(line) {
    const where = `candidate ${this.#candidates.length}`;
    const index = field(line, "index");
    const isNext = same(index, BigInt(this.#candidates.length)) && index < this.spec.finalizer.numCandidates;
    if (!isNext) throw this.fault(where, `candidate ${index} is out of place`);
    const [tokenIds, q, below] = ["token_ids", "q", "cdf_below"].map((name) => listOf(line, name));
    const text = field(line, "text");
    if (typeof text !== "string") throw this.fault(where, "its text is no text");
    if (typeof index !== "bigint") throw new TypeError("a candidate's number is no whole number");
    const seed = candidateSeed(this.seed, index);
    if (q.length !== tokenIds.length || below.length !== q.length) throw new Error("the draws are not one a token");
    for (const [step, chance] of q.map(number).entries()) {
      const u = uniform(stepKey(seed, step), "token");
      const [start, end] = [number(below[step]) - TOLERANCE, number(below[step]) + chance + TOLERANCE];
      if (!(chance > 0 && chance <= 1 + TOLERANCE && start <= u && u <= end)) {
        throw this.fault(where, `the uniform ${u} of token ${step} is outside its interval from ${below[step]}, ${chance} long`);
      }
    }
    const logProposal = exactSum(q.map((chance) => Math.log(number(chance))));
    const recorded = number(field(line, "log_proposal"));
    if (!isClose(recorded, logProposal, TOLERANCE, TOLERANCE)) {
      throw this.fault(where, `log_proposal is ${recorded}, its draws give ${logProposal}`);
    }
    const candidate = { tokenIds, text, logProposal, reason: field(line, "finish_reason") };
    this.#checkEnd(candidate, where);
    this.#candidates.push(candidate);
  }

  #checkEnd({ tokenIds, text, reason }, where) {
    const { max_tokens: maxTokens, max_sentences: maxSentences } = this.spec;
    const isWithin = tokenIds.length <= maxTokens;
    const ends = {
      end: tokenIds.length > 0 && isWithin,
      max_tokens: BigInt(tokenIds.length) === maxTokens,
      sentences: isWithin && maxSentences !== null && countSentences(text) >= maxSentences,
    };
    if (!Object.hasOwn(ends, reason) || !ends[reason]) {
      throw this.fault(where, `it did not end for the reason that is recorded: ${reason}`);
    }
  }

  #takeChoice(line) {
    const expected = this.spec.finalizer.numCandidates;
    if (BigInt(this.#candidates.length) !== expected) {
      throw this.fault("choice", `it is among ${this.#candidates.length} of ${expected} candidates`);
    }
    const key = stepKey(this.seed, 0);
    if (field(line, "key") !== toHex(key)) throw this.fault("choice", "its key does not follow from the seed");
    this.#checkNumbers(line);
    this.#winner = this.#candidates[this.#checkDraw(line, uniform(key, "candidate"))];
    const due = this.standing.choose(this.#winner.tokenIds, this.#winner.text, line.get("owed").map(number));
    for (const [name, follows] of Object.entries(due)) {
      const recorded = field(line, name);
      if (!same(recorded, follows)) throw this.fault("choice", `${name}: ${recorded} is recorded, ${follows} follows`);
    }
  }

  /** Probabilities, payments and utilities follow from the rewards, the reference and the proposal. */
  #checkNumbers(line) {
    const tau = Number(this.spec.finalizer.tau);
    const reference = listOf(line, "log_reference").map(orRuledOut);
    if (reference.some((x) => x > TOLERANCE)) throw this.fault("choice", "the logarithm of a probability is above 0");
    if (reference.length !== this.#candidates.length) throw new Error("log_reference is not one a candidate");
    const base = reference.map((x, place) => x - this.#candidates[place].logProposal);
    const rewards = listOf(line, "rewards");
    if (rewards.length !== this.spec.agents.length) throw new Error("the rewards are not one row an agent");
    const rows = rewards.map((row, agent) => {
      const value = Number(this.spec.agents[agent].valuePerNat);
      return row.map((x) => (value ? (value * orRuledOut(x)) / tau : 0));
    });
    if (rows.some((row) => row.length !== base.length)) throw this.fault("choice", "the rewards are not one a candidate");
    const sumOf = (lists) => base.map((_, place) => exactSum(lists.map((list) => list[place])));
    const everybody = logSoftmax(sumOf([base, ...rows]));
    this.#compare(line, "probabilities", everybody.map(Math.exp), TOLERANCE);
    const finite = [...base, ...rows.flat()].filter(Number.isFinite).map(Math.abs);
    const slack = TOLERANCE * tau * Math.max(1, ...finite);
    const without = rows.map((_, agent) => logSoftmax(sumOf([base, ...rows.filter((_row, other) => other !== agent)])));
    this.#compare(line, "owed", without.map((log) => tau * divergence(everybody, log)), slack);
    const gains = without.map((log, agent) => tau * logSum(log.map((x, place) => x + rows[agent][place])));
    this.#compare(line, "utilities", gains, slack);
    if (listOf(line, "owed").some((owed) => owed < 0)) throw this.fault("choice", "a payment is negative");
  }

  #compare(line, name, follows, slack) {
    const recorded = listOf(line, name);
    const length = Math.min(recorded.length, follows.length);
    for (let place = 0; place < length; place += 1) {
      if (Math.abs(follows[place] - number(recorded[place])) <= slack) continue;
      throw this.fault("choice", `${name}[${place}] is ${recorded[place]}, but ${follows[place]} follows`);
    }
    if (recorded.length !== follows.length) throw new Error(`${name} has not one entry each`);
  }

  /** The candidate that the uniform draws, which must be the one on record. */
  #checkDraw(line, u) {
    const [chosen, p] = [field(line, "chosen"), listOf(line, "probabilities").map(number)];
    const place = typeof chosen === "bigint" && chosen >= 0n && chosen < p.length ? Number(chosen) : -1;
    if (place < 0 || !(p[place] > 0)) throw this.fault("choice", `no candidate ${chosen} can win`);
    const [below, total] = [exactSum(p.slice(0, place)), exactSum(p)];
    if (below - TOLERANCE <= u * total && u * total <= below + p[place] + TOLERANCE) return place;
    throw this.fault("choice", `the uniform ${u} draws another candidate, not ${chosen}`);
  }
}

function listOf(line, name) {
  const values = field(line, name);
  if (!Array.isArray(values)) throw new TypeError(`${name} is no list`);
  return values;
}

function number(value) {
  if (!["number", "bigint", "boolean"].includes(typeof value)) throw new TypeError("a number is missing or of the wrong kind");
  return Number(value);
}

/** A logarithm or a reward; null stands for -∞. */
const orRuledOut = (value) => (value === null ? -Infinity : number(value));

function logSum(values) {
  const top = Math.max(...values);
  return top + Math.log(exactSum(values.map((value) => Math.exp(value - top))));
}

function logSoftmax(values) {
  const total = logSum(values);
  return values.map((value) => value - total);
}

/** KL(p ‖ q) in nats, straight from its definition. */
function divergence(logP, logQ) {
  const pairs = logP.map((a, place) => [a, logQ[place]]).filter(([a]) => a > -Infinity);
  return exactSum(pairs.map(([a, b]) => Math.exp(a) * (a - b)));
}

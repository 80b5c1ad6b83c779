/**
 * One step's numbers checked against each other: aggregate, draw, critical bids, payments, by the formulas of
 * docs/mechanism.md and within the tolerances of engine/arithmetic.py. Whole distributions are not looked at.
 */

import { exactSum, isClose, same, toFloat, toWhole } from "./numbers.js";
import { exponential, uniform } from "./randomness.js";

const TOLERANCE = 1e-9; // of probabilities, and of payments relative to the bid
const LOG_TOLERANCE = 1e-7; // of ln q at a log-linear critical bid
const BOUND_SLACK = 1e-9; // of the bounds of TV and KL
const SERIES_BELOW = 1e-4; // b/B under which f(b, B) is summed as a series

/** What a step line says, a column a row; throws where it is not one. */
export function readStep(spec, line) {
  const width = spec.rowIds.length;
  const column = (name, read) => {
    const values = line.has(name) ? line.get(name) : Array(width).fill(null);
    if (!Array.isArray(values) || values.length !== width) throw new Error(`${name} has not one entry a row`);
    return values.map(read);
  };
  const floats = (name) => column(name, toFloat);
  const optional = (name) => column(name, (value) => (value === null ? null : toFloat(value)));
  const cdfBelow = field(line, "cdf_below");
  return {
    spec,
    weights: floats("effective"),
    p: floats("p"),
    r: floats("r"),
    cdfBelow: cdfBelow === null ? null : toFloat(cdfBelow),
    q: toFloat(field(line, "q")),
    token: toWhole(field(line, "token")),
    criticalBids: optional("critical_bids"),
    owed: floats("owed"),
    logPartitions: optional("log_partitions"),
    divergences: optional("divergences"),
    ownTokens: column("own_tokens", (value) => (value === null ? null : toWhole(value))),
  };
}

/** A field that must be there. */
export function field(line, name) {
  if (!line.has(name)) throw new Error(`a field is missing (${name})`);
  return line.get(name);
}

/** The first thing in a step that does not follow from the rest, or an empty string. */
export function checkStep(step, key) {
  for (const check of [checkColumns, checkAggregate, checkDraw, checkCriticalBids, checkDivergences, checkOwed]) {
    const problem = check(step, key);
    if (problem) return problem;
  }
  return "";
}

function checkColumns({ spec, ...step }) {
  const hasCriticalBids = spec.rule === "linear" || spec.pricing === "critical_bid";
  const hasDivergences = ["expected", "kl_clarke"].includes(spec.pricing);
  if ((step.cdfBelow === null) !== (spec.sampler === "race")) return "cdf_below is there for the coupled sampler alone";
  for (const [row, id] of spec.rowIds.entries()) {
    if ((step.criticalBids[row] !== null) !== hasCriticalBids) return `the critical bid of ${id} is ${step.criticalBids[row]}`;
    if (row >= spec.agents.length && step.criticalBids[row]) return "the reference pays nothing, so its critical bid is 0";
    if ((step.divergences[row] !== null) !== hasDivergences) return `the divergence of ${id} is ${step.divergences[row]}`;
    if (step.weights[row] === 0 && step.p[row] !== 0) return `${id} has no weight, so its probability does not count`;
  }
  return "";
}

function checkAggregate({ spec, weights, p, r, q, cdfBelow }) {
  const isProbability = (x) => x >= 0 && x <= 1 + TOLERANCE;
  if (![...p, ...r, q, cdfBelow ?? 0].every(isProbability)) return "a probability is outside 0…1";
  if (spec.rule !== "linear") return "";
  const meanOf = (rows) =>
    exactSum(rows.map((row) => weights[row] * p[row])) / divisor(exactSum(rows.map((row) => weights[row])));
  const everybody = [...weights.keys()];
  const follows = meanOf(everybody);
  if (!isClose(follows, q, TOLERANCE, TOLERANCE * 1e-3)) return `q is ${q}, but the agents' distributions give ${follows}`;
  for (const row of everybody) {
    const others = everybody.filter((other) => other !== row);
    if (exactSum(others.map((other) => weights[other])) <= 0 || weights[row] <= 0) continue;
    const without = meanOf(others);
    if (!isClose(r[row], without, TOLERANCE, TOLERANCE * 1e-3)) {
      return `r of ${spec.rowIds[row]} is ${r[row]}, but the others' distributions give ${without}`;
    }
  }
  return "";
}

function divisor(value) {
  if (value === 0) throw new Error("nothing has weight");
  return value;
}

function checkDraw(step, key) {
  const { spec, cdfBelow, q } = step;
  if (spec.sampler === "race") return spec.rule === "linear" ? checkRace(step, key) : "";
  const u = uniform(key, "token");
  if (cdfBelow - TOLERANCE <= u && u <= cdfBelow + q + TOLERANCE) return "";
  return `the draw's uniform ${u} is outside the token's interval from ${cdfBelow}, ${q} long`;
}

/** Rows with weight, the winner of the race first. */
function raceOrder({ spec, weights }, key) {
  const times = weights.map((weight, row) => exponential(key, "agent clock", spec.rowIds[row]) / weight);
  return [...weights.keys()].filter((row) => weights[row] > 0).sort((one, other) => times[one] - times[other]);
}

function checkRace(step, key) {
  const [winner] = raceOrder(step, key);
  if (winner === undefined) throw new Error("nobody has weight");
  if (same(step.ownTokens[winner], step.token)) return "";
  return `the race is won by ${step.spec.rowIds[winner]}, whose token is ${step.ownTokens[winner]}`;
}

const othersOf = (step, row) => exactSum(step.weights.filter((_, other) => other !== row));

/** The critical bid that follows for one row, in micros; null where it takes a log-partition to check one. */
function criticalBid(step, row, key) {
  const { spec, weights, q } = step;
  const bid = weights[row];
  const others = othersOf(step, row);
  if (bid <= 0 || others <= 0) return 0;
  if (spec.sampler === "race") {
    const [first, second] = raceOrder(step, key);
    if (row !== first || same(step.ownTokens[second], step.token)) return 0;
    const [own, next] = [row, second].map((each) => exponential(key, "agent clock", spec.rowIds[each]));
    return Math.min(bid, (own * weights[second]) / next);
  }
  const [v, p, r] = [uniform(key, "price") * q, step.p[row], step.r[row]];
  if (v <= r || p <= r || v > p) return 0;
  return spec.rule === "linear" && p > v ? Math.min(bid, (others * (v - r)) / (p - v)) : null;
}

function checkCriticalBids(step, key) {
  const { spec } = step;
  if (spec.rule === "log_linear" && spec.pricing !== "critical_bid") return "";
  for (const row of spec.agents.keys()) {
    const recorded = known(step.criticalBids[row]);
    const follows = criticalBid(step, row, key);
    if (follows === null) {
      const problem = checkLogLinear(step, row, key);
      if (problem) return `critical bid of ${spec.rowIds[row]}: ${problem}`;
    } else if (!isClose(recorded, follows, TOLERANCE, slack(step, row))) {
      return `critical bid of ${spec.rowIds[row]} is ${recorded}, but ${follows} follows`;
    }
  }
  return "";
}

/** How far a payment may be off: relative to the bid, and to how steep the crossing is. */
function slack({ weights, p, r }, row) {
  return TOLERANCE * weights[row] * (1 + Math.min(1e6, 1e-6 / Math.max(Math.abs(p[row] - r[row]), 1e-300)));
}

/** At the critical bid, w ln p + (1-w) ln r - ln Z(w) = ln v, with w = z/(z + B_-i). */
function checkLogLinear(step, row, key) {
  const [z, bid, logPartition] = [known(step.criticalBids[row]), step.weights[row], step.logPartitions[row]];
  if (!(z >= 0 && z <= bid * (1 + TOLERANCE))) return `${z} is not between 0 and the bid ${bid}`;
  if (logPartition === null) return "its log-partition is missing";
  const w = z / (z + othersOf(step, row));
  const [v, p, r] = [uniform(key, "price") * step.q, step.p[row], step.r[row]];
  if (p <= 0 || r <= 0) return v > 0 ? "" : "v is 0";
  if (v <= 0) throw new Error("v is 0");
  const gap = w * Math.log(p) + (1 - w) * Math.log(r) - logPartition - Math.log(v);
  return Math.abs(gap) <= LOG_TOLERANCE ? "" : `q at ${z} is off from v by a factor of e^${gap}`;
}

/** A TV or KL is at least that of token against rest, since merging never raises one, and it is bounded above. */
function checkDivergences(step) {
  const { spec, weights, p, r, q } = step;
  for (const [row, divergence] of step.divergences.entries()) {
    if (divergence === null) continue;
    const others = exactSum(weights) - weights[row];
    let [least, most] = [0, 0];
    if (weights[row] > 0 && others > 0) {
      if (spec.pricing === "expected") [least, most] = [Math.abs(p[row] - r[row]), 1];
      else if (spec.rule === "linear") [least, most] = [twoPointKl(r[row], q), Math.log1p(weights[row] / others)];
      else [least, most] = [twoPointKl(q, r[row]), Infinity];
    }
    const room = BOUND_SLACK * Math.max(1, least);
    if (!(least - room <= divergence && divergence <= most + room)) {
      return `the divergence of ${spec.rowIds[row]} is ${divergence}, outside ${least}…${most}`;
    }
  }
  return "";
}

function twoPointKl(one, other) {
  const [x, y] = [Math.min(one, 1), Math.min(other, 1)];
  const pairs = [[x, y], [1 - x, 1 - y]].filter(([a, b]) => a > 0 && b > 0);
  return exactSum(pairs.map(([a, b]) => a * Math.log(a / b)));
}

function checkOwed(step) {
  const { spec, weights } = step;
  for (const [row, owed] of step.owed.entries()) {
    const follows = owedBy(step, row);
    if (follows !== null && !isClose(owed, follows, TOLERANCE, slack(step, row))) {
      return `payment of ${spec.rowIds[row]} is ${owed}, but ${follows} follows`;
    }
    let most = spec.isPaymentAtMostBid ? weights[row] : Infinity;
    if (spec.pricing === "expected") most *= known(step.divergences[row]) + BOUND_SLACK;
    if (!(owed >= 0 && owed <= most)) return `payment of ${spec.rowIds[row]} is ${owed}, outside 0…${most}`;
  }
  return "";
}

/** What the pricing rule asks of one row, in micros; null where whole distributions are needed. */
function owedBy(step, row) {
  const { spec } = step;
  const bid = step.weights[row];
  if (row >= spec.agents.length || bid <= 0) return 0;
  const others = othersOf(step, row);
  switch (spec.pricing) {
    case "free":
      return 0;
    case "first_price":
      return bid;
    case "critical_bid":
      return known(step.criticalBids[row]);
    case "expected":
      return spec.rule === "log_linear" ? null : known(step.divergences[row]) * intervalWeight(bid, others);
    default:
      return others > 0 ? known(step.divergences[row]) * others : 0;
  }
}

/** f(b, B) = B (ln(1 + b/B) - b/(b+B)), the expected critical bid per unit of TV. */
export function intervalWeight(bid, others) {
  if (others <= 0 || bid <= 0) return 0;
  const x = bid / others;
  if (x < SERIES_BELOW) return others * ((x * x) / 2 - (2 * x ** 3) / 3 + (3 * x ** 4) / 4);
  return others * (Math.log1p(x) - x / (1 + x));
}

function known(value) {
  if (value === null) throw new Error("a critical bid, TV or KL that a payment follows from is missing");
  return value;
}

/**
 * What an auction is, as the first line of its receipt says: the checks of engine/spec.py, and what its combination of
 * rule, sampler and pricing promises (engine/guarantees.py, word for word, since a receipt repeats it).
 */

import {
  FINALIZER_FIELDS,
  FINALIZER_LIMITS,
  PROPOSAL_ID,
  checkSoftmaxAgents,
  promiseOfChoice,
  readFinalizer,
} from "./finalizer_spec.js";
import { fieldsOf, micros, text } from "./spec_fields.js";

const MAX_AGENTS = 64;
const MAX_TOKENS = 100_000;
const MICROS = 1_000_000n;
const REFERENCE_ID = "reference";

const RULES = ["linear", "log_linear"];
const SAMPLERS = ["coupled", "race"];
const PRICINGS = ["critical_bid", "expected", "kl_clarke", "first_price", "free"];

const TRUTHFUL = {
  "linear/coupled/critical_bid": "value -v·TV, in expectation over the draw",
  "linear/coupled/expected": "value -v·TV",
  "linear/coupled/kl_clarke": "value -v·KL(p_i ‖ q)",
  "linear/race/critical_bid": "the value of the switch Y_-i -> Y_i, for every seed",
  "linear/race/expected": "value -v·TV",
  "linear/race/kl_clarke": "value -v·KL(p_i ‖ q)",
  "log_linear/coupled/critical_bid": "value -v·TV, in expectation over the draw",
  "log_linear/coupled/expected": "value -v·TV, in expectation over the draw",
  "log_linear/coupled/kl_clarke": "value -v·KL(q ‖ p_i)",
};

const LIMITS = [
  "Truthfulness is per token: it does not lift to one fixed bid for a whole text.",
  "Not false-name-proof: splitting a bid between two identities leaves the text as it was but lowers what is paid; " +
    "allow one account per advertiser.",
  "'Without agent i' means had i bid 0: i's name stays in the others' prompts.",
  "Misreporting the distribution can pay, so the platform hosts the agents' models by default.",
  "A bid changed in mid-text, a budget that runs out and a refund each void the clean theorem.",
];

/** The spec of a receipt's first line; throws where the engine would refuse it. */
export function readSpec(source) {
  const fields = fieldsOf(source, "spec", SPEC_FIELDS);
  const finalizer = readFinalizer(fields);
  const spec = { ...DEFAULTS, ...(finalizer && { temperature: 1 }), finalizer };
  for (const [name, value] of fields) if (name in DEFAULTS || name === "agents") spec[name] = value;
  if (!Array.isArray(spec.agents)) throw new Error("spec.agents must be a list of agents");
  spec.agents = spec.agents.map((agent, place) => readAgent(agent, `agents[${place}]`, finalizer));
  spec.query = text(fields, "query", "spec");
  spec.referenceWeight = micros(spec.reference_weight, "spec.reference_weight");
  checkAgents(spec.agents);
  checkOptions(spec);
  const isIdle = spec.referenceWeight === 0n && spec.agents.every((agent) => agent.bid === 0n);
  if (isIdle && !finalizer) throw new Error("nothing has weight");
  Object.assign(spec, finalizer ? promiseOfChoice(finalizer, spec.allow_unsafe) : promiseOf(spec));
  const isCut = spec.top_k !== null || (spec.top_p !== null && spec.top_p < 1);
  if (spec.rule === "log_linear" && isCut && !spec.floor) throw new Error("log_linear cannot be cut without a floor");
  spec.hasReference = spec.referenceWeight > 0n && !finalizer;
  if (finalizer) checkSoftmaxAgents(spec.agents);
  else if (!spec.hasReference && spec.agents.every((agent) => agent.hasOwnModel)) throw new Error("every agent runs its own model");
  spec.rowIds = [...spec.agents.map((agent) => agent.id), ...(spec.hasReference ? [REFERENCE_ID] : [])];
  const writers = finalizer?.proposal === "context_aware" ? [PROPOSAL_ID] : [];
  spec.listedIds = finalizer ? [...spec.rowIds, REFERENCE_ID, ...writers] : spec.rowIds;
  spec.limits = finalizer ? FINALIZER_LIMITS : LIMITS;
  return spec;
}

const DEFAULTS = {
  rule: "linear",
  sampler: "coupled",
  pricing: "critical_bid",
  currency: "USD",
  reference_weight: 0n,
  temperature: 0.7,
  top_k: null,
  top_p: null,
  floor: null,
  max_tokens: 64n,
  max_sentences: null,
  banned_words: [],
  top_tokens: 0n,
  seed: null,
  allow_unsafe: false,
};
const SPEC_FIELDS = new Set(["query", "agents", "mechanism", ...Object.keys(DEFAULTS), ...FINALIZER_FIELDS]);
const AGENT_FIELDS = new Set(["id", "name", "offer", "bid", "budget", "system_prompt", "prompt", "own_model", "value_per_nat"]);

function readAgent(source, where, finalizer) {
  const fields = fieldsOf(source, where, AGENT_FIELDS);
  const name = text(fields, "name", where);
  const id = fields.has("id") ? text(fields, "id", where) : name;
  if (!fields.has("prompt") || fields.has("offer")) text(fields, "offer", where);
  if (!fields.has("bid") && !finalizer) throw new Error(`${where}.bid is missing`);
  const bid = micros(fields.has("bid") ? fields.get("bid") : 0n, `${where}.bid`);
  const value = fields.get("value_per_nat") ?? null;
  const valuePerNat = value === null ? MICROS : micros(value, `${where}.value_per_nat`);
  const budget = (fields.get("budget") ?? null) === null ? null : micros(fields.get("budget"), `${where}.budget`);
  const prompts = ["system_prompt", "prompt"].filter((name) => (fields.get(name) ?? null) !== null);
  for (const name of prompts) text(fields, name, where, { isLine: name === "system_prompt" });
  const hasOwnModel = fields.get("own_model") ?? false;
  if (typeof hasOwnModel !== "boolean") throw new Error(`${where}.own_model must be true or false`);
  if (hasOwnModel && prompts.length) throw new Error(`${where} runs its own model: a prompt for it would be read by nobody`);
  return { id, bid, budget, hasOwnModel, valuePerNat };
}

function checkAgents(agents) {
  if (agents.length < 1 || agents.length > MAX_AGENTS) throw new Error(`an auction has 1 to ${MAX_AGENTS} agents`);
  const ids = new Set(agents.map((agent) => agent.id));
  if (ids.size < agents.length) throw new Error("two agents have the same id");
  if (ids.has(REFERENCE_ID)) throw new Error(`the id ${REFERENCE_ID} belongs to the house model`);
}

function checkOptions(spec) {
  for (const [name, known] of [["rule", RULES], ["sampler", SAMPLERS], ["pricing", PRICINGS]]) {
    if (!known.includes(spec[name])) throw new Error(`spec.${name} is not one of ${known.join(", ")}`);
  }
  number(spec, "temperature", 1e-3, 100);
  for (const name of ["top_p", "floor"]) if (spec[name] !== null) number(spec, name, Number.MIN_VALUE, 1);
  const wholes = [["max_tokens", 1, MAX_TOKENS], ["top_tokens", 0, 100]];
  for (const [name, low, high] of [["top_k", 1, 1e9], ["max_sentences", 1, MAX_TOKENS]]) {
    if (spec[name] !== null) wholes.push([name, low, high]);
  }
  for (const [name, low, high] of wholes) {
    const value = spec[name];
    if (typeof value !== "bigint" || value < low || value > high) throw new Error(`spec.${name} must be from ${low} to ${high}`);
  }
  const isSeed = typeof spec.seed === "bigint" && spec.seed >= 0n && spec.seed < 1n << 256n;
  if (spec.seed !== null && !isSeed) throw new Error("spec.seed must be from 0 to 2^256 - 1");
  if (typeof spec.allow_unsafe !== "boolean") throw new Error("spec.allow_unsafe must be true or false");
  if (typeof spec.currency !== "string" || !/^[A-Za-z]{3}$/.test(spec.currency)) throw new Error("spec.currency must be an ISO code");
  if (!Array.isArray(spec.banned_words)) throw new Error("spec.banned_words must be a list of words");
  for (const word of spec.banned_words) text(new Map([["banned_words", word]]), "banned_words", "spec", { isLine: false });
}

function number(spec, name, low, high) {
  const value = spec[name];
  const isNumber = typeof value === "number" || typeof value === "bigint";
  if (!isNumber || !(value >= low && value <= high)) throw new Error(`spec.${name} must be from ${low} to ${high}`);
}

/** `guarantee`, as receipts write it, and whether no payment is above its bid. */
function promiseOf({ rule, sampler, pricing, allow_unsafe: allowUnsafe }) {
  const name = `${rule}/${sampler}/${pricing}`;
  if (rule === "log_linear" && sampler === "race") {
    if (pricing === "critical_bid" || !allowUnsafe) throw new Error(`${name} carries no guarantee`);
    return { guarantee: `${name}: UNSAFE, no guarantee`, isPaymentAtMostBid: pricing !== "kl_clarke" };
  }
  const isPaymentAtMostBid = !(rule === "log_linear" && pricing === "kl_clarke");
  const monotone = rule === "linear" ? "monotone" : "not monotone";
  const truthful = TRUTHFUL[name] ? `truthful for ${TRUTHFUL[name]}` : "no incentive guarantee";
  const payment = isPaymentAtMostBid ? "payment never above the bid" : "payment can exceed the bid";
  return { guarantee: `${name}: ${monotone} under robust preferences; ${truthful}; ${payment}`, isPaymentAtMostBid };
}

/** What a softmax auction is beside the token auction's spec (engine/finalizer_spec.py), and what it promises. */

import { micros } from "./spec_fields.js";

const MAX_CANDIDATES = 256n;
const PROPOSALS = ["reference", "context_aware", "token_auction"];
const PROPOSAL_WEIGHTS = ["equal", "bids", "values"];

export const PROPOSAL_ID = "proposal"; // reserved: the row that writes context-aware candidates
export const FINALIZER_FIELDS = [
  "num_candidates",
  "proposal",
  "proposal_weights",
  "proposal_reference_weight",
  "tau",
  "show_candidates",
];
export const FINALIZER_LIMITS = [
  "Truthful for the candidates that were drawn, in expectation over which of them wins.",
  "Not false-name-proof: splitting a reward between two identities leaves the choice as it was but lowers what is " +
    "paid; allow one account per advertiser.",
  "'Without agent i' means had i wanted nothing: candidates were drawn with i's name in their prompts.",
  "Where rewards are negative a utility can be: whoever wants nothing pays exactly nothing.",
  "A budget that cuts a payment voids the theorem, and so do rewards that an agent can bend.",
];

/** The finalizer among a spec's fields; null in a token auction. Throws where the engine would refuse it. */
export function readFinalizer(fields) {
  const mechanism = fields.has("mechanism") ? fields.get("mechanism") : "token";
  if (mechanism !== "token" && mechanism !== "softmax") throw new Error("spec.mechanism is neither token nor softmax");
  const given = FINALIZER_FIELDS.filter((name) => fields.has(name));
  if (mechanism === "token") {
    if (given.length) throw new Error(`spec.${given[0]} belongs to a softmax auction`);
    return null;
  }
  const read = (name, otherwise) => (fields.has(name) ? fields.get(name) : otherwise);
  const finalizer = {
    numCandidates: read("num_candidates", 8n),
    proposal: read("proposal", "context_aware"),
    proposalWeights: read("proposal_weights", "equal"),
    tau: micros(read("tau", 1n), "spec.tau"),
  };
  micros(read("proposal_reference_weight", 1n), "spec.proposal_reference_weight");
  const { numCandidates, proposal, proposalWeights, tau } = finalizer;
  const isCount = typeof numCandidates === "bigint" && numCandidates >= 1n && numCandidates <= MAX_CANDIDATES;
  if (!isCount) throw new Error(`spec.num_candidates must be from 1 to ${MAX_CANDIDATES}`);
  if (!PROPOSALS.includes(proposal)) throw new Error(`spec.proposal is not one of ${PROPOSALS.join(", ")}`);
  if (!PROPOSAL_WEIGHTS.includes(proposalWeights)) throw new Error(`spec.proposal_weights is not one of ${PROPOSAL_WEIGHTS.join(", ")}`);
  if (typeof read("show_candidates", false) !== "boolean") throw new Error("spec.show_candidates must be true or false");
  if (tau === 0n) throw new Error("spec.tau must be positive");
  return finalizer;
}

export function checkSoftmaxAgents(agents) {
  for (const { id, hasOwnModel } of agents) {
    if (hasOwnModel) throw new Error(`agent ${id} runs its own model, which a softmax auction does not ask`);
    if (id === PROPOSAL_ID) throw new Error(`the id ${PROPOSAL_ID} belongs to the proposal`);
  }
}

/** `guarantee`, as receipts write it. */
export function promiseOfChoice({ proposal, proposalWeights }, allowUnsafe) {
  const isSafe = proposal !== "token_auction" || proposalWeights === "equal";
  if (!isSafe && !allowUnsafe) throw new Error("its candidates depend on what agents say");
  if (!isSafe) return { guarantee: `softmax/${proposal}: UNSAFE, no guarantee: the candidates depend on what agents say` };
  const truth = "truthful for the value E[reward] - payment, candidates fixed";
  return { guarantee: `softmax/${proposal}: ${truth}; payment τ·KL(π ‖ π_-i), exactly 0 for who moves nothing` };
}

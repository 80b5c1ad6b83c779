/** What a verification at the level of arithmetic has looked at, by name, and what it cannot see, in sentences. */

export function whatWasChecked(spec, { isPinned, isStored }) {
  const { checks, unchecked } = spec.finalizer ? ofChoice() : ofTokens(spec, isStored);
  if (isPinned) checks.push("published head");
  else unchecked.push("whether this is the receipt whose head was published");
  return { checks, unchecked };
}

function ofChoice() {
  const checks = ["chain", "commitment", "candidates' draws", "probabilities", "choice", "payments", "charges and totals", "ending"];
  const unchecked = ["whether rewards and probabilities are what models said", "whether the texts are those of their tokens"];
  return { checks, unchecked };
}

function ofTokens({ rule, sampler, pricing, agents }, isStored) {
  const isLinear = rule === "linear";
  const hasCriticalBids = isLinear || pricing === "critical_bid";
  const checks = ["chain", "commitment", "keys", "draws"];
  if (isLinear) checks.push("aggregate");
  checks.push("bids and budgets");
  if (hasCriticalBids) checks.push("critical bids");
  checks.push("payments", "charges and totals", "ending");
  const unchecked = ["whether the probabilities are what a model said", "whether the text is that of its tokens"];
  if (isStored) unchecked.push("the steps from their stored distributions, which are only hashed here: `tokenauction verify` computes them again");
  if (agents.some((agent) => agent.hasOwnModel)) {
    unchecked.push("whether the reports of agents with models of their own give the recorded probabilities");
  }
  if (!isLinear) unchecked.push("log-linear q, r and ln Z, and the critical bids that follow from them, but for their bounds");
  if (pricing === "expected" || pricing === "kl_clarke") unchecked.push("the distances that payments follow from, but for their bounds");
  if (sampler === "race") unchecked.push(isLinear ? "the tokens of those that lost a race" : "the race over the aggregate");
  return { checks, unchecked };
}

/** What follows the bill of a settled auction: the check, the text without ads, and what other bids would have done. */

import { landscapeOf } from "./landscape.js";
import { plainOf } from "./plain.js";
import { sweepOf } from "./sweep.js";
import { verdictOf } from "./verdict.js";

const SWEPT_TOKENS = 64;

/** The cards, in order; those that need numbers which this viewer may not see are left out. */
export function afterOf(client, id, transcript, sides) {
  const { created, settled } = transcript;
  const isOwner = settled.total_micros !== undefined; // whoever sees every number
  const isToken = created.spec.mechanism !== "softmax";
  if (!isOwner || settled.receipt_head === null) return [];
  const verdict = verdictOf(id, settled.receipt_head, isToken ? "token" : "candidate", () => client.receipt(id));
  const landscape = landscapeOf(sides, settled.currency, isToken, (agentId) => client.landscape(id, agentId));
  if (!isToken) return [verdict, landscape]; // what there would be without ads stands with the candidates
  const plain = plainOf(settled.text, () => client.withoutAds(id));
  const sweep = sweepOf(specOf(created.spec), sides, (body, onRow) => client.sweep(body, { onRow }));
  return [plain, verdict, landscape, sweep];
}

/** The spec that would begin this auction again, with texts as short as a sweep may have. */
function specOf(spec) {
  const { seed: _, ...rest } = { ...spec, max_tokens: Math.min(spec.max_tokens, SWEPT_TOKENS) };
  return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
}

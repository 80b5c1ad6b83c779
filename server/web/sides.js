/** The sides of an auction: who they are, the letter and pattern of each, and whose influence a token carries. */

import { el, named } from "./dom.js";

const HOUSE_NAMES = { reference: "The house model", proposal: "The house, knowing the offers" };
const STRENGTHS = 5; // of a tint
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]]; // of a line in a chart, in the order of sides
const NUM_LOOKS = 6;

/** Every side of an auction in the order of its rows; offers and bids where the viewer may see them. */
export function sidesOf(created) {
  const agents = new Map((created.spec.agents ?? []).map((agent) => [agent.id, agent]));
  return created.rows.map((id, index) => {
    const agent = agents.get(id);
    const isHouse = !agent; // every other row is an advertiser's
    return {
      id,
      index,
      isHouse,
      name: agent?.name ?? HOUSE_NAMES[id] ?? id,
      offer: agent?.offer ?? "",
      bid: agent?.bid ?? null,
      valuePerNat: agent?.value_per_nat ?? null, // in a softmax auction, which takes no bids
      letter: isHouse ? "·" : String.fromCharCode(65 + (index % 26)),
      look: isHouse ? "house" : `by-${index % NUM_LOOKS}`,
      dash: DASHES[index % NUM_LOOKS],
    };
  });
}

export function badge(side) {
  return el("span", { class: `badge ${side.look}`, "aria-hidden": "true", text: side.letter });
}

export function who(side) {
  return el("span", { class: "who" }, badge(side), named(side.name));
}

/**
 * Whose influence a token carries: the side with the largest share, and how far that is above an even split, 0 to 5.
 * Strength 0: all sides wanted this token alike. Null where the viewer does not see shares.
 */
export function leaning(token) {
  const shares = token.agents.filter((agent) => agent.influence > 0);
  if (shares.length === 0) return null;
  const first = shares.reduce((best, agent) => (agent.influence > best.influence ? agent : best));
  const num = token.agents.filter((agent) => agent.effective_bid_micros > 0).length;
  const even = num > 1 ? 1 / num : 0;
  return { id: first.id, share: first.influence, strength: Math.round((STRENGTHS * (first.influence - even)) / (1 - even)) };
}

/** The colour of a side as it is now, light or dark, for a canvas. */
export function colour(side, root = document.documentElement) {
  const name = side.isHouse ? "--agent-house" : `--agent-${side.index % NUM_LOOKS}`;
  return getComputedStyle(root).getPropertyValue(name).trim();
}

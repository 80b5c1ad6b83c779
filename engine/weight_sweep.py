"""Weight moves from everybody else to one agent: the specs of such a sweep, and whom its texts mention.

The demonstration of the token auction's authors (Google Research, 2025), with any number of advertisers. It must not
know how a text is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tokenauction.engine.guarantees import Rule
from tokenauction.engine.spec import AuctionSpec

TOTAL_MICROS = 10**9  # all weights together: their scale changes nothing in the text, so it is a fine-grained one


def at_weight(spec: AuctionSpec, rule: Rule, weight: float, seed: int, row: int = 0) -> AuctionSpec:
    """The token auction with a share `weight` of all weight given to the agent of this row, nothing charged, one seed.

    The others share the rest in proportion to their bids, evenly where all are 0; an agent that is alone shares with
    the reference. Raises InvalidSpec where that leaves nobody with weight.
    """
    own = round(TOTAL_MICROS * weight)
    rest = [agent.bid_micros if other != row else 0 for other, agent in enumerate(spec.agents)]
    if not any(rest):
        rest = [int(other != row) for other in range(len(spec.agents))]
    shares = [(TOTAL_MICROS - own) * share // max(sum(rest), 1) for share in rest]
    shares[row] = own
    can_truncate = rule == "linear" or spec.floor is not None
    return replace(
        spec,
        agents=tuple(
            replace(agent, bid_micros=share, budget_micros=None)
            for agent, share in zip(spec.agents, shares, strict=True)
        ),
        finalizer=None,
        rule=rule,
        sampler="coupled",
        pricing="free",
        reference_weight_micros=0 if len(spec.agents) > 1 else TOTAL_MICROS - own,
        seed=seed,
        top_tokens=0,
        top_k=spec.top_k if can_truncate else None,
        top_p=spec.top_p if can_truncate else None,
    )


def names_in(text: str, names: Sequence[str]) -> frozenset[str]:
    """Which of these names a text mentions, spelled exactly and not as a part of a longer word."""
    return frozenset(name for name in names if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text))


def mention_rates(texts: Sequence[str], names: Mapping[str, str]) -> tuple[dict[str, float], dict[str, float], float]:
    """Shares of texts, in 0…1, that mention each agent (`names` by id), that mention it alone, that mention nobody."""
    found = [names_in(text, list(names.values())) for text in texts]
    mentions = {agent_id: sum(name in each for each in found) / len(texts) for agent_id, name in names.items()}
    alone = {agent_id: sum(each == {name} for each in found) / len(texts) for agent_id, name in names.items()}
    return mentions, alone, sum(not each for each in found) / len(texts)

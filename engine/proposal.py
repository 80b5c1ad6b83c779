"""Where the candidates of a softmax auction come from: each is a token auction of its own, in which nobody pays.

    reference, context_aware   one row, whose prompt says what it writes
    token_auction              every agent's row with a weight that no bid moves, and the reference's

So candidates are decoded like every other text, all of them in one batch, and ln π_gen of each is the sum of ln q over
the very draws that wrote it: temperature, top-k, top-p and mask included. It must not know what a candidate is worth.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tokenauction.engine.finalizer_spec import PROPOSAL_ID, FinalizerSpec
from tokenauction.engine.money import MICROS
from tokenauction.engine.randomness import seed_bytes
from tokenauction.engine.spec import REFERENCE_ID, AgentSpec, AuctionSpec

_WRITER = AgentSpec(PROPOSAL_ID, PROPOSAL_ID, "", bid_micros=1)


def candidate_spec(spec: AuctionSpec, finalizer: FinalizerSpec) -> AuctionSpec:
    """The token auction that writes one candidate; raises InvalidSpec where nobody has weight in it."""
    if finalizer.proposal == "token_auction":
        agents = tuple(
            replace(agent, bid_micros=_weight_micros(agent, finalizer), budget_micros=None) for agent in spec.agents
        )
        weight = finalizer.proposal_reference_weight_micros
    else:
        agents, weight = (_WRITER,), 0
    return replace(
        spec,
        agents=agents,
        reference_weight_micros=weight,
        rule=spec.rule if finalizer.proposal == "token_auction" else "linear",
        sampler="coupled",
        pricing="free",
        top_tokens=0,
        seed=None,
        finalizer=None,
    )


def writing_ids(spec: AuctionSpec, finalizer: FinalizerSpec) -> tuple[str, ...]:
    """Ids, of `spec.hosted_ids`, of the prompts behind which a candidate is written, in the order of its rows."""
    if finalizer.proposal == "context_aware":
        return (PROPOSAL_ID,)
    if finalizer.proposal == "reference":
        return (REFERENCE_ID,)
    agents = tuple(agent.id for agent in spec.agents)
    return (*agents, REFERENCE_ID) if finalizer.proposal_reference_weight_micros else agents


def candidate_seed(seed: int, index: int) -> int:
    """The seed of one candidate's draws: SHA-256("tokenauction/candidate/v1" ‖ seed, 32 bytes ‖ index, 8 bytes)."""
    message = b"tokenauction/candidate/v1" + seed_bytes(seed) + index.to_bytes(8, "big")
    return int.from_bytes(hashlib.sha256(message).digest(), "big")


def _weight_micros(agent: AgentSpec, finalizer: FinalizerSpec) -> int:
    if finalizer.proposal_weights == "bids":
        return agent.bid_micros
    return agent.value_per_nat_micros if finalizer.proposal_weights == "values" else MICROS

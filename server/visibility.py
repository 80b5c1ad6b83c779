"""Who sees which field of an event: one table, and the function that applies it. What has no row nobody sees.

A bidder sees its own bid, influence, critical bids and payments. It sees no other agent's number, and none that gives
one away together with its own:

    q(t), r(t), TV      with the own share of a token they give the sum of the others' bids exactly
    the auction's total     less the own payment it is what the others pay, and so a floor under their bids
    π, π_-i, E_π[r]         (softmax) with the own rewards and the reference they give what the others want together
    seed with nonce     with the commitment and the steps' hashes they tell whether a guess at a bid is right
    a candidate's head  (softmax) nothing secret is hashed into it, no step's key: it tells the same of a guess

So who is no more than a bidder gets the commitment and the receipt's head, which bind the auctioneer, and its owner the
rest, which shows that he kept to it. What the own share and price imply stays implied: who knows every distribution can
work out from its own share how much the others bid together. Every audience gets every event, be it its envelope alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

Audience = Literal["public", "bidder", "owner", "admin"]
AUDIENCES: tuple[Audience, ...] = get_args(Audience)

# What a cell may say, first while the auction runs, then once it has settled.
SEEN, OWN, HIDDEN = "+", "o", "-"  # everybody's, that of the agent who looks, nobody's


class Row(NamedTuple):
    """Some fields of one event type and who sees them; `[]` stands for each entry of a list."""

    event: str  # "*": of every event
    fields: str  # names with a space between
    public: str
    bidder: str
    owner: str
    admin: str


FIELDS: tuple[Row, ...] = (
    Row("*", "type event_id auction_id seq epoch durable_seq time disclosure", "++", "++", "++", "++"),
    Row("auction.created", "spec.query spec.rule spec.sampler spec.pricing spec.currency", "++", "++", "++", "++"),
    Row("auction.created", "spec.temperature spec.top_k spec.top_p spec.floor spec.top_tokens", "++", "++", "++", "++"),
    Row("auction.created", "spec.max_tokens spec.max_sentences spec.banned_words", "++", "++", "++", "++"),
    Row("auction.created", "spec.reference_weight spec.seed spec.allow_unsafe", "++", "++", "++", "++"),
    Row("auction.created", "spec.mechanism spec.num_candidates spec.proposal spec.tau", "++", "++", "++", "++"),
    Row("auction.created", "spec.proposal_weights spec.proposal_reference_weight", "++", "++", "++", "++"),
    Row("auction.created", "spec.show_candidates", "++", "++", "++", "++"),
    Row("auction.created", "spec.agents[].id spec.agents[].name", "++", "++", "++", "++"),
    Row("auction.created", "spec.agents[].bid spec.agents[].offer", "--", "oo", "++", "++"),
    Row("auction.created", "spec.agents[].value_per_nat", "--", "oo", "++", "++"),
    Row("auction.created", "spec.agents[].system_prompt spec.agents[].prompt", "--", "oo", "++", "++"),
    Row("auction.created", "spec.agents[].budget", "--", "oo", "-+", "++"),
    Row("auction.created", "spec.agents[].own_model", "--", "oo", "++", "++"),
    Row("auction.created", "rows guarantee limits seed_source commitment reward", "++", "++", "++", "++"),
    Row("auction.created", "model numerics runner clearing tokenizer_hash", "++", "++", "++", "++"),
    Row("auction.created", "prompt_hashes", "--", "--", "++", "++"),
    Row("auction.token", "step token_id text receipt_head latency_ms", "++", "++", "++", "++"),
    Row("auction.token", "agents[].id agents[].status", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].bid_micros agents[].effective_bid_micros", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].influence", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].exact_critical_bid_micros agents[].exact_payment_micros", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].payment_micros agents[].total_micros agents[].clipped", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].outcome agents[].loss_reason", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].report_hash", "--", "oo", "++", "++"),
    Row("auction.token", "agents[].probability agents[].probability_without agents[].tv", "--", "--", "++", "++"),
    Row("auction.token", "agents[].counterfactual_token_id agents[].counterfactual_text", "--", "--", "++", "++"),
    Row("auction.token", "probability top_tokens draw key", "--", "--", "++", "++"),
    Row("candidates.progress", "num_done num_candidates num_tokens", "++", "++", "++", "++"),
    Row("candidate.completed", "index num_tokens finish_reason text", "++", "++", "++", "++"),
    Row("candidate.completed", "log_proposal receipt_head", "--", "--", "++", "++"),
    Row("auction.finalized", "chosen text num_tokens receipt_head", "++", "++", "++", "++"),
    Row("auction.finalized", "candidates[].index candidates[].text", "++", "++", "++", "++"),
    Row("auction.finalized", "candidates[].probability candidates[].log_reference", "--", "--", "++", "++"),
    Row("auction.finalized", "candidates[].log_proposal", "--", "--", "++", "++"),
    Row("auction.finalized", "agents[].id agents[].value_per_nat_micros", "--", "oo", "++", "++"),
    Row("auction.finalized", "agents[].rewards agents[].reward", "--", "oo", "++", "++"),
    Row("auction.finalized", "agents[].exact_payment_micros agents[].payment_micros", "--", "oo", "++", "++"),
    Row("auction.finalized", "agents[].total_micros agents[].clipped", "--", "oo", "++", "++"),
    Row("auction.finalized", "agents[].exact_expected_reward_micros", "--", "--", "++", "++"),
    Row("auction.finalized", "agents[].exact_utility_micros", "--", "--", "++", "++"),
    Row("auction.finalized", "agents[].probabilities_without agents[].chosen_without", "--", "--", "++", "++"),
    Row("auction.finalized", "effective_sample_size log_mean_weight divergence key", "--", "--", "++", "++"),
    Row("agent.left", "agent_id from_step", "-+", "o+", "++", "++"),
    Row("distributions.committed", "step", "++", "++", "++", "++"),
    Row("distributions.committed", "agents[].id agents[].report_hash", "--", "oo", "++", "++"),
    Row("stream.reset", "after_seq", "++", "++", "++", "++"),
    Row("error", "code", "++", "++", "++", "++"),
    Row("error", "message", "--", "--", "++", "++"),
    Row("auction.settled", "finish_reason posted num_tokens text voids currency receipt_head", "++", "++", "++", "++"),
    Row("auction.settled", "agents[].id agents[].total_micros agents[].total", "--", "oo", "++", "++"),
    Row("auction.settled", "agents[].exact_total_micros", "--", "oo", "++", "++"),
    Row("auction.settled", "agents[].outcome agents[].loss_reason agents[].num_tokens_won", "--", "oo", "++", "++"),
    Row("auction.settled", "total_micros total", "--", "--", "++", "++"),
    Row("auction.settled", "seed nonce", "--", "--", "-+", "-+"),
)

Tree = Mapping[str, Any]  # of the fields that may be seen: a name leads to SEEN, OWN, or the tree of what is inside


def view(event: Mapping[str, Any], audience: Audience, agent_id: str | None, settled: bool) -> dict[str, Any]:
    """The event as this audience may see it; `agent_id` is the bidder's own, `settled` whether the auction is over."""
    kind = event["type"]
    known = _TREES.get((kind, audience, settled or kind == "auction.settled"), _ENVELOPE)
    return _seen(event, known, event.get("agent_id"), agent_id)


def _seen(value: Mapping[str, Any], tree: Tree, whose: object, agent_id: str | None) -> dict[str, Any]:
    """What the tree lets through of a mapping that is about the agent `whose`."""
    is_own = agent_id is not None and whose == agent_id
    seen: dict[str, Any] = {}
    for name, inner in tree.items():
        if name not in value:
            continue
        if isinstance(inner, str):
            if inner == SEEN or is_own:
                seen[name] = value[name]
        elif isinstance(value[name], Mapping):
            seen[name] = _seen(value[name], inner, None, agent_id)
        else:
            entries = (_seen(entry, inner, entry.get("id"), agent_id) for entry in value[name])
            seen[name] = [entry for entry in entries if entry]
    return seen


def _tree(event: str, audience: Audience, settled: bool) -> Tree:
    """One audience's part of the table for one event type."""
    tree: dict[str, Any] = {}
    for row in FIELDS:
        cell = getattr(row, audience)[settled]
        if row.event not in ("*", event):
            continue
        for path in row.fields.split():
            *folders, name = path.replace("[]", "").split(".")
            branch = tree
            for folder in folders:
                branch = branch.setdefault(folder, {})
            if cell != HIDDEN:
                branch[name] = cell
    return tree


_ENVELOPE: Mapping[str, Any] = MappingProxyType(_tree("*", "public", False))
_TREES = MappingProxyType(
    {
        (event, audience, settled): _tree(event, audience, settled)
        for event in {row.event for row in FIELDS}
        for audience in AUDIENCES
        for settled in (False, True)
    }
)

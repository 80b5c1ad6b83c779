"""The events of an auction's stream, which carry `seq`; every reader gets every `seq`, with the fields it may see.

[auction.created → auction.token … agent.left, error, stream.reset …] → auction.settled
[auction.created → candidates.progress, candidate.completed … → auction.finalized] → auction.settled
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from tokenauction.server.envelope import ServerEnvelope


class Sponsor(msgspec.Struct, frozen=True):
    """One of those who paid for the text."""

    id: str
    name: str


class Disclosure(msgspec.Struct, frozen=True):
    """That the text is paid for, and by whom."""

    sponsored: bool
    by: list[Sponsor]


class StreamEvent(ServerEnvelope, frozen=True, kw_only=True):
    """What every event of a stream carries; every reader gets every `seq`."""

    auction_id: str
    seq: int  # dense, from 0
    epoch: int | UnsetType = UNSET
    durable_seq: int | UnsetType = UNSET  # up to here the ledger holds the stream on disk
    disclosure: Disclosure | UnsetType = UNSET  # of the first and the last event, whatever they are


class GuaranteeTerms(msgspec.Struct, frozen=True):
    """What this combination of rule, sampler and pricing promises."""

    summary: str
    monotone_robust: bool
    truthful: str
    payment_at_most_bid: bool
    safe: bool


class AuctionCreated(StreamEvent, tag="auction.created", frozen=True, kw_only=True):
    """The first event of a text: everything that is fixed before its first token."""

    spec: dict[str, Any]
    rows: list[str]
    guarantee: GuaranteeTerms
    limits: list[str]
    seed_source: str
    commitment: str
    model: dict[str, str]
    numerics: str
    runner: str
    clearing: str
    tokenizer_hash: str
    reward: str | UnsetType = UNSET  # of a softmax auction: where rewards come from
    prompt_hashes: list[str | None] | UnsetType = UNSET  # one a row; null for agents with their own models


class AgentShare(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's part in one token."""

    id: str
    status: str | UnsetType = UNSET
    bid_micros: int | UnsetType = UNSET
    effective_bid_micros: int | UnsetType = UNSET
    probability: float | UnsetType | None = UNSET
    probability_without: float | UnsetType | None = UNSET
    influence: float | UnsetType = UNSET
    tv: float | UnsetType | None = UNSET
    exact_critical_bid_micros: float | UnsetType | None = UNSET
    exact_payment_micros: float | UnsetType = UNSET
    payment_micros: int | UnsetType = UNSET
    total_micros: int | UnsetType = UNSET
    clipped: bool | UnsetType = UNSET
    outcome: str | UnsetType = UNSET  # "won" or "lost"
    loss_reason: str | UnsetType = UNSET  # of outcomes.py, where it lost
    report_hash: str | UnsetType = UNSET  # of the distribution that it sent
    counterfactual_token_id: int | UnsetType | None = UNSET
    counterfactual_text: str | UnsetType | None = UNSET


class AuctionToken(StreamEvent, tag="auction.token", frozen=True, kw_only=True):
    """One token of the text, and what it cost whom."""

    step: int
    token_id: int
    text: str
    probability: float | UnsetType = UNSET
    agents: list[AgentShare]
    key: str | UnsetType = UNSET  # of the step, from which its randomness follows
    receipt_head: str
    latency_ms: float
    top_tokens: dict[str, Any] | UnsetType = UNSET
    draw: dict[str, float] | UnsetType = UNSET


class CandidatesProgress(StreamEvent, tag="candidates.progress", frozen=True, kw_only=True):
    """How far the texts are that compete in a softmax auction."""

    num_done: int
    num_candidates: int
    num_tokens: int


class CandidateCompleted(StreamEvent, tag="candidate.completed", frozen=True, kw_only=True):
    """One more text that competes is complete; they come in the order of their numbers."""

    index: int
    num_tokens: int
    finish_reason: str
    text: str | UnsetType = UNSET  # if the spec shows candidates
    log_proposal: float | UnsetType = UNSET
    receipt_head: str | UnsetType = UNSET


class CandidateChance(msgspec.Struct, frozen=True, kw_only=True):
    """One text in the choice."""

    index: int
    probability: float | UnsetType = UNSET
    log_reference: float | UnsetType | None = UNSET  # None: the reference rules it out
    log_proposal: float | UnsetType = UNSET
    text: str | UnsetType = UNSET  # if the spec shows candidates


class AgentStake(msgspec.Struct, frozen=True, kw_only=True):
    """One agent's part in the choice."""

    id: str
    value_per_nat_micros: int | UnsetType = UNSET
    rewards: list[float | None] | UnsetType = UNSET  # nats, one a candidate; None: it rules the candidate out
    reward: float | UnsetType = UNSET  # of the chosen text, in nats
    exact_expected_reward_micros: float | UnsetType = UNSET
    exact_utility_micros: float | UnsetType = UNSET
    exact_payment_micros: float | UnsetType = UNSET
    payment_micros: int | UnsetType = UNSET
    total_micros: int | UnsetType = UNSET
    clipped: bool | UnsetType = UNSET
    probabilities_without: list[float] | UnsetType = UNSET  # of every candidate, had the agent wanted nothing
    chosen_without: int | UnsetType = UNSET


class AuctionFinalized(StreamEvent, tag="auction.finalized", frozen=True, kw_only=True):
    """The choice of a softmax auction: which text won, what every agent pays for it, and what that follows from."""

    chosen: int
    text: str
    num_tokens: int
    candidates: list[CandidateChance]
    agents: list[AgentStake]
    effective_sample_size: float | UnsetType = UNSET
    log_mean_weight: float | UnsetType = UNSET
    divergence: float | UnsetType = UNSET  # from the reference, in nats
    key: str | UnsetType = UNSET  # of the draw
    receipt_head: str


class AgentTotal(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent owes for the whole text."""

    id: str
    total_micros: int
    total: str
    exact_total_micros: float
    outcome: str | UnsetType = UNSET  # "won" or "lost"
    loss_reason: str | UnsetType = UNSET  # of outcomes.py, where it lost
    num_tokens_won: int | UnsetType = UNSET


class AuctionSettled(StreamEvent, tag="auction.settled", frozen=True, kw_only=True):
    """The last event of every stream: the whole text, and what is owed."""

    finish_reason: str
    posted: bool
    num_tokens: int
    text: str
    voids: list[str]
    currency: str
    agents: list[AgentTotal]
    total_micros: int | UnsetType = UNSET
    total: str | UnsetType = UNSET
    seed: str | UnsetType = UNSET
    nonce: str | UnsetType = UNSET
    receipt_head: str | None


class AgentLeft(StreamEvent, tag="agent.left", frozen=True, kw_only=True):
    """An agent takes part no longer."""

    agent_id: str | UnsetType = UNSET
    from_step: int | UnsetType = UNSET


class ReportHash(msgspec.Struct, frozen=True, kw_only=True):
    """What one agent with its own model has sent, as a hash."""

    id: str
    report_hash: str


class DistributionsCommitted(StreamEvent, tag="distributions.committed", frozen=True, kw_only=True):
    """With commit-reveal: what agents with their own models sent for a step, before its token is drawn."""

    step: int
    agents: list[ReportHash]


class StreamReset(StreamEvent, tag="stream.reset", frozen=True, kw_only=True):
    """A new epoch: drop what was seen behind `after_seq`; the stream goes on from there."""

    after_seq: int


class StreamError(StreamEvent, tag="error", frozen=True, kw_only=True):
    """What went wrong with a text; an `error` without `seq` is the answer to a message."""

    code: str
    message: str | UnsetType = UNSET


STREAM_EVENTS: tuple[type[StreamEvent], ...] = (
    AuctionCreated,
    AuctionToken,
    CandidatesProgress,
    CandidateCompleted,
    AuctionFinalized,
    AgentLeft,
    DistributionsCommitted,
    StreamReset,
    StreamError,
    AuctionSettled,
)

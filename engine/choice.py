"""The choice among the candidates of one auction, as plain numbers on the host, with amounts in micros."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.finalizer import choice_uniform, choose, finalize
from tokenauction.engine.spec import AuctionSpec

Row = tuple[float, ...]  # one number a candidate


@dataclass(frozen=True)
class Choice:
    """What the softmax auction decided; lists of agents in the spec's order."""

    chosen: int
    probabilities: Row
    log_reference: Row
    rewards_nats: tuple[Row, ...]
    owed: tuple[float, ...]  # before a budget clips it
    utilities: tuple[float, ...]
    expected_rewards: tuple[float, ...]
    probabilities_without: tuple[Row, ...]
    chosen_without: tuple[int, ...]  # what the same uniform chooses without the agent
    effective_sample_size: float
    log_mean_weight: float
    divergence: float  # from the reference, in nats


def decide(
    spec: AuctionSpec,
    seed: int,
    log_reference: Sequence[float],
    log_proposal: Sequence[float],
    nats: Float64[Tensor, "agents candidates"],
) -> Choice:
    """Choose by the softmax auction with every agent's value per nat, in micros, and the spec's τ.

    Who values nothing has no reward at all. Raises InvalidInput or NoCommonSupport, as `finalizer.finalize`.
    """
    if spec.finalizer is None:
        raise InvalidSpec("a token auction has no candidates to choose among")
    values = torch.tensor([[float(agent.value_per_nat_micros)] for agent in spec.agents], dtype=torch.float64)
    rewards = torch.where(values > 0, values * nats, 0.0)
    weights = torch.tensor([log_reference, log_proposal], dtype=torch.float64)
    result = finalize(rewards, weights[0] - weights[1], float(spec.finalizer.tau_micros))
    u = torch.tensor(choice_uniform(seed), dtype=torch.float64)
    return Choice(
        chosen=int(choose(result.probabilities, u)),
        probabilities=tuple(result.probabilities.tolist()),
        log_reference=tuple(log_reference),
        rewards_nats=tuple(map(tuple, nats.tolist())),
        owed=tuple(result.payment.tolist()),
        utilities=tuple(result.utility.tolist()),
        expected_rewards=tuple(result.expected_reward.tolist()),
        probabilities_without=tuple(map(tuple, result.probabilities_without.tolist())),
        chosen_without=tuple(choose(result.probabilities_without, u.expand(len(spec.agents))).tolist()),
        effective_sample_size=float(result.effective_sample_size),
        log_mean_weight=float(result.log_mean_weight),
        divergence=float(result.divergence),
    )

"""What the softmax auction makes of one query's candidates: many small sets of them, each an auction of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.clients.cli.reproduction.drawn import Candidates, DrawnQuery
from tokenauction.engine.finalizer import Finalization, finalize

TAU: Final = 1.0  # the paper's
MAX_CANDIDATES: Final = 20  # the paper's largest M


@dataclass(frozen=True, eq=False)
class Levels:
    """What a text without advertising is worth to each advertiser: what reward gains are counted from, in nats."""

    brand_free: Float64[Tensor, " agents"] | None  # mean over the reference's candidates that name no brand; None: none
    exact: Float64[Tensor, " agents"]  # mean over all of them, each weighed by π_ref/π_gen

    @classmethod
    def of(cls, reference: Candidates) -> Levels:
        """The levels of one query from the candidates of its reference."""
        is_free = ~reference.names.any(0)
        brand_free = reference.rewards[:, is_free].mean(1) if bool(is_free.any()) else None
        return cls(brand_free, reference.rewards @ torch.softmax(reference.log_weight, 0))


@dataclass(frozen=True, eq=False)
class Outcomes:
    """The auctions over the disjoint sets of `num_candidates` that one proposal's candidates make; all in nats."""

    final: Finalization
    log_quality: Float64[Tensor, "sets candidates"]  # Σ_i r_i/τ + ln π_ref: ln of the optimum's law, but for ln Z
    log_reference: Float64[Tensor, "sets candidates"]
    rewards: Float64[Tensor, "sets agents candidates"]
    log_weight: Float64[Tensor, "sets candidates"]

    @classmethod
    def of(cls, candidates: Candidates, num_candidates: int) -> Outcomes:
        """Raises ValueError where there are fewer candidates than one set takes."""
        num_sets = candidates.num // num_candidates
        if num_sets == 0:
            raise ValueError(f"{candidates.num} candidates make no set of {num_candidates}")
        used = num_sets * num_candidates
        rewards = candidates.rewards[:, :used].reshape(-1, num_sets, num_candidates).transpose(0, 1).contiguous()
        log_reference = candidates.log_reference[:used].reshape(num_sets, num_candidates)
        log_weight = candidates.log_weight[:used].reshape(num_sets, num_candidates)
        quality = rewards.sum(1) / TAU + log_reference
        return cls(finalize(rewards, log_weight, TAU), quality, log_reference, rewards, log_weight)

    def _expected(self, values: Float64[Tensor, "sets candidates"]) -> Float64[Tensor, " sets"]:
        return (self.final.probabilities * values).sum(-1)

    @cached_property
    def log_probability(self) -> Float64[Tensor, " sets"]:
        """E_π[ln π*(y)] + ln Z of the text that is returned."""
        return self._expected(self.log_quality)

    @cached_property
    def log_reference_probability(self) -> Float64[Tensor, " sets"]:
        """E_π[ln π_ref(y)] of the text that is returned: what is left of what the user was to get."""
        return self._expected(self.log_reference)

    @cached_property
    def reward(self) -> Float64[Tensor, "sets agents"]:
        """E_π[r_i]."""
        return self.final.expected_reward

    @cached_property
    def reward_without(self) -> Float64[Tensor, "sets agents"]:
        """E_{π_-i}[r_i]: what advertiser i gets when it wants nothing."""
        return (self.final.probabilities_without * self.rewards).sum(-1)

    @cached_property
    def market_level(self) -> Float64[Tensor, "sets agents"]:
        """τ·LSE_j(β_-i,j): the paper's offset, which has nothing to do with advertiser i."""
        others = (self.rewards.sum(1, keepdim=True) - self.rewards) / TAU + self.log_weight.unsqueeze(1)
        return TAU * torch.logsumexp(others, -1)

    @property
    def utility(self) -> Float64[Tensor, "sets agents"]:
        """U_i, with the offset."""
        return self.final.utility

    @property
    def utility_without_offset(self) -> Float64[Tensor, "sets agents"]:
        """τ·LSE_j(r_i,j/τ + β_-i,j): what is left to the advertiser when the offset is not charged back."""
        return self.final.utility + self.market_level


def log_partition(query: DrawnQuery) -> float:
    """ln Z where it is known, else the largest estimate that a proposal's candidates give (each is low on average)."""
    if query.log_partition is not None:
        return query.log_partition
    means = []
    for candidates in query.proposals.values():
        weights = candidates.rewards.sum(0) / TAU + candidates.log_weight
        means.append(torch.logsumexp(weights, 0).item() - math.log(candidates.num))
    return max(means)

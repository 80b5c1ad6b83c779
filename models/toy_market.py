"""A toy market of which the best law of texts is known: what any proposal misses of it can be measured exactly.

The reference and every advertiser are bigram models. The reference seldom writes a brand; the advertisers write their
own, agree on everything that makes a text an advertisement, and differ a little in the rest. It must not know how
candidates are weighed or paid for: it gives the laws, the optimum and each text's log-weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from tokenauction.models.toy import ToyWorld
from tokenauction.models.toy_laws import Chain

Proposal = Literal["reference", "context_aware", "token_auction"]
PROPOSALS: Final[tuple[Proposal, ...]] = ("reference", "context_aware", "token_auction")

SYMBOLS = "abcdefghijkl"  # the first symbol is the first advertiser's brand, and so on
ADVERTISING = 1.0  # how far every advertiser is from the reference, the same way; in units of the world's own spread
TASTE = 0.2  # how far an advertiser is from the others
SHYNESS = 1.5  # nats by which whoever is no friend of a brand writes it less
GRASP = 0.75  # the share of all this that a prompt that names everybody brings over
CONFUSION = 0.3  # what such a prompt adds of its own


@dataclass(frozen=True, eq=False)
class Objective:
    """J(π) = E_π Σ_i r_i - τ·KL(π ‖ π_ref) over laws π of whole texts, r_i = τ_i·ln(π_i/π_ref) of bigram models."""

    agents: Sequence[Float64[Tensor, "states tokens"]]
    strengths: Sequence[float]  # τ_i, in nats' worth of reward
    reference: Float64[Tensor, "states tokens"]
    tau: float

    def __post_init__(self) -> None:
        if self.tau <= 0:
            raise ValueError(f"tau is {self.tau}; without a positive one the objective has no unique optimum")

    @property
    def rewards(self) -> Float64[Tensor, "states tokens"]:
        """Σ_i r_i of a single step; a text's reward is the sum over its steps."""
        pairs = zip(self.agents, self.strengths, strict=True)
        return sum((tau * (agent - self.reference) for agent, tau in pairs), torch.zeros_like(self.reference))

    def value(self, chain: Chain) -> float:
        """J of the texts of `chain`, exactly."""
        return chain.expectation(self.rewards - self.tau * (chain.log_probs - self.reference))

    def optimum(self, num_steps: int) -> tuple[Chain, float]:
        """The law of texts of at most `num_steps` tokens that maximises J, and its log-partition ln Z = max J / τ.

        π*(y) = π_ref(y)·exp(Σ_i r_i(y)/τ)/Z is again a Markov chain, though it changes with the steps that are left:
        π*_k(t | s) = exp(w(s, t) + β_{k+1}(t) - β_k(s)) with w = ln π_ref + Σ_i r_i/τ of one step and β_k(s) the log of
        the weight of all that can follow, 0 behind an end and at the cut. Derived.
        """
        weights = self.reference + self.rewards / self.tau
        end = len(weights) - 1
        following = torch.zeros(end + 1, dtype=torch.float64)
        steps = []
        for _ in range(num_steps):
            joint = weights + following
            totals = joint.logsumexp(-1)
            steps.append(joint - totals[:, None])
            log_partition = totals[end].item()
            following = totals.clone()
            following[end] = 0.0
        return Chain(torch.stack(steps[::-1])), log_partition

    def log_weights(self, proposal: Chain, texts: Int[Tensor, "texts steps"]) -> Float64[Tensor, " texts"]:
        """ln w(y) = Σ_i r_i(y)/τ + ln π_ref(y) - ln π_gen(y); the mean of w under `proposal` is Z."""
        return proposal.totals(self.reference + self.rewards / self.tau - proposal.log_probs, texts)

    def log_weight_gap(self, proposal: Chain) -> float:
        """E[ln w] - ln Z for a single candidate, exactly: -KL(proposal ‖ optimum)."""
        return self.value(proposal) / self.tau - self.optimum(len(proposal.log_probs))[1]


@dataclass(frozen=True)
class ToyMarket:
    """One query's market: the tables of the reference and of `num_agents` advertisers, all by hash of the seed.

    Advertiser i's reward is ln(π_i/π_ref)/num_agents: then the token auction's log-linear aggregate with equal, that is
    bid-independent, weights is the optimum but for what the steps to come are worth.
    """

    seed: int = 0
    num_agents: int = 2
    num_steps: int = 12
    tau: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.num_agents < len(SYMBOLS):
            raise ValueError(f"there are {self.num_agents} advertisers; a toy market has 1 to {len(SYMBOLS) - 1}")
        if self.num_steps < 1:
            raise ValueError(f"texts have {self.num_steps} steps; at least 1 is needed")

    @cached_property
    def _world(self) -> ToyWorld:
        return ToyWorld(self.seed, SYMBOLS)

    def _taste(self, whose: str) -> Float64[Tensor, "states tokens"]:
        table = self._world.table(self._world.tokenizer.encode_prompt(whose))
        return table - table.mean(-1, keepdim=True)

    def _tilted(self, tilt: Float64[Tensor, "states tokens"]) -> Float64[Tensor, "states tokens"]:
        shyness = torch.zeros(len(SYMBOLS) + 1, dtype=torch.float64)
        shyness[: self.num_agents] = SHYNESS
        return (self._taste("reference") - shyness + tilt).log_softmax(-1)

    @cached_property
    def _tilts(self) -> Float64[Tensor, "agents states tokens"]:
        brands = SHYNESS * torch.eye(len(SYMBOLS) + 1, dtype=torch.float64)[: self.num_agents, None]
        tastes = torch.stack([TASTE * self._taste(f"advertiser {i}") for i in range(self.num_agents)])
        return ADVERTISING * self._taste("advertising") + tastes + brands

    @cached_property
    def reference(self) -> Float64[Tensor, "states tokens"]:
        return self._tilted(torch.zeros_like(self._tilts[0]))

    @cached_property
    def agents(self) -> Float64[Tensor, "agents states tokens"]:
        return torch.stack([self._tilted(tilt) for tilt in self._tilts])

    @cached_property
    def objective(self) -> Objective:
        return Objective(list(self.agents), [1 / self.num_agents] * self.num_agents, self.reference, self.tau)

    @cached_property
    def optimum(self) -> tuple[Chain, float]:
        """The best law of texts and its log-partition."""
        return self.objective.optimum(self.num_steps)

    def proposal(self, name: Proposal) -> Chain:
        """What candidates are drawn from; of the token auction, its log-linear aggregate with equal weights."""
        table = {
            "reference": lambda: self.reference,
            "context_aware": lambda: self._tilted(GRASP * self._tilts.mean(0) + CONFUSION * self._taste("everyone")),
            "token_auction": lambda: self.agents.mean(0).log_softmax(-1),
        }[name]()
        return Chain.of_table(table, self.num_steps)

    def rewards(self, texts: Int[Tensor, "texts steps"]) -> Float64[Tensor, "agents texts"]:
        """r_i(y) = ln(π_i(y)/π_ref(y)) / num_agents, in nats."""
        chain = Chain.of_table(self.reference, self.num_steps)
        return torch.stack([chain.totals((agent - self.reference) / self.num_agents, texts) for agent in self.agents])

    def names_a_brand(self, texts: Int[Tensor, "texts steps"]) -> Bool[Tensor, " texts"]:
        """Whether any advertiser's brand stands in the text."""
        return (texts < self.num_agents).any(1)

"""Other ways to choose among the same candidates, so that one sees what the softmax auction gives up and what it gains.

    softmax         π, each agent pays τ·KL(π ‖ π_-i)
    vcg             j* = argmax_j Σ_i r_i(y_j); agent i pays max_j Σ_{k≠i} r_k(y_j) - Σ_{k≠i} r_k(y_j*)
    best_of_m       the same text, and nobody pays
    reference_only  softmax_j(ln w_j): what the user would have got without any advertiser, and nobody pays

VCG (Vickrey 1961, Clarke 1971, Groves 1973) is truthful on the candidates too, but looks at advertisers alone: nothing
holds its text near the reference. Amounts are in the rewards' unit. It must not know where candidates come from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.finalizer import check, finalize


@dataclass(frozen=True)
class Comparison:
    """What one mechanism does, in expectation over its own draw."""

    mechanism: str
    allocation: Float64[Tensor, " candidates"]
    rewards: Float64[Tensor, " agents"]  # E[r_i]
    payments: Float64[Tensor, " agents"]
    divergence: float  # KL from the reference reweighted over the same candidates, in nats: what the user loses

    @property
    def utilities(self) -> Float64[Tensor, " agents"]:
        """E[r_i] less the payment."""
        return self.rewards - self.payments

    @property
    def welfare(self) -> float:
        """The agents' rewards together, whoever gets the payments."""
        return float(self.rewards.sum())

    @property
    def revenue(self) -> float:
        return float(self.payments.sum())


def compare(
    rewards: Float64[Tensor, "agents candidates"], log_weight: Float64[Tensor, " candidates"], tau: float
) -> list[Comparison]:
    """Return the mechanisms of the table above, in that order; raises what `finalizer.finalize` raises."""
    check(rewards, log_weight, tau)
    result = finalize(rewards, log_weight, tau)
    reference = torch.softmax(log_weight, -1)
    nothing = torch.zeros(len(rewards), dtype=torch.float64)
    allowed = torch.where(log_weight > -torch.inf, rewards.sum(0), -torch.inf)
    best = int(allowed.argmax())  # the first of equals
    chosen = torch.nn.functional.one_hot(torch.tensor(best), len(log_weight)).double()
    others = torch.stack([torch.cat((rewards[:i], rewards[i + 1 :])).sum(0) for i in range(len(rewards))])
    most = torch.where(log_weight > -torch.inf, others, -torch.inf).amax(-1)

    def row(mechanism: str, allocation: Tensor, payments: Tensor) -> Comparison:
        expected = torch.where(allocation > 0, allocation * rewards, 0.0).sum(-1)
        terms = torch.where(allocation > 0, allocation * (allocation / reference).log(), 0.0)
        return Comparison(mechanism, allocation, expected, payments, float(terms.sum().clamp(min=0)))

    return [
        row("softmax", result.probabilities, result.payment),
        row("vcg", chosen, most - others[:, best]),
        row("best_of_m", chosen, nothing),
        row("reference_only", reference, nothing),
    ]

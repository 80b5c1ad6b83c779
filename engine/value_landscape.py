"""What an agent of a softmax auction would pay, and move, at every value per nat of its own: the same candidates.

Rewards in nats and the candidates' weights are on record, and candidates do not depend on values, so a choice with
another value is the same formula with another number: exact, not along one text but over all candidates.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.finalizer import finalize
from tokenauction.engine.landscape import Point
from tokenauction.engine.spec import AuctionSpec


def value_landscape(
    spec: AuctionSpec,
    row: int,
    nats: Float64[Tensor, "agents candidates"],
    log_weight: Float64[Tensor, " candidates"],
    values: Sequence[int],
) -> list[Point]:
    """Return payment τ·KL(π ‖ π_-i) and influence TV(π, π_-i) of the agent in `row` at each value per nat, in micros.

    Raises InvalidSpec for a token auction, and InvalidInput or NoCommonSupport as `finalizer.finalize`.
    """
    if spec.finalizer is None:
        raise InvalidSpec("a token auction has no values per nat")
    own = torch.tensor([agent.value_per_nat_micros for agent in spec.agents], dtype=torch.float64)
    table = own.repeat(len(values), 1)
    table[:, row] = torch.tensor(values, dtype=torch.float64)
    rewards = torch.where(table.unsqueeze(-1) > 0, table.unsqueeze(-1) * nats, 0.0)
    result = finalize(rewards, log_weight.expand(len(values), -1), float(spec.finalizer.tau_micros))
    payment = result.payment[:, row]
    moved = (result.probabilities - result.probabilities_without[:, row]).abs().sum(-1) / 2
    moved = torch.where(payment > 0, moved, 0.0)  # who pays nothing moved nothing: what is left is rounding
    return list(map(Point, values, payment.tolist(), moved.tolist()))

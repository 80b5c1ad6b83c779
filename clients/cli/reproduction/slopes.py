"""How an advertiser's gain in utility goes with its gain in reward, on instances made for it.

With the market as it is without i, reward gain = E_π[r_i] - E_{π_-i}[r_i] and utility gain = U_i - E_{π_-i}[r_i]; the
one is τ·(KL(π ‖ π_-i) + KL(π_-i ‖ π)), the other its second part. So small rewards give half (both parts are equal to
second order) and a large one against a flat market gives all but a constant (the payment is at most τ·ln M there).
The paper reports 0.52 and 1.00; why is derived, see docs/mechanism.md. It knows nothing of texts or models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor

from tokenauction.clients.cli.reproduction.statistics import Line, fit
from tokenauction.engine.finalizer import finalize

NUM_INSTANCES: Final = 2000
NUM_CANDIDATES: Final = 20
SMALL: Final = 0.05  # nats, the spread of a small reward over the candidates
LARGE: Final = (6.0, 24.0)  # nats, the range of a large one
LEVELS: Final = 3.0  # nats, the spread of ln π_ref - ln π_gen between markets


@dataclass(frozen=True)
class Slopes:
    """Utility gain against reward gain; in the last two, utility with and without the offset, over unlike markets."""

    small: Line
    large: Line
    with_offset: Line
    without_offset: Line


def slopes(seed: int = 0) -> Slopes:
    """Fit all four on instances drawn by `seed`."""
    draw = np.random.default_rng([seed, 31])
    noise = draw.standard_normal((4, NUM_INSTANCES, NUM_CANDIDATES))
    small = SMALL * draw.uniform(0, 2, (NUM_INSTANCES, 1)) * noise[0]
    large = np.zeros((NUM_INSTANCES, NUM_CANDIDATES))
    large[:, 0] = draw.uniform(*LARGE, NUM_INSTANCES)
    flat = np.zeros_like(large)
    levels = LEVELS * draw.standard_normal((NUM_INSTANCES, 1))
    mixed = draw.uniform(0, 2, (NUM_INSTANCES, 1)) * noise[2]
    return Slopes(
        _line(small, noise[1], flat),
        _line(large, flat, flat),
        _line(mixed, noise[3], flat + levels),
        _line(mixed, noise[3], flat + levels, has_offset=False),
    )


def _line(own: ndarray, others: ndarray, log_weight: ndarray, *, has_offset: bool = True) -> Line:
    rewards, weights = (torch.from_numpy(array) for array in (np.stack([own, others], 1), log_weight))
    reward_gain, utility_gain = gains(rewards, weights)
    if not has_offset:
        utility_gain = utility_gain + torch.logsumexp(rewards[:, 1] + weights, -1)
    return fit(reward_gain.numpy(), utility_gain.numpy())


def gains(
    rewards: Float64[Tensor, "instances agents candidates"], log_weight: Float64[Tensor, "instances candidates"]
) -> tuple[Float64[Tensor, " instances"], Float64[Tensor, " instances"]]:
    """Reward gain and utility gain of the first agent of every instance, in nats; τ = 1."""
    final = finalize(rewards, log_weight)
    without = (final.probabilities_without[:, 0] * rewards[:, 0]).sum(-1)
    return final.expected_reward[:, 0] - without, final.utility[:, 0] - without

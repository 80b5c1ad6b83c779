"""How fast each proposal comes up to the optimum in the toy world, where ln Z is known: E[ln mean weight] - ln Z.

What is missed by one candidate is exactly KL(proposal ‖ optimum); the more there are, the less it is, down to nothing.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import torch

from tokenauction.clients.cli.reproduction.statistics import Estimate, mean
from tokenauction.models.toy_market import PROPOSALS, Proposal, ToyMarket

NUM_MARKETS: Final = 20
NUM_DRAWN: Final = 40_000  # candidates of each proposal and market
NUMBERS: Final = (1, 2, 4, 8, 12, 20, 50, 100, 1000, 4000)


def convergence(seed: int, num_markets: int = NUM_MARKETS) -> dict[Proposal, dict[int, Estimate]]:
    """The gap of every proposal by number of candidates, with intervals over markets."""
    gaps: dict[Proposal, dict[int, list[float]]] = {name: {number: [] for number in NUMBERS} for name in PROPOSALS}
    for number_of_market in range(num_markets):
        market = ToyMarket(seed * 1_000_003 + number_of_market)
        for name in PROPOSALS:
            for number, gap in _gaps(market, name).items():
                gaps[name][number].append(gap)
    return {name: {number: mean(values) for number, values in found.items()} for name, found in gaps.items()}


def _gaps(market: ToyMarket, name: Proposal) -> dict[int, float]:
    chain = market.proposal(name)
    draw = np.random.default_rng([market.seed, 7, PROPOSALS.index(name)])
    texts = chain.sample(torch.from_numpy(draw.random((NUM_DRAWN, market.num_steps))))
    weights = market.objective.log_weights(chain, texts)
    gaps = {1: market.objective.log_weight_gap(chain)}
    for number in NUMBERS[1:]:
        sets = weights[: NUM_DRAWN // number * number].reshape(-1, number)
        gaps[number] = sets.logsumexp(1).mean().item() - math.log(number) - market.optimum[1]
    return gaps

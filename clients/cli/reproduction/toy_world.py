"""The toy world as a source of candidates: fifty markets whose best law of texts is known exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from tokenauction.clients.cli.reproduction.drawn import Candidates, DrawnQuery
from tokenauction.models.toy_market import PROPOSALS, SYMBOLS, Proposal, ToyMarket

NUM_TEXTS: Final = 3  # that are kept of each proposal


@dataclass(frozen=True)
class ToyWorldSource:
    """Markets by hash of (seed, number); `num_candidates` are drawn from each proposal of each."""

    num_queries: int
    num_candidates: int
    seed: int = 0
    name: str = "toy"

    @property
    def query_ids(self) -> list[str]:
        return [f"market-{number:02}" for number in range(self.num_queries)]

    def draw(self, query_id: str) -> DrawnQuery:
        """The candidates of one market; the same in every run."""
        number = self.query_ids.index(query_id)
        market = ToyMarket(self.seed * 1_000_003 + number)
        drawn: dict[str, Candidates] = {name: self._candidates(market, name) for name in PROPOSALS}
        optimum, log_partition = market.optimum
        return DrawnQuery(query_id, "cooperating", drawn, log_partition, optimum.expectation(optimum.log_probs))

    def _candidates(self, market: ToyMarket, name: Proposal) -> Candidates:
        chain = market.proposal(name)
        generator = np.random.default_rng([market.seed, PROPOSALS.index(name)])
        texts = chain.sample(torch.from_numpy(generator.random((self.num_candidates, market.num_steps))))
        weights = market.objective.log_weights(chain, texts)
        rewards = market.rewards(texts)
        log_proposal = chain.log_prob(texts)
        names = torch.stack([(texts == agent).any(1) for agent in range(market.num_agents)])
        spelled = ["".join(SYMBOLS[t] for t in row if t < len(SYMBOLS)) for row in texts[:NUM_TEXTS].tolist()]
        return Candidates(weights - rewards.sum(0) + log_proposal, log_proposal, rewards, names, tuple(spelled))

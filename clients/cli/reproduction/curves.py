"""How everything goes with the number of candidates: means over queries, with their intervals.

It must not know how anything is drawn or shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tokenauction.clients.cli.reproduction.drawn import DrawnQuery
from tokenauction.clients.cli.reproduction.outcomes import Levels, Outcomes, log_partition
from tokenauction.clients.cli.reproduction.statistics import Estimate, mean

NUMBERS: Final = (1, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20)  # of candidates

# Figures of one query at one number of candidates, each a mean over its sets; in nats but for the last.
METRICS: Final[dict[str, str]] = {
    "log_probability": "ln π*(y) of the text that is returned",
    "off_optimum": "how far that is from the optimum's own average, where it is known",
    "reward_gain": "Σ E[r] beyond a brand-free text of the reference (the paper's estimate)",
    "reward_gain_exact": "Σ E[r] beyond the reference, reweighted exactly",
    "revenue": "what all advertisers pay",
    "utility": "what all advertisers gain beyond the reference, after paying",
    "log_reference": "ln π_ref(y) of the text that is returned",
    "divergence": "KL from the reference's choice among the same candidates",
    "weight_gap": "E[ln mean weight] - ln Z",
    "effective_sample_size": "1/Σ π²",
}

PerQuery = Mapping[str, float]


@dataclass(frozen=True)
class Curves:
    """figures[proposal][number of candidates][metric][query]; NaN where a query has no such figure."""

    query_ids: tuple[str, ...]
    figures: Mapping[str, Mapping[int, Mapping[str, Sequence[float]]]]

    @classmethod
    def of(cls, queries: Sequence[DrawnQuery]) -> Curves:
        """The curves of all queries, which must have the same proposals."""
        prepared = [(query, Levels.of(query.proposals["reference"])) for query in queries]
        figures: dict[str, dict[int, dict[str, list[float]]]] = {}
        for proposal in queries[0].proposals:
            num_drawn = min(query.proposals[proposal].num for query in queries)
            figures[proposal] = {}
            for number in (number for number in NUMBERS if number <= num_drawn):
                rows = [figures_of(query, proposal, number, levels) for query, levels in prepared]
                figures[proposal][number] = {metric: [row[metric] for row in rows] for metric in METRICS}
        return cls(tuple(query.query_id for query in queries), figures)

    def has(self, metric: str) -> bool:
        """Whether any query has this figure."""
        return any(_there(values[metric]) for numbers in self.figures.values() for values in numbers.values())

    def estimate(self, proposal: str, number: int, metric: str) -> Estimate:
        """The mean over the queries that have the figure."""
        return mean(_there(self.figures[proposal][number][metric]))

    def difference(self, metric: str, more: tuple[str, int], less: tuple[str, int]) -> Estimate:
        """The mean over queries of one (proposal, number)'s figure minus the other's, query by query."""
        pairs = zip(*(self.figures[name][number][metric] for name, number in (more, less)), strict=True)
        return mean(_there([high - low for high, low in pairs]))


def figures_of(query: DrawnQuery, proposal: str, number: int, levels: Levels) -> PerQuery:
    """All METRICS of one query at one number of candidates."""
    outcomes = Outcomes.of(query.proposals[proposal], number)
    partition = log_partition(query)
    log_probability = outcomes.log_probability.mean().item() - partition
    optimum = query.optimum_log_probability
    reward = outcomes.reward.mean(0)
    brand_free = levels.brand_free
    return {
        "log_probability": log_probability,
        "off_optimum": float("nan") if optimum is None else abs(log_probability - optimum),
        "reward_gain": float("nan") if brand_free is None else (reward - brand_free).sum().item(),
        "reward_gain_exact": (reward - levels.exact).sum().item(),
        "revenue": outcomes.final.payment.sum(-1).mean().item(),
        "utility": (outcomes.utility.mean(0) - levels.exact).sum().item(),
        "log_reference": outcomes.log_reference_probability.mean().item(),
        "divergence": outcomes.final.divergence.mean().item(),
        "weight_gap": outcomes.final.log_mean_weight.mean().item() - partition,
        "effective_sample_size": outcomes.final.effective_sample_size.mean().item(),
    }


def _there(values: Sequence[float]) -> list[float]:
    return [value for value in values if value == value]  # NaN is the only number that is not itself

"""A run in numbers: everything that figures and report show, as one mapping of plain values; it knows no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from tokenauction.clients.cli.reproduction.advertisers import Advertisers
from tokenauction.clients.cli.reproduction.convergence import convergence
from tokenauction.clients.cli.reproduction.curves import METRICS, Curves
from tokenauction.clients.cli.reproduction.drawn import DrawnQuery
from tokenauction.clients.cli.reproduction.slopes import slopes
from tokenauction.clients.cli.reproduction.statistics import Estimate
from tokenauction.clients.cli.reproduction.token_sweep import shares
from tokenauction.clients.cli.sweep import RULES
from tokenauction.engine.errors import InvalidInput

RELATIONS: Final = ("cooperating", "competing")
MAIN: Final = "context_aware"  # the paper's main version of its mechanism
NUM_EXAMPLES: Final = 3  # queries of which texts are shown
FEW: Final = 4  # context-aware candidates that are to beat all of the baseline's


def world_results(queries: Sequence[DrawnQuery]) -> dict[str, Any]:
    """What the candidates of all queries of one world show; raises InvalidInput for fewer than two queries."""
    if len(queries) < 2:
        raise InvalidInput("a mean over queries needs at least two of them")
    curves = Curves.of(queries)
    most = max(curves.figures[MAIN])
    few = max(number for number in curves.figures[MAIN] if number <= FEW)
    advertisers = Advertisers.of(queries, MAIN, most)
    return {
        "num_queries": len(queries),
        "num_drawn": {name: queries[0].proposals[name].num for name in queries[0].proposals},
        "num_most": most,
        "num_few": few,
        "num_without_brand_free": sum(
            not bool((~query.proposals["reference"].names.any(0)).any()) for query in queries
        ),
        "optimum_log_probability": _optimum(queries),
        "curves": {
            proposal: {metric: _curve(curves, proposal, metric) for metric in METRICS if curves.has(metric)}
            for proposal in curves.figures
        },
        "comparisons": {name: e.to_mapping() for name, e in _comparisons(curves, few, most).items()},
        "advertisers": {name: e.to_mapping() for name, e in _of_advertisers(advertisers).items()},
        "points": _points(advertisers),
        "bins": advertisers.bins(),
        "examples": [
            {"query": query.query_id, **{name: list(drawn.texts) for name, drawn in query.proposals.items()}}
            for query in queries[:: max(1, len(queries) // NUM_EXAMPLES)][:NUM_EXAMPLES]
        ],
    }


def slope_results(seed: int) -> dict[str, dict[str, float]]:
    """The slopes over instances made for them."""
    return {name: asdict(line) for name, line in vars(slopes(seed)).items()}


def sweep_results(lines: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """By relation and rule, the share of every outcome at every weight; relations without queries are left out."""
    return {
        relation: {
            rule: [
                {"weight": weight, **{outcome: estimate.to_mapping() for outcome, estimate in found.items()}}
                for weight, found in shares(lines, rule, relation).items()
            ]
            for rule in RULES
        }
        for relation in RELATIONS
        if any(line.get("relation") == relation for line in lines)
    }


def _optimum(queries: Sequence[DrawnQuery]) -> float | None:
    """E_π*[ln π*(y)], mean over queries, where it is known of all."""
    known = [query.optimum_log_probability for query in queries if query.optimum_log_probability is not None]
    return sum(known) / len(known) if len(known) == len(queries) else None


def convergence_results(seed: int, num_markets: int) -> dict[str, list[dict[str, float]]]:
    """The toy world's gaps to ln Z, by proposal and number of candidates."""
    return {
        name: [{"num_candidates": number, **estimate.to_mapping()} for number, estimate in found.items()]
        for name, found in convergence(seed, num_markets).items()
    }


def _curve(curves: Curves, proposal: str, metric: str) -> list[dict[str, float]]:
    return [
        {"num_candidates": number, **curves.estimate(proposal, number, metric).to_mapping()}
        for number in curves.figures[proposal]
    ]


def _comparisons(curves: Curves, few: int, most: int) -> dict[str, Estimate]:
    """Differences query by query, the second proposal or number subtracted from the first."""
    beats = {
        f"{metric}: few {MAIN} over most reference": curves.difference(metric, (MAIN, few), ("reference", most))
        for metric in ("log_probability", "reward_gain", "reward_gain_exact", "weight_gap")
        if curves.has(metric)
    }
    if curves.has("off_optimum"):
        nearer = curves.difference("off_optimum", ("reference", most), (MAIN, few))
        beats[f"off_optimum: most reference over few {MAIN}"] = nearer
    rises = {
        f"{metric}: {more} over {less} of {proposal}": curves.difference(metric, (proposal, high), (proposal, low))
        for proposal in curves.figures
        for metric in ("log_probability", "reward_gain_exact", "revenue", "utility")
        for more, high, less, low in (("most", most, "1", 1), ("most", most, "few", few))
    }
    ours = {
        f"weight_gap: {name} token_auction over most {MAIN}": curves.difference(
            "weight_gap", ("token_auction", number), (MAIN, most)
        )
        for name, number in (("1", 1), ("few", few))
    }
    return {**beats, **rises, **ours}


def _of_advertisers(advertisers: Advertisers) -> dict[str, Estimate]:
    return {
        "pearson": advertisers.with_offset("pearson"),
        "slope": advertisers.with_offset("slope"),
        "r_squared": advertisers.with_offset("r_squared"),
        "slope_without_offset": advertisers.without_offset("slope"),
        "r_squared_without_offset": advertisers.without_offset("r_squared"),
        "pearson_without_offset": advertisers.without_offset("pearson"),
        "own_slope_small": advertisers.own("slope", is_large=False),
        "own_slope_large": advertisers.own("slope", is_large=True),
        "own_slope": advertisers.own("slope"),
    }


def _points(advertisers: Advertisers) -> dict[str, list[float]]:
    kinds = ("reward_gain", "utility", "utility_without_offset")
    return {kind: [round(value, 4) for row in getattr(advertisers, kind) for value in row] for kind in kinds}

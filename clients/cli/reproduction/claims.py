"""What the two papers claim, what was found, and whether it holds: one row a claim, from a run's results alone.

Quoted is only what could be read: abstracts, settings, and the numbers named here. Where a figure's own numbers were
not at hand the row says so. A claim holds in a world where its 95 % interval lies on the claimed side.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from tokenauction.clients.cli.reproduction.statistics import Estimate

Results = Mapping[str, Any]
Finding = tuple[str, bool | None]  # in words, and whether the claim holds; None where that cannot be said

NOT_AT_HAND: Final = "number not at hand"
MIN_PEARSON: Final = 0.75
MARGIN: Final = 0.05  # nats
HALF: Final = (0.45, 0.55)
ONE: Final = (0.95, 1.05)


@dataclass(frozen=True)
class Row:
    """One claim beside what each world shows of it."""

    figure: str
    claim: str
    paper: str  # its number in the paper, or that it was not at hand
    found: Mapping[str, Finding]  # by world

    @property
    def verdict(self) -> str:
        """Yes, no, or where it holds."""
        holds = {world: finding[1] for world, finding in self.found.items() if finding[1] is not None}
        if not holds:
            return "–"
        if len(set(holds.values())) == 1:
            return "yes" if all(holds.values()) else "no"
        return "in the " + ", ".join(world for world, does in holds.items() if does) + " only"


def rows(results: Results) -> list[Row]:
    """Every claim that the results have something to say of."""
    made = [*_slope_rows(results), *_world_rows(results), *_convergence_rows(results), *_sweep_rows(results)]
    return [row for row in made if row.found]


def _estimate(fields: Mapping[str, float]) -> Estimate:
    return Estimate(fields["value"], fields["low"], fields["high"])


def _positive(fields: Mapping[str, float]) -> Finding:
    estimate = _estimate(fields)
    return f"{estimate.value:+.3g} [{estimate.low:.3g}, {estimate.high:.3g}]", estimate.is_positive


def _slope_rows(results: Results) -> Iterator[Row]:
    found = results.get("slopes")
    if not found:
        return

    def slope(name: str, within: tuple[float, float]) -> Finding:
        value = found[name]["slope"]
        return f"{value:.3f}", within[0] <= value <= within[1]

    yield Row(
        "3, slopes", "Small rewards: utility gains half of what reward gains", "0.52", {"made": slope("small", HALF)}
    )
    yield Row("3, slopes", "Large rewards, flat market: all of it", "1.00", {"made": slope("large", ONE)})
    with_offset, without = (found[name]["r_squared"] for name in ("with_offset", "without_offset"))
    text = f"R² {with_offset:.2f} with, {without:.2f} without"
    yield Row(
        "3a, 3b",
        "Only the offset lets utility follow reward where market levels differ",
        NOT_AT_HAND,
        {"made": (text, with_offset > 0.9 and without < 0.5)},
    )


def _world_rows(results: Results) -> Iterator[Row]:
    worlds: Mapping[str, Results] = results["worlds"]

    def over(name: str) -> dict[str, Finding]:
        return {
            world: _positive(value["comparisons"][name])
            for world, value in worlds.items()
            if name in value["comparisons"]
        }

    few = "few context_aware over most reference"
    least, most = next(((world["num_few"], world["num_most"]) for world in worlds.values()), (0, 0))
    for figure, metric, what in (
        ("1a", "log_probability", "log-probability of the text under the optimum"),
        ("1b", "reward_gain", "reward gain (brand-free estimate)"),
        ("1b", "reward_gain_exact", "reward gain (exactly reweighted)"),
    ):
        claim = f"{least} context-aware candidates beat {most} of the baseline: {what}"
        yield Row(figure, claim, NOT_AT_HAND, over(f"{metric}: {few}"))
    claim = f"… and come nearer to the optimum's own log-probability than {most} of the baseline"
    yield Row("1a", claim, NOT_AT_HAND, over("off_optimum: most reference over few context_aware"))
    for figure, metric in (("2a", "revenue"), ("2b", "utility")):
        for proposal, name in (("context_aware", "context-aware"), ("reference", "baseline")):
            found = {world: _rises(value, metric, proposal) for world, value in worlds.items()}
            yield Row(figure, f"{metric} rises with M ({name})", NOT_AT_HAND, found)
    for number, name in (("1", "1"), (str(least), "few")):
        claim = f"E ln mean weight: {number} of the token auction within {MARGIN} of {most} context-aware ones, or more"
        yield Row(
            "ours",
            claim,
            "not in the papers",
            _within(worlds, f"weight_gap: {name} token_auction over most context_aware"),
        )
    yield Row("3b", "Utility correlates with reward gain (Pearson)", f"> {MIN_PEARSON}", _each(worlds, _pearson))
    yield Row(
        "3a, 3b",
        "R² and slope of utility on reward gain, with and without the offset",
        NOT_AT_HAND,
        _each(worlds, _offset),
    )
    yield Row(
        "4",
        "Slope of gains beyond the market without i, smaller and larger half",
        "0.52 to 1.00",
        _each(worlds, _halves),
    )


def _rises(world: Results, metric: str, proposal: str) -> Finding:
    """Up over the whole range, and not surely down over its later part."""
    whole, later = (
        _estimate(world["comparisons"][f"{metric}: most over {less} of {proposal}"]) for less in ("1", "few")
    )
    text = f"{whole.value:+.3g} [{whole.low:.3g}, {whole.high:.3g}], from M = {world['num_few']} on {later.value:+.2g}"
    return f"{text} [{later.low:.2g}, {later.high:.2g}]", whole.is_positive and later.high > 0


def _within(worlds: Mapping[str, Results], name: str) -> dict[str, Finding]:
    """Whether a difference is surely not below zero by more than MARGIN."""
    found = {world: value["comparisons"].get(name) for world, value in worlds.items()}
    return {world: (_positive(fields)[0], fields["low"] > -MARGIN) for world, fields in found.items() if fields}


def _each(worlds: Mapping[str, Results], find: Callable[[Results], Finding]) -> dict[str, Finding]:
    return {world: find(value["advertisers"]) for world, value in worlds.items()}


def _pearson(found: Results) -> Finding:
    estimate = _estimate(found["pearson"])
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}]", estimate.value > MIN_PEARSON


def _offset(found: Results) -> Finding:
    r_squared, without = found["r_squared"]["value"], found["r_squared_without_offset"]["value"]
    slope, slope_without = found["slope"]["value"], found["slope_without_offset"]["value"]
    return (
        f"R² {r_squared:.2f} (slope {slope:.2f}) with, {without:.2f} ({slope_without:.2f}) without",
        r_squared > without,
    )


def _halves(found: Results) -> Finding:
    small, large = _estimate(found["own_slope_small"]), _estimate(found["own_slope_large"])
    texts = (f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]" for e in (small, large))
    return " and ".join(texts), None


def _convergence_rows(results: Results) -> Iterator[Row]:
    found = results.get("convergence")
    if not found:
        return
    gaps = {name: {int(p["num_candidates"]): p["value"] for p in points} for name, points in found.items()}
    context, reference, token = (gaps[name] for name in ("context_aware", "reference", "token_auction"))
    text = f"{context[4]:.3f} against {reference[20]:.3f}"
    yield Row(
        "1a",
        "Gap to ln Z: 4 context-aware less than 20 of the baseline",
        NOT_AT_HAND,
        {"toy": (text, context[4] > reference[20])},
    )
    text = f"{token[1]:.3f} against {context[20]:.3f}"
    claim = f"Gap to ln Z: 1 of the token auction within {MARGIN} of 20 context-aware ones, or less"
    yield Row("ours", claim, "not in the papers", {"toy": (text, token[1] > context[20] - MARGIN)})
    most = max(context)
    text = ", ".join(f"{values[most]:.3f}" for values in (reference, context, token)) + f" at M = {most}"
    yield Row(
        "1a",
        "Every proposal's gap goes to zero",
        "shown in the paper for M → ∞",
        {"toy": (text, all(abs(v[most]) < 0.1 for v in gaps.values()))},
    )


def _sweep_rows(results: Results) -> Iterator[Row]:
    for relation, rules in (results.get("sweep") or {}).items():
        for rule, found in rules.items():
            low, high = found[0], found[-1]
            ends = (high["first_only"]["value"], low["second_only"]["value"])
            both = max(row["both"]["value"] for row in found)
            text = f"{ends[0]:.0%} and {ends[1]:.0%} at the ends, both in up to {both:.0%}"
            claim = f"Weight moves the text from one brand to the other ({relation}, {rule})"
            yield Row("[TA] λ", claim, "shown by examples", {"model": (text, _is_monotone(found))})


def _is_monotone(found: list[Results]) -> bool:
    """Whether the first brand alone never falls, and the second alone never rises, beyond what the intervals allow."""
    pairs = list(itertools.pairwise(found))
    rises = all(low["first_only"]["low"] <= high["first_only"]["high"] for low, high in pairs)
    return rises and all(high["second_only"]["low"] <= low["second_only"]["high"] for low, high in pairs)

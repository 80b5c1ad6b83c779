"""Claims hold or do not by their intervals alone; what is not there to be judged is left out."""

from __future__ import annotations

import itertools
from typing import Any

from tokenauction.clients.cli.reproduction.claims import Row, rows
from tokenauction.clients.cli.reproduction.report import markdown

SLOPES = {
    name: {"slope": slope, "intercept": 0.0, "r_squared": r_squared, "pearson": 1.0}
    for name, slope, r_squared in (
        ("small", 0.5, 1.0), ("large", 0.99, 1.0), ("with_offset", 0.5, 0.95), ("without_offset", 0.5, 0.05),
    )
}  # fmt: skip


def world(low: float, high: float) -> dict[str, Any]:
    estimate = {"value": (low + high) / 2, "low": low, "high": high}
    names = ["log_probability", "reward_gain", "reward_gain_exact"]
    comparisons = {f"{name}: few context_aware over most reference": estimate for name in names}
    for name, proposal in itertools.product(("revenue", "utility"), ("context_aware", "reference")):
        comparisons |= {f"{name}: most over {less} of {proposal}": estimate for less in ("1", "few")}
    of = (
        "pearson",
        "slope",
        "r_squared",
        "slope_without_offset",
        "r_squared_without_offset",
        "own_slope_small",
        "own_slope_large",
    )
    return {
        "num_queries": 2, "num_few": 4, "num_most": 20, "curves": {}, "comparisons": comparisons,
        "advertisers": {name: estimate for name in of},
    }  # fmt: skip


def test_row_holds_where_all_its_worlds_do() -> None:
    def verdict(**found: bool | None) -> str:
        return Row("1", "claim", "paper", {name: ("text", holds) for name, holds in found.items()}).verdict

    assert verdict(toy=True, model=True) == "yes"
    assert verdict(toy=False) == "no"
    assert verdict(toy=False, model=True) == "in the model only"
    assert verdict(toy=None) == "–"
    assert verdict(toy=None, model=False) == "no"


def test_claims_of_slopes_need_their_numbers() -> None:
    found = rows({"worlds": {}, "slopes": SLOPES})
    assert [(row.paper, row.verdict) for row in found][:2] == [("0.52", "yes"), ("1.00", "yes")]
    assert found[2].verdict == "yes"
    off = {**SLOPES, "small": {**SLOPES["small"], "slope": 0.6}, "without_offset": SLOPES["with_offset"]}
    assert [row.verdict for row in rows({"worlds": {}, "slopes": off})] == ["no", "yes", "no"]


def test_claims_hold_where_the_interval_lies_on_their_side() -> None:
    found = {row.claim: row for row in rows({"worlds": {"toy": world(-1, 2), "model": world(0.8, 2)}})}
    beats = next(row for claim, row in found.items() if "log-probability of the text" in claim)
    assert beats.claim.startswith("4 context-aware candidates beat 20")
    assert beats.verdict == "in the model only"
    assert found["Utility correlates with reward gain (Pearson)"].found["model"][1]
    assert not found["Utility correlates with reward gain (Pearson)"].found["toy"][1]
    assert found["revenue rises with M (baseline)"].verdict == "in the model only"


def test_what_rises_and_then_surely_falls_does_not_rise() -> None:
    fallen = world(1, 2)
    fallen["comparisons"]["revenue: most over few of reference"] = {"value": -1.0, "low": -2.0, "high": -0.5}
    found = {row.claim: row.verdict for row in rows({"worlds": {"model": fallen}})}
    assert found["revenue rises with M (baseline)"] == "no"
    assert found["revenue rises with M (context-aware)"] == "yes"


def test_sweep_claims_hold_unless_a_share_surely_goes_the_wrong_way() -> None:
    def share(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 0.05, "high": value + 0.05}

    def sweep(*firsts: float) -> dict[str, Any]:
        found = [
            {"weight": i, "first_only": share(x), "both": share(0), "second_only": share(1 - x), "none": share(0)}
            for i, x in enumerate(firsts)
        ]
        return {"worlds": {}, "sweep": {"competing": {"linear": found}}}

    assert rows(sweep(0.0, 0.4, 0.35, 1.0))[0].verdict == "yes"
    assert rows(sweep(0.0, 0.8, 0.35, 1.0))[0].verdict == "no"


def test_report_is_a_table_of_markdown() -> None:
    text = markdown({"worlds": {"toy": world(1, 2)}, "slopes": SLOPES})
    lines = text.splitlines()
    assert lines[0] == "| figure | claim | paper | found | holds |"
    assert all(line.count("|") == 6 for line in lines[: lines.index("")])
    assert "**Table 1, toy" in text

"""The guarantees table: every legal combination, every refusal, and what a receipt says."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest

from tokenauction.engine.errors import InvalidSpec, UnsafeCombination
from tokenauction.engine.guarantees import LIMITS, TABLE, Pricing, Rule, Sampler, guarantee

EVERYTHING = list(product(get_args(Rule), get_args(Sampler), get_args(Pricing)))
LISTED = {(row.rule, row.sampler, row.pricing): row for row in TABLE}


@pytest.mark.parametrize(("rule", "sampler", "pricing"), EVERYTHING)
def test_guarantee_is_the_table_s_row_or_a_refusal(rule: Rule, sampler: Sampler, pricing: Pricing) -> None:
    if (rule, sampler, pricing) in LISTED:
        row = guarantee(rule, sampler, pricing)
        assert row == guarantee(rule, sampler, pricing, allow_unsafe=True) == LISTED[rule, sampler, pricing]
        assert row.safe
    else:
        with pytest.raises(UnsafeCombination, match=f"linear/coupled/{pricing}"):
            guarantee(rule, sampler, pricing)


def test_table_has_no_row_twice_and_lacks_log_linear_races_alone() -> None:
    assert len(LISTED) == len(TABLE) == 15
    assert {name for name in EVERYTHING if name not in LISTED} == {
        ("log_linear", "race", pricing) for pricing in get_args(Pricing)
    }


def test_only_the_linear_rule_is_monotone_under_robust_preferences() -> None:
    assert all(row.monotone_robust == (row.rule == "linear") for row in TABLE)


def test_only_kl_clarke_under_log_linear_can_exceed_the_bid() -> None:
    exceeding = {row for row in TABLE if not row.payment_at_most_bid}
    assert exceeding == {guarantee("log_linear", "coupled", "kl_clarke")}


def test_baselines_promise_no_truthfulness() -> None:
    assert all(bool(row.truthful) == (row.pricing not in ("first_price", "free")) for row in TABLE)


@pytest.mark.parametrize("pricing", ["expected", "kl_clarke", "first_price", "free"])
def test_unsafe_combination_is_marked_when_the_caller_insists(pricing: Pricing) -> None:
    row = guarantee("log_linear", "race", pricing, allow_unsafe=True)
    assert not row.safe and not row.monotone_robust and not row.truthful
    assert row.summary == f"log_linear/race/{pricing}: UNSAFE, no guarantee"


def test_critical_bid_that_does_not_exist_is_refused_even_when_the_caller_insists() -> None:
    with pytest.raises(UnsafeCombination, match="no single critical bid"):
        guarantee("log_linear", "race", "critical_bid", allow_unsafe=True)


@pytest.mark.parametrize(
    "names", [("median", "coupled", "free"), ("linear", "greedy", "free"), ("linear", "coupled", "second_price")]
)
def test_unknown_name_is_refused_with_the_known_ones(names: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidSpec, match="is unknown: use one of"):
        guarantee(*names)  # type: ignore[arg-type]


def test_summary_is_one_line_that_names_what_holds() -> None:
    assert guarantee("linear", "coupled", "critical_bid").summary == (
        "linear/coupled/critical_bid: monotone under robust preferences; truthful for value -v·TV, in expectation over "
        "the draw; payment never above the bid"
    )
    assert guarantee("log_linear", "coupled", "kl_clarke").summary.endswith("payment can exceed the bid")
    assert "no incentive guarantee" in guarantee("linear", "race", "free").summary
    assert all("\n" not in row.summary for row in TABLE)


def test_limits_say_what_no_row_promises() -> None:
    text = " ".join(LIMITS)
    assert all(word in text for word in ("per token", "false-name-proof", "had i bid 0", "distribution", "budget"))

"""Bid landscapes: what other bids would have cost along a text, against payments that were charged and by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.conftest import spec_of

from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.guarantees import TABLE
from tokenauction.engine.landscape import Stake, landscape, why_not_exact
from tokenauction.engine.spec import AuctionSpec

Spec = Callable[..., AuctionSpec]
EXPECTED = spec_of(1000, 2500, 700, pricing="expected")

shares = st.floats(0, 1)
micros = st.integers(0, 10**9).map(float)  # a sum of weights
stakes = st.lists(st.builds(Stake, micros, shares, st.floats(0, 1e6), shares), min_size=1, max_size=5)


def test_landscape_gives_the_expected_payment_of_the_published_vector() -> None:
    """Vector B of docs/mechanism.md, agent 1: B_-1 = 2.5, m_1 = .57, b_1 = 1."""
    [point] = landscape(EXPECTED, [Stake(2_500_000, 0.7, 0.325e6, 0.57)], [1_000_000])
    assert point.spend_micros == pytest.approx(72330.08, abs=1e-2)
    assert point.influence == pytest.approx(0.7 / (0.7 + 0.325))


def test_landscape_at_the_own_bid_is_what_expected_payments_charged(world: Any, spec_of: Spec) -> None:
    events = world.run(spec_of(1000, 2500, 700, pricing="expected", reference_weight_micros=300, seed=5))
    for row, bid in enumerate((1000, 2500, 700)):
        own, spent = [], 0.0
        for event in events[1:-1]:
            agents = event.fields["agents"]
            others = [agent for place, agent in enumerate(agents) if place != row]
            mass = sum(agent["effective_bid_micros"] * agent["probability"] for agent in others)
            weight = sum(agent["effective_bid_micros"] for agent in others)
            own.append(Stake(weight, agents[row]["probability"], mass, agents[row]["tv"]))
            spent += agents[row]["exact_payment_micros"]
        [point] = landscape(EXPECTED, own, [bid])
        assert point.spend_micros == pytest.approx(spent, rel=1e-12)
        influence = [event.fields["agents"][row]["influence"] for event in events[1:-1]]
        assert point.influence == pytest.approx(sum(influence) / len(influence), rel=1e-12)


@given(stakes, st.lists(st.integers(0, 10**9), min_size=2, max_size=6, unique=True))
def test_who_bids_more_spends_more_and_weighs_more_and_never_above_the_bid(own: list[Stake], bids: list[int]) -> None:
    points = landscape(EXPECTED, own, sorted(bids))
    for lower, higher in itertools.pairwise(points):
        assert lower.spend_micros <= higher.spend_micros * (1 + 1e-12)
        assert lower.influence <= higher.influence * (1 + 1e-12)
    for point in points:
        assert 0 <= point.spend_micros <= 0.2163 * point.bid_micros * math.fsum(stake.tv for stake in own) + 1e-9
        assert 0 <= point.influence <= 1


def test_softmax_auction_has_no_bids_to_look_at() -> None:
    spec = replace(EXPECTED, finalizer=FinalizerSpec())
    assert "values per nat" in why_not_exact(spec)


def test_landscape_of_the_baselines_is_the_bid_and_nothing() -> None:
    own = [Stake(10, 0.5, 5, 0.1)] * 3
    assert landscape(spec_of(5, pricing="first_price"), own, [7])[0].spend_micros == 21
    assert landscape(spec_of(5, pricing="free"), own, [7])[0].spend_micros == 0


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.rule}-{row.sampler}-{row.pricing}")
def test_landscape_is_there_exactly_where_a_record_gives_it(row: Any) -> None:
    spec = spec_of(1000, 2500, rule=row.rule, sampler=row.sampler, pricing=row.pricing)
    from_tv = row.pricing == "expected" or (row.pricing == "critical_bid" and row.sampler == "coupled")
    is_there = row.pricing in ("first_price", "free") or (row.rule == "linear" and from_tv)
    assert (why_not_exact(spec) == "") == is_there
    if not is_there:
        with pytest.raises(ValueError, match="not on record"):
            landscape(spec, [], [1])

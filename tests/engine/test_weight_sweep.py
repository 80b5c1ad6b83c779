"""Sweeps: weight moves to one agent, and nothing else does."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.conftest import spec_of

from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.weight_sweep import TOTAL_MICROS, at_weight, mention_rates, names_in


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=5).filter(any), st.floats(0, 1), st.data())
def test_weight_goes_to_one_agent_and_the_rest_keep_their_proportion(
    bids: list[int], weight: float, data: st.DataObject
) -> None:
    row = data.draw(st.integers(0, len(bids) - 1))
    spec = at_weight(spec_of(*bids), "linear", weight, 3, row)
    own = spec.agents[row].bid_micros
    rest = [agent.bid_micros for other, agent in enumerate(spec.agents) if other != row]
    assert own == round(TOTAL_MICROS * weight) and (spec.seed, spec.pricing, spec.sampler) == (3, "free", "coupled")
    assert TOTAL_MICROS - len(bids) <= own + sum(rest) + spec.reference_weight_micros <= TOTAL_MICROS
    old = [bid for other, bid in enumerate(bids) if other != row]
    for share, bid in zip(rest, old, strict=True):
        if sum(old):
            assert share == pytest.approx((TOTAL_MICROS - own) * bid / sum(old), abs=1)


def test_agent_that_is_alone_shares_with_the_reference() -> None:
    spec = at_weight(spec_of(5), "log_linear", 0.25, 0)
    assert spec.agents[0].bid_micros * 3 == spec.reference_weight_micros


def test_softmax_auction_is_swept_as_the_token_auction_it_may_be_compared_with() -> None:
    spec = replace(spec_of(5, 5), finalizer=FinalizerSpec())
    assert at_weight(spec, "linear", 0.5, 0).finalizer is None


def test_truncation_that_would_veto_is_left_out_under_log_linear() -> None:
    assert at_weight(spec_of(5, 5, top_k=3), "log_linear", 0.5, 0).top_k is None
    assert at_weight(spec_of(5, 5, top_k=3), "linear", 0.5, 0).top_k == 3


def test_names_are_found_whole_and_as_spelled() -> None:
    names = ["Alpha", "Beta (x)"]
    assert names_in("Alpha and Beta (x).", names) == {"Alpha", "Beta (x)"}
    assert names_in("Alphabet, alpha, Beta x", names) == frozenset()


def test_rates_count_texts() -> None:
    texts = ["A and B", "A", "nothing", "B B"]
    mentions, alone, none = mention_rates(texts, {"a": "A", "b": "B"})
    assert (mentions, alone, none) == ({"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.25}, 0.25)

"""Landscapes of values per nat: the same formula as the auction's, at every value."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.engine.conftest import spec_of

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.money import MICROS
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.value_landscape import value_landscape

# Vector C of docs/mechanism.md: two agents, three candidates, τ = 1.
NATS = torch.tensor([[1.0, 0.0, -1.0], [0.0, 0.5, 0.0]], dtype=torch.float64)
LOG_WEIGHT = torch.tensor([0.0, -0.2, 0.1], dtype=torch.float64)


def softmax(*values: int) -> AuctionSpec:
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", 0, value_micros=v) for i, v in enumerate(values))
    return AuctionSpec("query", agents, finalizer=FinalizerSpec(num_candidates=3))


def test_landscape_gives_the_published_payments_at_the_own_values() -> None:
    spec = softmax(MICROS, MICROS)
    for row, payment in enumerate((0.2580066194, 0.0244798750)):
        [nothing, own] = value_landscape(spec, row, NATS, LOG_WEIGHT, [0, MICROS])
        assert own.spend_micros == pytest.approx(payment * MICROS, abs=1e-3)
        assert (nothing.spend_micros, nothing.influence) == (0.0, 0.0)


@given(
    st.lists(st.lists(st.floats(-5, 5), min_size=3, max_size=3), min_size=2, max_size=2),
    st.lists(st.integers(0, 10**7), min_size=2, max_size=5, unique=True),
)
def test_who_values_more_pays_no_less_and_moves_no_more_than_everything(
    nats: list[list[float]], values: list[int]
) -> None:
    table = torch.tensor(nats, dtype=torch.float64)
    points = value_landscape(softmax(MICROS, MICROS), 0, table, LOG_WEIGHT, sorted(values))
    payments = [point.spend_micros for point in points]
    slack = 1e-9 * max(values)
    assert all(later >= earlier - slack for earlier, later in itertools.pairwise(payments))
    assert all(0 <= point.influence <= 1 + 1e-12 for point in points)


def test_token_auction_has_no_values() -> None:
    with pytest.raises(InvalidSpec, match="no values per nat"):
        value_landscape(replace(spec_of(5)), 0, NATS, LOG_WEIGHT, [1])

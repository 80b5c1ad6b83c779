"""Mechanisms over the same candidates: hand-computed tables, and what each must keep."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokenauction.engine.comparison import Comparison, compare
from tokenauction.engine.errors import InvalidInput, NoCommonSupport
from tokenauction.engine.finalizer import finalize

MECHANISMS = ["softmax", "vcg", "best_of_m", "reference_only"]


def f64(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def table(rewards: object, log_weight: object, tau: float = 1.0) -> dict[str, Comparison]:
    return {row.mechanism: row for row in compare(f64(rewards), f64(log_weight), tau)}


def test_comparison_gives_what_was_computed_by_hand() -> None:
    rows = table([[3.0, 0.0, 1.0], [0.0, 2.0, 1.5]], [0.0, 0.0, math.log(2)])
    assert list(rows) == MECHANISMS
    vcg = rows["vcg"]
    assert vcg.allocation.tolist() == [1.0, 0.0, 0.0]
    assert vcg.payments.tolist() == [2.0, 0.0]  # without the first the second's 2 would win; the second changes nothing
    assert (vcg.welfare, vcg.revenue, vcg.utilities.tolist()) == (3.0, 2.0, [1.0, 0.0])
    assert vcg.divergence == pytest.approx(math.log(4))
    assert rows["best_of_m"].utilities.tolist() == [3.0, 0.0]
    reference = rows["reference_only"]
    assert reference.allocation.tolist() == pytest.approx([0.25, 0.25, 0.5])
    assert reference.rewards.tolist() == pytest.approx([1.25, 1.25])
    assert (reference.revenue, reference.divergence) == (0.0, 0.0)


def test_softmax_is_the_finalizers() -> None:
    rewards, log_weight = f64([[1.0, 0, -1], [0, 0.5, 0]]), f64([0, -0.2, 0.1])
    row, result = compare(rewards, log_weight, 1.0)[0], finalize(rewards, log_weight)
    assert row.payments.tolist() == result.payment.tolist()
    assert row.utilities.tolist() == pytest.approx(result.utility.tolist(), abs=1e-12)
    assert row.divergence == pytest.approx(float(result.divergence), abs=1e-12)


def test_candidate_that_is_ruled_out_wins_nowhere() -> None:
    rows = table([[9.0, 1.0, -math.inf], [9.0, 1.0, 50.0]], [-math.inf, 0.0, 0.0])
    for name in ("softmax", "vcg", "best_of_m"):
        assert rows[name].allocation.tolist() == [0.0, 1.0, 0.0]
    assert rows["vcg"].payments.tolist() == [49.0, 0.0]


def test_comparison_refuses_what_the_finalizer_refuses() -> None:
    with pytest.raises(InvalidInput):
        table([[math.nan]], [0.0])
    with pytest.raises(NoCommonSupport):
        table([[-math.inf, 0.0], [0.0, -math.inf]], [0.0, 0.0])


rewards_of = st.integers(1, 4).flatmap(
    lambda m: st.lists(st.lists(st.floats(-20, 20), min_size=m, max_size=m), min_size=1, max_size=4)
)


@pytest.mark.slow
@given(rewards_of, st.data())
def test_mechanisms_keep_their_promises(rewards: list[list[float]], data: st.DataObject) -> None:
    weight = data.draw(st.lists(st.floats(-3, 3), min_size=len(rewards[0]), max_size=len(rewards[0])))
    rows = table(rewards, weight, data.draw(st.floats(0.1, 10)))
    for row in rows.values():
        assert float(row.allocation.sum()) == pytest.approx(1)
        assert row.divergence >= 0 and (row.payments >= -1e-12).all()
        assert row.welfare <= rows["vcg"].welfare + 1e-9
        assert row.welfare == pytest.approx(row.revenue + float(row.utilities.sum()), abs=1e-9)
    assert rows["softmax"].welfare >= rows["reference_only"].welfare - 1e-9


@pytest.mark.slow
@given(rewards_of, st.data())
def test_vcg_on_the_candidates_is_truthful(rewards: list[list[float]], data: st.DataObject) -> None:
    weight = [0.0] * len(rewards[0])
    lie = data.draw(st.lists(st.floats(-40, 40), min_size=len(weight), max_size=len(weight)))
    honest, lying = table(rewards, weight)["vcg"], table([lie, *rewards[1:]], weight)["vcg"]
    gain = float((lying.allocation * f64(rewards[0])).sum() - lying.payments[0])
    assert gain <= float(honest.utilities[0]) + 1e-9

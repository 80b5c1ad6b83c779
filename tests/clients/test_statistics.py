"""Lines and correlations against closed forms, intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.clients.cli.reproduction.statistics import fit, interval, mean

NUMBERS = st.lists(st.floats(-100, 100), min_size=3, max_size=12)


def test_line_through_points_on_a_line_is_that_line() -> None:
    x = np.array([0.0, 1.0, 3.0])
    line = fit(x, 2 * x - 1)
    assert (line.slope, line.intercept, line.r_squared, line.pearson) == pytest.approx((2, -1, 1, 1))
    assert fit(x, -x).pearson == pytest.approx(-1)


def test_interval_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="no points"):
        interval([[], []], [[], []], "slope")


def test_line_through_points_without_spread_has_no_slope() -> None:
    x, y = np.array([1.0, 1.0]), np.array([0.0, 2.0])
    assert (fit(x, y).slope, fit(x, y).intercept, fit(x, y).r_squared) == (0, 1, 0)
    assert fit(y, x).pearson == 0


@settings(max_examples=50, deadline=None)
@given(NUMBERS, st.integers(0, 2**32))
def test_line_leaves_nothing_that_another_line_explains(values: list[float], seed: int) -> None:
    x = np.array(values)
    y = np.random.default_rng(seed).standard_normal(len(x))
    line = fit(x, y)
    left = y - line.slope * x - line.intercept
    assert left.sum() == pytest.approx(0, abs=1e-8)
    assert left @ (x - x.mean()) == pytest.approx(0, abs=1e-6)
    assert 0 <= line.r_squared <= 1 + 1e-12


@pytest.mark.slow
def test_interval_of_a_mean_covers_the_truth_as_often_as_it_says() -> None:
    draw = np.random.default_rng(1)
    covers = []
    for _ in range(200):
        estimate = mean(draw.normal(3.0, 2.0, 40).tolist())
        assert estimate.low <= estimate.value <= estimate.high
        covers.append(estimate.low <= 3.0 <= estimate.high)
    assert 0.88 <= sum(covers) / len(covers) <= 0.99


def test_interval_is_the_same_in_every_run_and_none_where_all_are_equal() -> None:
    assert mean([1.0, 2.0, 5.0]) == mean([1.0, 2.0, 5.0])
    same = mean([4.0] * 5)
    assert (same.value, same.low, same.high, same.is_positive) == (4, 4, 4, True)


@pytest.mark.slow
def test_interval_of_a_slope_draws_whole_queries() -> None:
    """Points of a query that repeat each other add nothing to what is known."""
    draw = np.random.default_rng(2)
    x = [[float(value)] for value in draw.standard_normal(30)]
    y = [[2 * value[0] + float(draw.standard_normal())] for value in x]
    once = interval(x, y, "slope")
    often = interval([row * 50 for row in x], [row * 50 for row in y], "slope")
    assert (often.low, often.high) == pytest.approx((once.low, once.high), abs=1e-9)
    assert once.low < 2 < once.high

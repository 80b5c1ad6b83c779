"""Means with intervals, lines through points and correlations; it knows nothing of auctions.

An interval is a percentile bootstrap over queries: what is drawn again is the query with all that belongs to it, since
its candidates, advertisers and sets are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

NUM_RESAMPLES: Final = 2000
CONFIDENCE: Final = 0.95
Figure = Literal["slope", "r_squared", "pearson"]  # of a line, for which there is an interval
SEED: Final = 20_240_509  # the intervals of the same data are the same in every run


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def is_positive(self) -> bool:
        return self.low > 0

    def to_mapping(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Line:
    """The least-squares line y = slope·x + intercept, and what share of y's variance it explains."""

    slope: float
    intercept: float
    r_squared: float
    pearson: float


def mean(per_query: Sequence[float]) -> Estimate:
    """The mean over queries."""
    values = np.asarray(per_query, dtype=np.float64)
    draws = values[_resamples(len(values))].mean(1)
    return _estimate(float(values.mean()), draws)


def fit(x: Float64[ndarray, " points"], y: Float64[ndarray, " points"]) -> Line:
    """The line through all points; slope and correlation 0 where there is no spread."""
    found = _lines(_moments(x - x.mean(), y - y.mean())[None])
    slope, r_squared, pearson = (float(found[name][0]) for name in ("slope", "r_squared", "pearson"))
    return Line(slope, float(y.mean() - slope * x.mean()), r_squared, pearson)


def interval(x: Sequence[Sequence[float]], y: Sequence[Sequence[float]], figure: Figure) -> Estimate:
    """A figure of the line through all queries' points, x[query][point] against y[query][point].

    Queries without points do not count. Raises ValueError where no query has any.
    """
    xs, ys = ([np.asarray(points, dtype=np.float64) for points in axis if len(points)] for axis in (x, y))
    if not xs:
        raise ValueError("there are no points to lay a line through")
    all_x, all_y = np.concatenate(xs), np.concatenate(ys)
    pairs = zip(xs, ys, strict=True)
    moments = np.stack([_moments(a - all_x.mean(), b - all_y.mean()) for a, b in pairs])  # so squares lose no digits
    draws = _lines(moments[_resamples(len(xs))].sum(1))[figure]
    value = getattr(fit(all_x, all_y), figure)
    return _estimate(value, draws)


def _moments(x: ndarray, y: ndarray) -> Float64[ndarray, " six"]:
    """Number of points, Σx, Σy, Σx², Σxy, Σy²."""
    return np.array([len(x), x.sum(), y.sum(), x @ x, x @ y, y @ y])


def _lines(moments: Float64[ndarray, "lines six"]) -> dict[str, Float64[ndarray, " lines"]]:
    """The figures of many lines, each from the sums over its points."""
    num, sum_x, sum_y, square_x, product, square_y = moments.T
    sxx, sxy, syy = square_x - sum_x**2 / num, product - sum_x * sum_y / num, square_y - sum_y**2 / num
    slope = np.divide(sxy, sxx, out=np.zeros_like(sxx), where=sxx > 0)
    spread = np.sqrt(np.maximum(sxx, 0) * np.maximum(syy, 0))
    pearson = np.divide(sxy, spread, out=np.zeros_like(sxx), where=spread > 0)
    return {"slope": slope, "r_squared": pearson**2, "pearson": pearson}


def _resamples(num: int) -> ndarray:
    return np.random.default_rng(SEED).integers(0, num, size=(NUM_RESAMPLES, num))


def _estimate(value: float, draws: ndarray) -> Estimate:
    low, high = np.quantile(draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Estimate(value, float(low), float(high))

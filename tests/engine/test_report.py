"""What an agent with its own model may say: sparse, dense, and what is no distribution."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tokenauction.engine.errors import InvalidDistribution, ReceiptError
from tokenauction.engine.report import NEVER, Report

HALF = math.log(0.5)


def sparse(ids: tuple[int, ...] = (1, 3), probs: tuple[float, ...] = (0.5, 0.3), tail: float = 0.2) -> Report:
    return Report(np.log(np.array(probs)), ids, tail)


def dense(*probs: float, dtype: Any = np.float32) -> Report:
    return Report(np.log(np.array(probs)).astype(dtype))


def test_sparse_report_spreads_its_tail_evenly_over_what_it_does_not_list() -> None:
    row = sparse().logits(num_tokens=6, width=8)
    assert np.exp(row[:6]) == pytest.approx([0.05, 0.5, 0.05, 0.3, 0.05, 0.05])
    assert list(row[6:]) == [NEVER, NEVER]  # padding of the model's vocabulary


def test_sparse_report_without_a_tail_leaves_nothing_to_the_others() -> None:
    row = sparse(probs=(0.5, 0.5), tail=0.0).logits(4, 4)
    assert list(row) == [NEVER, pytest.approx(HALF), NEVER, pytest.approx(HALF)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_dense_report_is_taken_as_it_is(dtype: Any) -> None:
    row = dense(0.5, 0.25, 0.25, dtype=dtype).logits(3, 3)
    assert np.exp(row) == pytest.approx([0.5, 0.25, 0.25], rel=1e-2 if dtype is np.float16 else 1e-6)


def test_dense_report_keeps_the_lowest_number_finite() -> None:
    report = Report(np.array([0.0, np.finfo(np.float32).min], np.float32))
    report.check(2)
    assert list(report.logits(2, 2)) == [0.0, NEVER]


@pytest.mark.parametrize(
    ("report", "message"),
    [
        (sparse(ids=(1, 1)), "twice"),
        (sparse(ids=(1,)), "without"),
        (sparse(ids=(1, 6)), "token 6 is outside"),
        (sparse(ids=(-1, 3)), "token -1 is outside"),
        (sparse(tail=0.3), "sum to 1.1"),
        (sparse(tail=math.nan), "sum to nan"),
        (sparse(ids=(0, 1, 2, 3, 4, 5), probs=(0.1,) * 6, tail=0.4), "no tail"),
        (Report(np.array([HALF, 0.1]), (1, 3), 0.0), "at most 0"),
        (Report(np.array([HALF, -math.inf]), (1, 3), 0.5), "finite"),
        (dense(0.5, 0.5), "6 float16 or float32 numbers"),
        (dense(*[1 / 6] * 6, dtype=np.float64), "float64"),
        (dense(*[1 / 5] * 6), "sum to 1.2"),
    ],
)
def test_report_that_is_no_distribution_is_refused(report: Report, message: str) -> None:
    with pytest.raises(InvalidDistribution, match=message):
        report.check(6)


def test_hash_of_a_report_can_be_computed_by_whoever_sent_it() -> None:
    numbers = np.array([HALF, HALF], "<f4")
    assert Report(numbers).hash == hashlib.sha256(numbers.tobytes()).hexdigest()
    text = json.dumps(sparse().to_mapping(), sort_keys=True, separators=(",", ":"))
    assert text == '{"ids":[1,3],"log_probs":[-0.6931471805599453,-1.2039728043259361],"tail_mass":0.2}'
    assert sparse().hash == hashlib.sha256(text.encode()).hexdigest()


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-30, 0, width=32)),
    st.sampled_from([np.float16, np.float32]),
)
def test_dense_report_survives_its_receipt(numbers: Any, dtype: Any) -> None:
    report = Report(numbers.astype(dtype))
    again = Report.from_mapping(json.loads(json.dumps(report.to_mapping())))
    assert again.hash == report.hash
    assert (again.logits(len(numbers), 64) == report.logits(len(numbers), 64)).all()


@given(st.dictionaries(st.integers(0, 99), st.floats(-30, 0), max_size=20), st.floats(0, 1))
def test_sparse_report_survives_its_receipt(entries: dict[int, float], tail: float) -> None:
    report = Report(np.array(list(entries.values())), tuple(entries), tail)
    again = Report.from_mapping(json.loads(json.dumps(report.to_mapping())))
    assert again.hash == report.hash
    assert (again.logits(100, 128) == report.logits(100, 128)).all()


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"format": "float64", "data": ""},
        {"format": "float32", "data": "?"},
        {"format": "float32", "data": "AAA="},
        {"ids": [0.5], "log_probs": [0], "tail_mass": 0},
        {"ids": [0], "log_probs": [[0]], "tail_mass": 0},
        {"ids": 3, "log_probs": [0], "tail_mass": 0},
        {"ids": [0], "log_probs": ["x"], "tail_mass": 0},
    ],
)
def test_stored_report_that_cannot_be_read_is_an_error_of_the_receipt(stored: dict[str, Any]) -> None:
    with pytest.raises(ReceiptError, match="stored report"):
        Report.from_mapping(stored)

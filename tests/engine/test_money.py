"""Money: what is read, what is refused, and that nothing is lost on the way back."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.errors import InvalidBid
from tokenauction.engine.money import MAX_MICROS, from_micros, to_micros


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        (0, 0),
        (1, 1_000_000),
        (0.1, 100_000),
        (0.000001, 1),
        (1e-6, 1),
        ("0.0025", 2500),
        ("1e-3", 1000),
        (Decimal("12.345678"), 12_345_678),
        (1_000_000_000, MAX_MICROS),
    ],
)
def test_to_micros_reads_a_decimal_amount_exactly(amount: object, micros: int) -> None:
    assert to_micros(amount, "bid") == micros


@pytest.mark.parametrize(
    "amount",
    [
        -1,
        "-0.1",
        1e-7,
        "0.0000001",
        float("nan"),
        float("inf"),
        "1,5",
        "",
        "abc",
        None,
        True,
        [1],
        {},
        1e300,
        "9" * 400,
    ],
)
def test_to_micros_refuses_what_is_not_a_whole_number_of_micros(amount: object) -> None:
    with pytest.raises(InvalidBid, match="bid"):
        to_micros(amount, "bid")


@given(st.integers(0, MAX_MICROS))
def test_from_micros_reads_back_to_the_same_micros(micros: int) -> None:
    assert to_micros(from_micros(micros), "bid") == micros


@pytest.mark.parametrize(
    ("micros", "text"), [(0, "0"), (1, "0.000001"), (1500, "0.0015"), (2_000_000, "2"), (10**7, "10")]
)
def test_from_micros_writes_no_trailing_zeros(micros: int, text: str) -> None:
    assert from_micros(micros) == text

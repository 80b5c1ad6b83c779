"""Money: decimal currency outside, integer micros inside; finer amounts are refused, never rounded."""

from __future__ import annotations

from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal, InvalidOperation
from typing import Any

from tokenauction.engine.errors import InvalidBid

MICROS = 1_000_000  # micros in one unit of currency
MAX_MICROS = 10**15  # a thousand million units: above it float64 no longer holds every micro of a sum exactly


def to_micros(amount: Any, field: str) -> int:
    """Integer micros of a decimal amount of currency, exactly.

    Takes int, str, Decimal, and float by its shortest decimal form (so that 0.1 in a file means 0.1). Raises InvalidBid
    for what is no number, negative, not finite, finer than one micro, or larger than MAX_MICROS.
    """
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise InvalidBid(f"{field} must be a decimal amount of currency, not {amount!r}")
    try:
        value = Decimal(repr(amount) if isinstance(amount, float) else amount)
    except InvalidOperation:
        raise InvalidBid(f"{field} must be a decimal amount of currency, not {amount!r}") from None
    if not value.is_finite() or value < 0:
        raise InvalidBid(f"{field} must be zero or more, not {amount!r}")
    if value > MAX_MICROS // MICROS:
        raise InvalidBid(f"{field} is {amount!r}; the largest amount is {MAX_MICROS // MICROS}")
    micros = value.scaleb(6, Context(MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX))  # the usual context would round it
    if micros != micros.to_integral_value():
        raise InvalidBid(f"{field} is {amount!r}, which is finer than one micro (0.000001); round it")
    return int(micros)


def from_micros(micros: int) -> str:
    """Decimal currency of integer micros, without trailing zeros: 1500 gives "0.0015"."""
    text = f"{Decimal(micros).scaleb(-6):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text

"""The fields of a spec, each read or refused: InvalidSpec names the field, what it is, and what it must be.

It must not know what the fields are for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenauction.engine.errors import InvalidSpec

MAX_TEXT = 4_000  # characters of one field


def flag(value: Any, where: str) -> bool:
    """True or false, and nothing that is merely taken for it."""
    if not isinstance(value, bool):
        raise InvalidSpec(f"{where} is {value!r}; it must be true or false")
    return value


def choice(value: Any, where: str, allowed: tuple[str, ...]) -> None:
    """One of these words."""
    if value not in allowed:
        raise InvalidSpec(f"{where} is {value!r}; choose one of {', '.join(allowed)}")


def number(value: Any, where: str, low: float, high: float, *, optional: bool = False, above_low: bool = False) -> None:
    """A number from `low` (or above it) to `high`; None where it is `optional`."""
    if value is None and optional:
        return
    good = isinstance(value, int | float) and not isinstance(value, bool)  # NaN is in no range
    if not good or not low <= value <= high or (above_low and value <= low):
        raise InvalidSpec(
            f"{where} is {value!r}; it must be a number {'above' if above_low else 'from'} {low} to {high}"
        )


def integer(value: Any, where: str, low: int, high: int, *, optional: bool = False) -> None:
    """A whole number from `low` to `high`; None where it is `optional`."""
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        limit = "2^256 - 1" if high == 2**256 - 1 else str(high)
        raise InvalidSpec(f"{where} is {value!r}; it must be a whole number from {low} to {limit}")


def mapping_of(source: Any, where: str, allowed: set[str]) -> Mapping[str, Any]:
    """A mapping of none but the allowed fields."""
    if not isinstance(source, Mapping):
        raise InvalidSpec(f"{where} must be a mapping of fields, not {type(source).__name__}")
    for name in source:
        if name not in allowed:
            raise InvalidSpec(f"{where}.{name} is not a field; the fields are {', '.join(sorted(allowed))}")
    return source


def required(values: Mapping[str, Any], name: str, where: str) -> Any:
    """The field of that name."""
    if name not in values:
        raise InvalidSpec(f"{where}.{name} is missing")
    return values[name]


def text_of(values: Mapping[str, Any], name: str, where: str, *, line: bool = True) -> str:
    """A text field: not empty, not endless; one line (no control characters) unless `line` is False."""
    value = required(values, name, where)
    if not isinstance(value, str) or not value.strip():
        raise InvalidSpec(f"{where}.{name} is {value!r}; it must be text")
    if len(value) > MAX_TEXT:
        raise InvalidSpec(f"{where}.{name} has {len(value)} characters; the limit is {MAX_TEXT}")
    if line and any(ord(c) < 32 or c in "\x7f\u2028\u2029" for c in value):
        raise InvalidSpec(f"{where}.{name} holds a line break or control character; give one line")
    if has_surrogate(value):
        raise InvalidSpec(f"{where}.{name} holds a lone surrogate, which is not text")
    return value.strip() if line else value


def has_surrogate(text: str) -> bool:
    """Whether it holds half of a UTF-16 pair, which no encoding can write."""
    return any(0xD800 <= ord(c) < 0xE000 for c in text)

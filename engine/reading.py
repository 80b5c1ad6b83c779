"""What one more token adds to a text; the decoder writes by it and verification reads by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tokenauction.models.base import TextStream, Tokenizer


def inner_text(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
    """What ids read inside a text: a tokenizer that marks words by the space before them drops it at a text's start."""
    [front, *_] = tokenizer.encode("a")
    start = len(tokenizer.decode([front]))
    return lambda ids: tokenizer.decode([front, *ids])[start:]


def added_text(tokenizer: Tokenizer, stream: TextStream, token: int, text: str) -> str:
    """The characters that become readable with `token` behind `text`: none with an end token, no space in front of all.

    `stream` has taken in the tokens before, and takes in this one.
    """
    delta = "" if token in tokenizer.end_ids else stream.push(token)
    return delta if text else delta.lstrip()

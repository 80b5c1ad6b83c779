"""What one more token adds to a text; the decoder writes by it and verification reads by it."""

from __future__ import annotations

from tokenauction.models.base import TextStream, Tokenizer


def added_text(tokenizer: Tokenizer, stream: TextStream, token: int, text: str) -> str:
    """The characters that become readable with `token` behind `text`: none with an end token, no space in front of all.

    `stream` has taken in the tokens before, and takes in this one.
    """
    delta = "" if token in tokenizer.end_ids else stream.push(token)
    return delta if text else delta.lstrip()

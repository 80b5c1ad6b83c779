"""What one more token adds: nothing at the end, no space in front of the first word, every character once."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tokenauction.engine.reading import added_text, inner_text
from tokenauction.models.toy import ToyTokenizer

TOKENIZER = ToyTokenizer("ab ")
SPACE, END = 2, 3


@pytest.mark.parametrize(
    ("tokens", "deltas"),
    [
        ([0, 1, END], ["a", "b", ""]),
        ([SPACE, 0, SPACE, 1], ["", "a", " ", "b"]),
        ([SPACE, SPACE, 1], ["", "", "b"]),
        ([END], [""]),
    ],
)
def test_added_text_joins_to_the_text_without_space_in_front(tokens: list[int], deltas: list[str]) -> None:
    assert TOKENIZER.end_ids == {END}
    stream, text = TOKENIZER.text_stream(), ""
    for token, expected in zip(tokens, deltas, strict=True):
        assert added_text(TOKENIZER, stream, token, text) == expected
        text += expected


class _WordTokenizer(ToyTokenizer):
    """One that marks words by the space in front of them, as SentencePiece does, and drops it where a text begins."""

    def decode(self, ids: Sequence[int]) -> str:
        return super().decode(ids).removeprefix(" ")


def test_inner_text_keeps_the_space_in_front_of_a_word() -> None:
    tokenizer = _WordTokenizer("ab ")
    assert tokenizer.decode([SPACE, 1]) == "b"
    assert inner_text(tokenizer)([SPACE, 1]) == " b"
    assert inner_text(TOKENIZER)([END]) == ""

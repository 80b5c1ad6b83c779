"""Counting sentences that have ended."""

from __future__ import annotations

import pytest

from tokenauction.engine.sentences import count_sentences


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("Fly with us", 0),
        ("Fly with us.", 1),
        ("Fly with us. Stay", 1),
        ("Fly with us! Stay with them?", 2),
        ("Only 3.5 hours away", 0),
        ("Costs 3.", 0),
        ("Wait… what?!", 2),
        ('She said "go." Then left.', 2),
        ("www.example.com is", 0),
        ("こんにちは。さようなら。", 2),
    ],
)
def test_count_sentences_counts_those_that_have_ended(text: str, count: int) -> None:
    assert count_sentences(text) == count

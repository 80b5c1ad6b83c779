"""One row that follows a text: every distribution is the model's, whatever was asked before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.models.remote import RemoteRow
from tokenauction.models.toy import ToyModel, ToyWorld

WORLD = ToyWorld(5, "abcdef")
PROMPT = WORLD.tokenizer.encode_prompt("mine")


@given(st.lists(st.lists(st.integers(0, WORLD.end), max_size=6), max_size=6))
def test_row_says_the_models_distribution_behind_any_text_in_any_order(texts: list[list[int]]) -> None:
    model = ToyModel(WORLD, max_rows=1)
    row = RemoteRow(model, PROMPT, max_tokens=8)
    for text in texts:
        expected = WORLD.table(PROMPT)[[WORLD.end, *text][-1]].numpy()
        assert np.allclose(row.log_probs(text), expected, atol=1e-6)


def test_row_takes_one_step_a_token_as_the_text_grows() -> None:
    model = ToyModel(WORLD, max_rows=1)
    row = RemoteRow(model, PROMPT, max_tokens=8)
    row.log_probs([])
    gang = row._gang
    for length in range(1, 5):
        row.log_probs([1] * length)
    assert row._gang is gang and gang is not None and gang.num_tokens == 4


def test_row_gives_its_place_back_and_takes_it_again() -> None:
    model = ToyModel(WORLD, max_rows=1)
    row = RemoteRow(model, PROMPT, max_tokens=8)
    before = row.log_probs([2])
    row.release()
    assert model.free_rows == 1
    assert (row.log_probs([2]) == before).all()
    assert row.vocabulary_hash == WORLD.tokenizer.hash

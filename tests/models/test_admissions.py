"""The rules that hold for every model, tried on two that compute quite differently."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tokenauction.models import base
from tokenauction.models.admissions import Admissions
from tokenauction.models.huggingface import HuggingFaceModel
from tokenauction.models.toy import ToyModel, ToyTokenizer, ToyWorld

MODELS = ("llama", "mistral", "toy")  # with a cache, re-reading, exact


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tiny_model: Callable[..., Any]) -> base.LanguageModel:
    """A model of five rows of at most sixteen tokens."""
    if request.param == "toy":
        return ToyModel(ToyWorld(), max_rows=5, max_length=16)
    return HuggingFaceModel(tiny_model(request.param), ToyTokenizer("ab"), max_rows=5, max_length=16)


def tokens(*ids: int) -> torch.Tensor:
    return torch.tensor(ids, dtype=torch.long)


def test_gang_takes_a_row_a_prompt_and_gives_them_back(model: base.LanguageModel) -> None:
    first = model.admit([[1], [2, 3]], 4)
    second = model.admit([[4], [5], [6]], 4)
    assert (first.num_rows, second.num_rows, model.free_rows, model.max_rows) == (2, 3, 0, 5)
    model.release(first)
    assert model.free_rows == 2
    model.release(first)
    assert model.free_rows == 2


def test_gang_is_refused_whole_when_one_row_is_missing(model: base.LanguageModel) -> None:
    model.admit([[1], [2], [3]], 4)
    with pytest.raises(base.NoRoom, match="3 rows are needed and 2 of 5 are free"):
        model.admit([[4], [5], [6]], 4)
    assert model.free_rows == 2
    model.admit([[4], [5]], 4)


def test_gang_is_refused_for_good_when_it_could_never_fit(model: base.LanguageModel) -> None:
    with pytest.raises(ValueError, match="6 prompts never fit into 5 rows; raise the model's max_rows"):
        model.admit([[1]] * 6, 4)


@pytest.mark.parametrize(
    ("prompts", "room", "complaint"),
    [
        ([], 4, "at least one prompt"),
        ([[1], []], 4, "a prompt has no tokens"),
        ([[1], [-1]], 4, "token id -1 is outside the vocabulary"),
        ([[1], [10**9]], 4, "token id 1000000000 is outside the vocabulary"),
        ([[1]], -1, "max_new_tokens is -1"),
    ],
)
def test_gang_is_refused_when_a_prompt_makes_no_sense(
    prompts: list[list[int]], room: int, complaint: str, model: base.LanguageModel
) -> None:
    with pytest.raises(ValueError, match=complaint):
        model.admit(prompts, room)
    assert model.free_rows == 5


def test_vocabulary_ends_where_the_logits_do(model: base.LanguageModel) -> None:
    model.admit([[model.vocab_size - 1]], 1)
    with pytest.raises(ValueError, match=f"outside the vocabulary of {model.vocab_size}"):
        model.admit([[model.vocab_size]], 1)


def test_gang_is_refused_when_the_longest_prompt_and_text_exceed_the_context(model: base.LanguageModel) -> None:
    model.admit([[1] * 10, [1]], 6)
    with pytest.raises(base.PromptTooLong, match="10 tokens with 7 more is longer than the model's context of 16"):
        model.admit([[1] * 10, [1]], 7)


def test_gang_is_prefilled_before_it_steps_and_only_once(model: base.LanguageModel) -> None:
    gang = model.admit([[1]], 4)
    with pytest.raises(ValueError, match="call prefill first"):
        model.step([gang], tokens(1))
    model.prefill([gang])
    with pytest.raises(ValueError, match="a gang is prefilled once"):
        model.prefill([gang])


def test_gang_takes_no_more_tokens_than_it_was_admitted_for(model: base.LanguageModel) -> None:
    gang = model.admit([[1], [2]], 2)
    model.prefill([gang])
    model.step([gang], tokens(1))
    model.step([gang], tokens(2))
    with pytest.raises(ValueError, match="admitted for 2 new tokens cannot take another"):
        model.step([gang], tokens(3))
    model.rollback(gang, 1)
    model.step([gang], tokens(3))
    assert gang.num_tokens == 2


def test_step_is_refused_when_tokens_and_gangs_do_not_pair_up(model: base.LanguageModel) -> None:
    first, second = model.admit([[1]], 4), model.admit([[2]], 4)
    model.prefill([first, second])
    with pytest.raises(ValueError, match=r"2 gangs need as many tokens, not a tensor of shape \[1\]"):
        model.step([first, second], tokens(1))
    with pytest.raises(ValueError, match="the same gang is named twice"):
        model.step([first, first], tokens(1, 2))
    assert (first.num_tokens, second.num_tokens) == (0, 0)


def test_gang_of_another_model_or_one_that_was_released_is_refused(model: base.LanguageModel) -> None:
    stranger = ToyModel(ToyWorld()).admit([[1]], 4)
    released = model.admit([[1]], 4)
    model.prefill([released])
    model.release(released)
    for gang in (stranger, released):
        for use in (
            lambda gang: model.prefill([gang]),
            lambda gang: model.step([gang], tokens(1)),
            lambda gang: model.rollback(gang, 0),
        ):
            with pytest.raises(ValueError, match="not in this model: released, or admitted by another"):
                use(gang)
        model.release(gang)


@pytest.mark.parametrize("num_tokens", [-1, 3])
def test_rollback_is_refused_beyond_what_was_taken_in(num_tokens: int, model: base.LanguageModel) -> None:
    gang = model.admit([[1]], 4)
    model.prefill([gang])
    model.step([gang], tokens(1))
    model.step([gang], tokens(2))
    with pytest.raises(ValueError, match=f"cannot forget {num_tokens} of 2 tokens"):
        model.rollback(gang, num_tokens)
    assert gang.num_tokens == 2


@pytest.mark.parametrize(
    ("prefixes", "candidates", "complaint"),
    [
        ([[1], []], [[1]], "a prompt has no tokens"),
        ([[1], [-5]], [[1]], "token id -5"),
        ([[1]], [[1], [10**6]], "token id 1000000"),
    ],
)
def test_score_is_refused_when_a_text_makes_no_sense(
    prefixes: list[list[int]], candidates: list[list[int]], complaint: str, model: base.LanguageModel
) -> None:
    with pytest.raises(ValueError, match=complaint):
        model.score(prefixes, candidates)


def test_score_is_refused_when_a_candidate_leads_beyond_the_context(model: base.LanguageModel) -> None:
    assert len(model.score([[1] * 10], [[2] * 6])[0][0]) == 6
    with pytest.raises(base.PromptTooLong, match="10 tokens with 7 more"):
        model.score([[1], [1] * 10], [[2], [2] * 7])


def test_errors_carry_a_stable_code() -> None:
    errors = (base.ModelNotLoadable, base.PromptTooLong, base.NoRoom)
    assert [error.code for error in errors] == ["model_not_loadable", "prompt_too_long", "no_room"]
    assert all(issubclass(error, base.ModelError) for error in errors)


def test_admissions_of_a_released_gang_leave_nothing_behind() -> None:
    admissions = Admissions(max_rows=4, max_length=8, vocab_size=9)
    for _ in range(3):
        admissions.release(admissions.admit([[1], [2], [3]], 5))
    assert admissions.free_rows == 4

"""Decoding in gangs against plain forward passes of every row alone, for many architectures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenauction.models import base, padded_cache
from tokenauction.models.causal_network import CausalNetwork
from tokenauction.models.huggingface import HuggingFaceModel
from tokenauction.models.toy import ToyTokenizer

DYNAMIC = ("llama", "qwen2", "gemma", "gpt2", "opt", "bloom", "mpt", "mixtral")
REREAD = ("mistral", "gemma2", "mamba", "jamba", "bart", "roberta")

# Logits here have a standard deviation of 1 to 5; float32 sums in another order part by about 1e-6 of that.
ABSOLUTE = 5e-5

Build = Callable[..., Any]


TOKENIZER = ToyTokenizer("ab")  # These tests speak in ids; nothing asks it for text.


A_PROMPTS = [[3, 4, 5, 6, 7, 8, 9], [10], [11, 12, 13]]
B_PROMPTS = [[20, 21], [22, 23, 24, 25, 26, 27, 28, 29, 30]]
C_PROMPTS = [[31, 32, 33, 34]]


@pytest.mark.parametrize("architecture", DYNAMIC)
def test_cache_kind_is_dynamic_for_plain_attention(architecture: str, checked: Build) -> None:
    assert checked(architecture).model.cache_kind == "dynamic"


@pytest.mark.parametrize("architecture", REREAD)
def test_cache_kind_is_reread_for_anything_else(architecture: str, checked: Build) -> None:
    assert checked(architecture).model.cache_kind == "reread"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", DYNAMIC + REREAD)
def test_logits_equal_plain_forwards_as_gangs_join_leave_and_roll_back(architecture: str, checked: Build) -> None:
    model = checked(architecture)
    a, b = model.join(A_PROMPTS, B_PROMPTS)
    model.step([a, b], 1, 2)
    model.step([a, b], 3, 4)
    model.step([b], 5)  # a waits
    model.step([b], 6)
    (c,) = model.join(C_PROMPTS)
    model.step([a, c], 7, 8)  # b waits
    model.step([c, b, a], 9, 10, 11)  # in another order
    model.step([c, b, a], 12, 13, 14)
    model.rollback(b, 2)  # amid the batch
    model.step([c, b, a], 15, 16, 17)
    model.rollback(a, 5)  # to its prompts
    model.step([a], 18)
    model.model.release(b)
    model.step([a, c], 19, 20)
    model.step([a, c], 21, 22)


@pytest.mark.slow
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_logits_equal_plain_forwards_whatever_the_gangs_do(data: st.DataObject, checked: Build) -> None:
    model = checked("llama", max_rows=9)
    token = st.integers(0, 49)
    prompt = st.lists(token, min_size=1, max_size=6)
    for _ in range(data.draw(st.integers(3, 10), "moves")):
        model.move(data, token, prompt)
    assert model.model.free_rows == 9 - sum(gang.num_rows for gang in model.texts)


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_step_of_bf16_model_stays_near_its_plain_forward(
    architecture: str, tiny_model: Build, true_logits: Build
) -> None:
    model = HuggingFaceModel(tiny_model(architecture, torch.bfloat16), TOKENIZER)
    assert model.numerics == "bf16"
    gang = model.admit(A_PROMPTS, 1)
    model.prefill([gang])
    logits = model.step([gang], torch.tensor([5]))
    truth = torch.stack([true_logits(architecture, [*prompt, 5], torch.bfloat16)[-1] for prompt in A_PROMPTS])
    assert logits.dtype == torch.float32
    assert ((logits - truth).square().mean().sqrt() / truth.std()).item() < 0.02


def test_step_reuses_the_batch_until_membership_changes(checked: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checked("llama")
    joins: list[int] = []
    join = padded_cache.Batch.join

    def count(network: CausalNetwork, parts: dict[base.Gang, padded_cache.Rows]) -> padded_cache.Batch:
        joins.append(len(parts))
        return join(network, parts)

    monkeypatch.setattr(padded_cache.Batch, "join", count)
    a, b = model.join(A_PROMPTS, B_PROMPTS)
    for tokens in ((1, 2), (3, 4), (5, 6)):
        model.step([a, b], *tokens)
    assert joins == [2]
    model.step([b], 7)
    assert joins == [2, 1]


def test_step_gives_a_row_the_same_logits_in_any_company(checked: Build) -> None:
    alone, together = checked("llama"), checked("llama")
    (a,) = alone.join(A_PROMPTS)
    b, c = together.join(A_PROMPTS, B_PROMPTS)
    for token in (5, 6):
        lone = alone.model.step([a], torch.tensor([token]))
        shared = together.model.step([b, c], torch.tensor([token, 9]))
    torch.testing.assert_close(lone, shared[:3], atol=ABSOLUTE, rtol=0)


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_step_leaves_everything_as_it_was_when_the_forward_fails(
    architecture: str, checked: Build, monkeypatch: pytest.MonkeyPatch, tiny_model: Build
) -> None:
    model = checked(architecture)
    a, b = model.join(A_PROMPTS, B_PROMPTS)
    model.step([a, b], 1, 2)
    # The first layer takes the token in, the second one fails.
    second = tiny_model(architecture).model.layers[1]
    with monkeypatch.context() as patch:
        patch.setattr(second, "forward", lambda *args, **kwargs: (_ for _ in ()).throw(MemoryError("no memory left")))
        with pytest.raises(MemoryError, match="no memory left"):
            model.model.step([a, b], torch.tensor([3, 4]))
    assert (a.num_tokens, b.num_tokens) == (1, 1)
    model.step([a, b], 5, 6)
    model.step([b], 7)


def test_prefill_computes_logits_of_the_last_position_only(checked: Build, tiny_model: Build) -> None:
    model = checked("llama")
    shapes: list[tuple[int, ...]] = []
    hook = tiny_model("llama").lm_head.register_forward_hook(lambda _, inputs, output: shapes.append(output.shape))
    try:
        model.join(A_PROMPTS)
    finally:
        hook.remove()
    assert shapes[0] == (3, 1, 50)


def test_logits_are_the_same_from_a_model_that_always_computes_them_everywhere(
    checked: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = checked("llama")
    network = model.model._network
    monkeypatch.setattr(network, "_accepted", network._accepted - {"logits_to_keep"})
    (a,) = model.join(A_PROMPTS)
    model.step([a], 1)


def test_step_of_no_gangs_returns_no_rows(checked: Build) -> None:
    model = checked("llama").model
    assert model.prefill([]).shape == (0, 50)
    assert model.step([], torch.tensor([], dtype=torch.long)).shape == (0, 50)


def test_released_gang_frees_its_memory_once_the_batch_is_made_anew(checked: Build) -> None:
    model = checked("llama")
    a, b, c = model.join(A_PROMPTS, B_PROMPTS, C_PROMPTS)
    model.step([a, b], 1, 2)
    model.model.release(b)
    model.step([a], 3)
    parked = model.model._parked
    assert set(parked) == {c}
    for tensor in (tensor for layer in parked[c].layers for tensor in layer):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
    assert model.model._batch is not None
    assert model.model._batch.cache.layers[0].keys.shape == (3, 2, len(A_PROMPTS[0]) + 2, 4)


# --- score ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", DYNAMIC + REREAD)
@pytest.mark.parametrize("pass_tokens", [1024, 12])
def test_score_equals_log_probabilities_of_plain_forwards(
    architecture: str,
    pass_tokens: int,
    checked: Build,
    true_logits: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = checked(architecture).model
    monkeypatch.setattr("tokenauction.models.causal_network.MAX_PASS_TOKENS", pass_tokens)
    prefixes = [[3], [4, 5, 6, 7, 8], [9, 10]]
    candidates = [[11, 12, 13], [14], [], [15, 16, 17, 18, 19, 2]]
    scores = model.score(prefixes, candidates)
    for prefix, row in zip(prefixes, scores, strict=True):
        for candidate, score in zip(candidates, row, strict=True):
            logits = true_logits(architecture, [*prefix, *candidate])[len(prefix) - 1 :].double().log_softmax(-1)
            truth = [logits[place, token].item() for place, token in enumerate(candidate)]
            torch.testing.assert_close(score.double(), torch.tensor(truth).double(), atol=ABSOLUTE, rtol=0)


def test_score_keeps_every_forward_pass_within_its_bound(checked: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checked("llama").model
    monkeypatch.setattr("tokenauction.models.causal_network.MAX_PASS_TOKENS", 20)
    sizes: list[int] = []
    forward = model._network.forward

    def measure(ids: torch.Tensor, mask: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
        sizes.append(ids.numel())
        return forward(ids, mask, kept)

    monkeypatch.setattr(model._network, "forward", measure)
    model.score([[1, 2, 3], [4] * 30, [5, 6]], [[7, 8], [9], [10, 11, 12]])
    assert len(sizes) > 3
    assert [size for size in sizes if size > 20] == [31, 30, 32]  # rows longer than the bound go alone


def test_score_answers_in_shape_when_there_is_nothing_to_score(checked: Build) -> None:
    model = checked("llama").model
    assert model.score([], [[1]]) == []
    assert model.score([[1], [2]], []) == [[], []]


def test_score_leaves_live_gangs_alone(checked: Build) -> None:
    model = checked("llama")
    (a,) = model.join(A_PROMPTS)
    model.step([a], 1)
    model.model.score([[1, 2]], [[3, 4]])
    model.step([a], 2)


# --- what the model says of itself, and what it refuses -------------------------------------------------------------


def test_model_satisfies_the_protocol(checked: Build) -> None:
    model = checked("llama").model
    assert isinstance(model, base.LanguageModel)
    assert (model.vocab_size, model.numerics, model.device) == (50, "float32", torch.device("cpu"))
    assert (model.max_rows, model.free_rows, model.name) == (64, 64, "in-memory")


def test_max_length_comes_from_the_config_and_may_be_lowered(checked: Build) -> None:
    assert [checked(name).model.max_length for name in ("llama", "gpt2", "mpt", "bloom")] == [64, 64, 64, 2048]
    assert checked("llama", max_length=10).model.max_length == 10
    assert checked("bloom", max_length=9000).model.max_length == 9000
    with pytest.raises(ValueError, match=r"max_length is 65; choose between 1 and the model's context \(64\)"):
        checked("llama", max_length=65)
    with pytest.raises(ValueError, match="max_length is 0"):
        checked("llama", max_length=0)


def test_row_can_be_filled_to_the_last_position_of_the_context(checked: Build) -> None:
    model = checked("gpt2")
    (gang,) = model.join([[5] * 60, [6]], room=4)
    for token in (1, 2, 3, 4):
        model.step([gang], token)
    with pytest.raises(base.PromptTooLong, match="60 tokens with 5 more is longer than the model's context of 64"):
        model.model.admit([[5] * 60], 5)


def test_model_is_refused_when_it_is_not_causal(checked: Build) -> None:
    with pytest.raises(base.ModelNotLoadable, match="in-memory is not causal"):
        checked("bert")


def test_model_is_refused_when_it_computes_in_an_unknown_dtype(tiny_model: Build) -> None:
    with pytest.raises(base.ModelNotLoadable, match=r"torch\.float16; load it as one of float32, bf16"):
        HuggingFaceModel(tiny_model("llama", torch.float16), TOKENIZER)


def test_hash_tells_parameters_apart_and_is_taken_once(tiny_model: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(architecture: str, dtype: torch.dtype) -> HuggingFaceModel:
        return HuggingFaceModel(tiny_model(architecture, dtype), TOKENIZER)

    first = build("llama", torch.float32)
    assert len(first.hash) == 64
    assert build("llama", torch.float32).hash == first.hash
    assert build("llama", torch.bfloat16).hash != first.hash
    assert build("qwen2", torch.float32).hash != first.hash
    monkeypatch.setattr("tokenauction.models.huggingface.hash_parameters", lambda model: "taken again")
    assert first.hash != "taken again"

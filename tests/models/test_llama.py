"""The Llama runner against transformers' own forward passes of every row alone, for every variant of the family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenauction.models import base
from tokenauction.models.compiler import find_compiler
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama import LlamaModel
from tokenauction.models.llama_config import unsupported
from tokenauction.models.token_batch import TokenBatch
from tokenauction.models.toy import ToyTokenizer

Build = Callable[..., Any]

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")

VARIANTS = (
    "llama",
    "llama-tied",
    "llama-biased",
    "llama-one-head",
    "llama-linear",
    "llama-yarn",
    "llama3",
    "mistral-wide",
    "qwen2",
    "qwen3",
)
ABSOLUTE = 5e-5

COMMON = list(range(3, 3 + 2 * PAGE_SIZE + 3))  # two full pages and a bit
A_PROMPTS = [[*COMMON, 40, 41], [*COMMON, 42], [43]]
B_PROMPTS = [[*COMMON[:20], 44, 45], [46, 47, 48]]


@pytest.fixture(params=["packed", pytest.param("cpp", marks=needs_compiler)])
def runner(request: pytest.FixtureRequest) -> str:
    """Every runner of the family that computes on a CPU."""
    return str(request.param)


@pytest.mark.parametrize("architecture", VARIANTS)
def test_logits_equal_plain_forwards_as_gangs_join_leave_and_roll_back(
    architecture: str, runner: str, checked: Build
) -> None:
    model = checked(architecture, runner)
    a, b = model.join(A_PROMPTS, B_PROMPTS)
    model.step([a, b], 1, 2)
    model.step([b], 5)  # a waits
    (c,) = model.join([COMMON])
    model.step([c, b, a], 9, 10, 11)  # in another order
    model.rollback(b, 2)
    model.step([c, b, a], 15, 16, 17)
    model.rollback(a, 3)  # to its prompts
    model.step([a], 18)
    model.model.release(b)
    model.step([a, c], 19, 20)


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_logits_equal_plain_forwards_whatever_the_gangs_do(data: st.DataObject, runner: str, checked: Build) -> None:
    model = checked("llama", runner, max_rows=9)
    token = st.integers(0, 49)
    tail = st.lists(token, min_size=1, max_size=6)
    prompt = st.builds(lambda num, tail: [*COMMON[:num], *tail], st.sampled_from([0, 15, 16, 17, 32, 35]), tail)
    for _ in range(data.draw(st.integers(3, 10), "moves")):
        model.move(data, token, prompt)
    for gang in model.texts:
        model.model.release(gang)
    assert model.model.num_free_pages == 9 * 64 // PAGE_SIZE


@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_bf16_model_stays_near_its_plain_forward(architecture: str, tiny_model: Build, true_logits: Build) -> None:
    model = LlamaModel(tiny_model(architecture, torch.bfloat16), ToyTokenizer("ab"))
    assert model.numerics == "bf16"
    gang = model.admit(A_PROMPTS, 1)
    model.prefill([gang])
    logits = model.step([gang], torch.tensor([5]))
    truth = torch.stack([true_logits(architecture, [*prompt, 5], torch.bfloat16)[-1] for prompt in A_PROMPTS])
    assert logits.dtype == torch.float32
    assert ((logits - truth).square().mean().sqrt() / truth.std()).item() < 0.02


def test_gang_admitted_first_and_prefilled_last_still_has_its_beginning_computed(runner: str, checked: Build) -> None:
    model = checked("llama", runner)
    early = model.model.admit(A_PROMPTS, 4)
    (late,) = model.join(A_PROMPTS)
    model.texts[early] = []
    model.compare([early], model.model.prefill([early]))
    model.model.release(late)
    model.step([early], 7)


def test_common_beginning_is_computed_once(runner: str, checked: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checked("llama", runner)
    sizes: list[int] = []
    launch = model.model._network.launch

    def measure(batch: TokenBatch, cache: Any) -> Any:
        sizes.append(len(batch.ids))
        return launch(batch, cache)

    monkeypatch.setattr(model.model._network, "launch", measure)
    model.join([[*COMMON, 40], [*COMMON, 41]])
    model.join([[*COMMON, 42]])
    shared = 2 * PAGE_SIZE
    assert sizes == [shared + 4 + 4, 4]


@pytest.mark.parametrize("prompt", [[5], COMMON, [*COMMON, *COMMON[:3]], COMMON[: 2 * PAGE_SIZE]], ids=len)
def test_equal_prompts_are_read_once_and_then_go_their_own_ways(
    runner: str, checked: Build, monkeypatch: pytest.MonkeyPatch, prompt: list[int]
) -> None:
    model = checked("llama", runner)
    sizes: list[int] = []
    launch = model.model._network.launch
    monkeypatch.setattr(
        model.model._network, "launch", lambda batch, cache: (sizes.append(len(batch.ids)), launch(batch, cache))[1]
    )
    gangs = model.join([prompt], [prompt], [prompt, [9]], [prompt])
    assert sizes == [len(prompt) + 1]
    for tokens in ((1, 2, 3, 4), (4, 3, 2, 1)):
        model.step(gangs, *tokens)
    model.model.release(gangs[0])
    model.step(gangs[1:], 7, 8, 9)
    model.rollback(gangs[1], 2)
    model.step(gangs[1:2], 6)


def test_score_gives_the_log_probability_of_each_token(runner: str, checked: Build, true_logits: Build) -> None:
    model = checked("llama", runner).model
    prefixes = [COMMON, [*COMMON, 7], [9]]
    candidates = [[1, 2, 3], [1, 2, 3], [4], [], list(range(20, 45))]
    for prefix, row in zip(prefixes, model.score(prefixes, candidates), strict=True):
        for candidate, score in zip(candidates, row, strict=True):
            logits = true_logits("llama", [*prefix, *candidate])[len(prefix) - 1 :].double().log_softmax(-1)
            truth = [logits[place, token].item() for place, token in enumerate(candidate)]
            torch.testing.assert_close(score.double(), torch.tensor(truth).double(), atol=ABSOLUTE, rtol=0)


LONG = list(range(10, 35))
ALIKE: dict[str, tuple[list[list[int]], list[list[int]]]] = {
    "candidates begin alike": ([COMMON, [*COMMON[:-1], 7]], [[*LONG, 1], [*LONG, 2], [*LONG[:20], 4], [5]]),
    "one goes on where another ends": ([[3]], [LONG, [*LONG, 7, 8], LONG[:17], LONG[:16], LONG]),
    "a prefix goes on where another ends": ([COMMON, [*COMMON, *LONG[:8]]], [[*LONG[:8], 6], LONG[:20], [2] * 20]),
    "a prefix twice": ([COMMON, COMMON], [LONG, [*LONG[:-1], 3]]),
    "across pages": ([LONG[:15], LONG[:16], LONG[:17]], [LONG[17:], [*LONG[15:], 9], [*LONG[16:], 9]]),
}


@pytest.mark.parametrize("case", ALIKE)
def test_score_shares_what_is_alike_and_nothing_else(
    runner: str, checked: Build, true_logits: Build, case: str
) -> None:
    model = checked("llama", runner).model
    prefixes, candidates = ALIKE[case]
    for prefix, row in zip(prefixes, model.score(prefixes, candidates), strict=True):
        for candidate, score in zip(candidates, row, strict=True):
            logits = true_logits("llama", [*prefix, *candidate])[len(prefix) - 1 :].double().log_softmax(-1)
            truth = [logits[place, token].item() for place, token in enumerate(candidate)]
            torch.testing.assert_close(score.double(), torch.tensor(truth).double(), atol=ABSOLUTE, rtol=0)


def test_score_of_more_than_one_pass_is_the_same(runner: str, checked: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    model = checked("llama", runner).model
    prefixes, candidates = ALIKE["candidates begin alike"]
    whole = model.score(prefixes, candidates)
    monkeypatch.setattr("tokenauction.models.llama.MAX_SCORED_TOKENS", 40)
    for row, again in zip(whole, model.score(prefixes, candidates), strict=True):
        for score, part in zip(row, again, strict=True):
            torch.testing.assert_close(score, part, atol=ABSOLUTE, rtol=0)


def test_score_leaves_live_gangs_alone(runner: str, checked: Build) -> None:
    model = checked("llama", runner)
    (a,) = model.join(A_PROMPTS)
    model.step([a], 1)
    model.model.score([COMMON], [[3, 4]])
    model.step([a], 2)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("gpt2", "gpt2 is not one of llama, mistral, qwen2, qwen3"),
        ("mistral", "slides over 4 tokens, fewer than the 64 of a row"),
        ("llama-dynamic", "rotary positions are of type dynamic"),
        ("llama-gelu", "activation is gelu, not silu"),
    ],
)
def test_model_is_refused_with_the_reason_when_it_is_not_of_the_family(
    architecture: str, reason: str, tiny_model: Build
) -> None:
    with pytest.raises(ValueError, match=f"{reason}; use the transformers runner"):
        LlamaModel(tiny_model(architecture), ToyTokenizer("ab"))


def test_sliding_attention_is_supported_for_rows_that_the_window_covers(tiny_model: Build) -> None:
    config = tiny_model("mistral").config
    assert unsupported(config, 4) is None
    assert unsupported(config, 5) is not None


# --- memory: what is reserved, refused and given back ---------------------------------------------------------------


def bytes_for(tiny_model: Build, num_tokens: int) -> int:
    """What the keys and values of so many tokens of the tiny Llama take."""
    config = tiny_model("llama").config
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * 4 * num_tokens)


def test_gang_waits_for_memory_and_gets_it_after_a_release(runner: str, checked: Build, tiny_model: Build) -> None:
    model = checked("llama", runner, cache_bytes=bytes_for(tiny_model, 64)).model
    assert model.num_free_pages == 4
    first = model.admit([[1] * 20, [2] * 10], 6)
    assert model.num_free_pages == 1
    with pytest.raises(base.NoRoom, match="up to 32 tokens are needed and 16 are free"):
        model.admit([[3] * 10], 20)
    assert (model.free_rows, model.num_free_pages) == (62, 1)
    model.release(first)
    model.release(first)
    assert model.num_free_pages == 4
    model.admit([[3] * 10], 20)


def test_gang_that_memory_never_holds_is_refused_with_the_remedy(
    runner: str, checked: Build, tiny_model: Build
) -> None:
    model = checked("llama", runner, cache_bytes=bytes_for(tiny_model, 64)).model
    with pytest.raises(
        base.PromptTooLong, match=r"may take 96 tokens, and there is memory for 64; .*raise cache_bytes"
    ):
        model.admit([[1] * 30, [2] * 30, [3] * 30], 2)
    assert (model.free_rows, model.num_free_pages) == (64, 4)


def test_cache_that_holds_no_page_is_refused_at_the_start(runner: str, checked: Build, tiny_model: Build) -> None:
    with pytest.raises(ValueError, match="16 tokens of one row take 2048 bytes"):
        checked("llama", runner, cache_bytes=bytes_for(tiny_model, 15))


def test_rows_that_begin_alike_take_the_memory_of_the_beginning_once(runner: str, checked: Build) -> None:
    model = checked("llama", runner).model
    free = model.num_free_pages
    model.admit([[*COMMON, number] for number in range(40, 44)], 1)
    assert free - model.num_free_pages == 2 + 4  # two common pages, and one of each row's own


def test_model_satisfies_the_protocol(runner: str, checked: Build) -> None:
    model = checked("llama", runner).model
    assert isinstance(model, base.LanguageModel)
    assert (model.vocab_size, model.numerics, model.runner) == (50, "float32", runner)
    assert (model.max_rows, model.free_rows, model.name, model.max_length) == (64, 64, "in-memory", 64)
    assert model.device == torch.device("cpu")

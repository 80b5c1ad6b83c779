"""The compiled forward pass: the same bits in any company, on any number of threads, for every width of vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokenauction.models import llama_compiled
from tokenauction.models.compiler import find_compiler, load_library
from tokenauction.models.llama import LlamaModel
from tokenauction.models.products import quantise
from tokenauction.models.toy import ToyTokenizer

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")

VOCAB_SIZE = 85
PROMPTS = [[3, 4, 5, 6, 7], list(range(10, 50)), [9]]


def network(**changes: Any) -> Any:
    """A Llama whose sizes are multiples of nothing."""
    sizes: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 36,
        "intermediate_size": 44,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "head_dim": 22,
        "max_position_embeddings": 128,
        "initializer_range": 0.2,
    }
    torch.manual_seed(1)
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**{**sizes, **changes}))


def model_of(hf: Any, runner: str = "cpp", numerics: str = "float32") -> LlamaModel:
    return LlamaModel(hf, ToyTokenizer("ab"), runner=runner, numerics=numerics)


def write(model: LlamaModel, prompts: list[list[int]], text: list[int]) -> Tensor:
    """The logits [tokens, rows, vocab] behind the prompts and behind every token of the text."""
    gang = model.admit(prompts, len(text))
    steps = [model.prefill([gang]), *(model.step([gang], torch.tensor([token])) for token in text)]
    model.release(gang)
    return torch.stack(steps)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads for the test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> LlamaModel:
    return model_of(network())


@pytest.mark.parametrize("numerics", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("num_others", [1, 4, 5, 11, 12, 30])
def test_rows_have_the_same_bits_alone_and_in_company(numerics: str, num_others: int) -> None:
    model = model_of(network(), numerics=numerics)
    [alone] = write(model, [PROMPTS[0]], [8]).transpose(0, 1)
    others = [[30 + number % 7] * (1 + number) for number in range(num_others)]
    together = write(model, [*others, PROMPTS[0]], [8])
    assert torch.equal(together[:, -1], alone)


def test_prompt_has_the_same_bits_read_at_once_in_parts_and_token_by_token(model: LlamaModel) -> None:
    prompt = PROMPTS[1]
    at_once = write(model, [prompt], [])[0]
    by_token = write(model, [prompt[:1]], prompt[1:])[-1]
    gang = model.admit([prompt], 0)
    while model.num_unread(gang) > 1:
        model.preload(gang, 7)
    in_parts = model.prefill([gang])
    model.release(gang)
    assert torch.equal(at_once, by_token)
    assert torch.equal(at_once, in_parts)


@pytest.mark.parametrize("num_threads", [2, 3, 8])
def test_number_of_threads_changes_no_bit(num_threads: int, model: LlamaModel, threads: Callable[[int], None]) -> None:
    threads(1)
    one = write(model, PROMPTS, [5, 6])
    threads(num_threads)
    assert torch.equal(write(model, PROMPTS, [5, 6]), one)


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [("-march=native",), ("-mavx2", "-mfma"), ("-O2",)], ids=["no threads", "avx2", "plain"]
)
def test_every_build_computes_the_same(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    native = [
        write(model_of(network(), numerics=numerics), PROMPTS, [5, 6]) for numerics in ("float32", "bf16", "int8")
    ]
    monkeypatch.setattr(llama_compiled, "load_library", lambda source: load_library(source, *flags))
    built = [write(model_of(network(), numerics=numerics), PROMPTS, [5, 6]) for numerics in ("float32", "bf16", "int8")]
    torch.testing.assert_close(built, native, atol=2e-5, rtol=0)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    num_heads=st.sampled_from([1, 2, 4, 6]),
    num_groups=st.sampled_from([1, 2]),
    head_width=st.sampled_from([2, 6, 16, 18, 32, 48, 64, 70, 80, 128]),
    width=st.integers(1, 20),
    mlp_width=st.integers(1, 140),
)
def test_logits_equal_the_plain_forward_for_any_sizes(
    num_heads: int, num_groups: int, head_width: int, width: int, mlp_width: int
) -> None:
    num_kv_heads = num_groups if num_heads % num_groups == 0 else 1
    hf = network(
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        head_dim=head_width,
        hidden_size=width * num_heads,
        intermediate_size=mlp_width,
    )
    logits = write(model_of(deepcopy(hf)), PROMPTS, [5, 6])
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            truth = hf(torch.tensor([[*prompt, 5, 6]])).logits[0, -3:]
        torch.testing.assert_close(logits[:, row], truth, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("numerics", ["bf16", "int8"])
def test_smaller_weights_give_the_logits_of_the_rounded_model(numerics: str) -> None:
    rounded = network()
    for name, parameter in rounded.named_parameters():
        if parameter.ndim != 2 or (numerics == "int8" and "embed" in name):
            continue
        if numerics == "bf16":
            parameter.data = parameter.data.bfloat16().float()
        else:
            whole, scale = quantise(parameter.data)
            parameter.data = whole.float() * scale[:, None]
    truth = write(model_of(rounded), PROMPTS, [5, 6])
    logits = write(model_of(network(), numerics=numerics), PROMPTS, [5, 6])
    torch.testing.assert_close(logits, truth, atol=5e-5, rtol=0)


@pytest.mark.parametrize("numerics", ["bf16", "int8"])
def test_packed_runner_computes_the_same_with_rounded_activations(numerics: str) -> None:
    compiled = write(model_of(network(), "cpp", numerics), PROMPTS, [5, 6])
    packed = write(model_of(network(), "packed", numerics), PROMPTS, [5, 6])
    assert ((packed - compiled).square().mean().sqrt() / compiled.std()).item() < 0.03


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=9))
def test_quantised_weights_are_off_by_half_a_scale_at_most(row: list[float]) -> None:
    weight = torch.tensor([row, [0.0] * len(row)])
    whole, scale = quantise(weight)
    assert torch.equal(scale.bfloat16().float(), scale)
    assert whole.abs().max() <= 127
    assert bool(((whole.float() * scale[:, None] - weight).abs() <= scale[:, None] * 0.5001).all())
    assert not whole[1].any()


def test_long_rows_reach_beyond_the_first_table_of_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_compiled, "_FIRST_ANGLES", 4)
    short_table = write(model_of(network()), PROMPTS, [5, 6])
    monkeypatch.undo()
    assert torch.equal(short_table, write(model_of(network()), PROMPTS, [5, 6]))

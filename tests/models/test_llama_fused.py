"""The fused forward pass against the one that is written out; without CUDA by Triton's interpreter."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch

from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_cuda import attention_over_slots
from tokenauction.models.llama_network import LlamaNetwork
from tokenauction.models.llama_weights import LlamaWeights
from tokenauction.models.token_batch import Keys

# The interpreter of older versions fails on a current numpy.
pytest.importorskip("triton", None if torch.cuda.is_available() else "3.7", reason="no Triton that computes here")

from tokenauction.models.llama_fused import FusedNetwork
from tokenauction.models.paged_attention import PagedAttention

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def step(network: LlamaNetwork, attention: Any) -> tuple[torch.Tensor, list[Keys]]:
    """Logits of three rows of different lengths, and the cache with their new keys and values."""
    shape, generator = network.shape, torch.Generator().manual_seed(3)
    size = (6 * PAGE_SIZE, shape.num_key_value_heads, shape.head_width)
    keys = [torch.randn(size, generator=generator).to(DEVICE, network.cache_dtype) for _ in range(2 * shape.num_layers)]
    cache = [Keys(*keys[place : place + 2]) for place in range(0, len(keys), 2)]
    pages = torch.tensor([[0, 1], [2, 3], [5, 4]], dtype=torch.int32, device=DEVICE)
    lengths = torch.tensor([0, 17, 30], device=DEVICE)
    slots = pages.gather(1, (lengths // PAGE_SIZE)[:, None])[:, 0].long() * PAGE_SIZE + lengths % PAGE_SIZE
    network.tabulate_angles(64)
    with torch.no_grad():
        ids = torch.tensor([4, 9, 20], device=DEVICE)
        return network.compute(ids, lengths, slots, cache, attention(pages, lengths + 1)), cache


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "llama-biased", "llama-one-head", "llama-yarn", "qwen2", "qwen3"])
def test_fused_pass_equals_the_one_that_is_written_out(architecture: str, tiny_model: Callable[..., Any]) -> None:
    weights = LlamaWeights.of(deepcopy(tiny_model(architecture)).to(DEVICE))
    truth, cache = step(LlamaNetwork(weights, "float32"), attention_over_slots)
    logits, fused_cache = step(FusedNetwork(weights, "float32"), PagedAttention)
    torch.testing.assert_close(logits, truth, atol=2e-5, rtol=0)
    for mine, theirs in zip(fused_cache, cache, strict=True):
        torch.testing.assert_close(mine.keys, theirs.keys, atol=2e-5, rtol=0)
        torch.testing.assert_close(mine.values, theirs.values, atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
def test_fused_pass_in_bf16_is_as_near_to_float32_as_the_one_that_is_written_out(
    architecture: str, tiny_model: Callable[..., Any]
) -> None:
    model = deepcopy(tiny_model(architecture)).to(DEVICE, torch.bfloat16)
    weights = LlamaWeights.of(model)
    truth, _ = step(LlamaNetwork(weights, "float32"), attention_over_slots)
    near = [
        ((logits - truth).square().mean().sqrt() / truth.std()).item()
        for logits in (
            step(LlamaNetwork(weights, "bf16"), attention_over_slots)[0],
            step(FusedNetwork(weights, "bf16"), PagedAttention)[0],
        )
    ]
    assert near[1] < max(0.02, 1.5 * near[0]), near

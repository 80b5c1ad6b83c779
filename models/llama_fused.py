"""The forward pass of the Llama family with what lies between its matrix products fused into three Triton kernels.

    add_normalise   x + δ, and its RMS norm
    turn            norms of queries and keys (Qwen3), rotation, keys and values to their slots
    gate            silu(gate)·up

A step of a few rows is bound by reading the weights; written out, the operations in between are some thirty launches a
layer, which take longer than that. `llama_network.LlamaNetwork` is the oracle: float32 inside, rounded to the model's
dtype where it rounds, but for the rotation, which is rounded once instead of three times. It imports Triton, so import
it only where there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from jaxtyping import Float, Float32, Int
from torch import Tensor

from tokenauction.models.llama_config import LlamaShape
from tokenauction.models.llama_network import Attention, LlamaNetwork
from tokenauction.models.llama_weights import Norms
from tokenauction.models.token_batch import Keys


@triton.jit
def _add_normalise(x, delta, scale, total, normed, width, eps, HAS_DELTA: tl.constexpr, BLOCK: tl.constexpr):
    """One token: x + δ, and weight · that / √(mean of squares + eps)."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, BLOCK)
    here = place < width
    dtype = normed.dtype.element_ty
    value = tl.load(x + token * width + place, mask=here, other=0.0).to(tl.float32)
    if HAS_DELTA:
        value += tl.load(delta + token * width + place, mask=here, other=0.0).to(tl.float32)
        value = value.to(dtype).to(tl.float32)
        tl.store(total + token * width + place, value.to(dtype), mask=here)
    value = value * (1.0 / tl.sqrt(tl.sum(value * value, 0) / width + eps))
    weight = tl.load(scale + place, mask=here, other=0.0).to(tl.float32)
    tl.store(normed + token * width + place, (weight * value.to(dtype).to(tl.float32)).to(dtype), mask=here)


@triton.jit
def _turn(
    heads, cos, sin, query_scale, key_scale, slots, queries, keys, values, eps,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, SIZE: tl.constexpr, HALF_PAD: tl.constexpr, HAS_NORM: tl.constexpr,
):  # fmt: skip
    """One head of one token: a query is turned and stored, a key is turned and goes to its slot, a value goes there."""
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    half = tl.arange(0, HALF_PAD)
    here = half < SIZE // 2
    dtype = queries.dtype.element_ty
    source = heads + (token * (QUERIES + 2 * KEYS) + head) * SIZE + half
    first = tl.load(source, mask=here, other=0.0).to(tl.float32)
    second = tl.load(source + SIZE // 2, mask=here, other=0.0).to(tl.float32)
    slot = tl.load(slots + token)
    is_query = head < QUERIES
    is_value = head >= QUERIES + KEYS
    if not is_value:
        if HAS_NORM:
            scale = 1.0 / tl.sqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / SIZE + eps)
            weights = (query_scale if is_query else key_scale) + half
            first = tl.load(weights, mask=here, other=0.0).to(tl.float32) * (first * scale).to(dtype).to(tl.float32)
            weight = tl.load(weights + SIZE // 2, mask=here, other=0.0).to(tl.float32)
            second = weight * (second * scale).to(dtype).to(tl.float32)
        across = tl.load(cos + token * SIZE + half, mask=here, other=0.0)
        along = tl.load(sin + token * SIZE + half, mask=here, other=0.0)
        turned = first * across - second * along
        second = second * across + first * along
        first = turned
    target = queries + (token * QUERIES + head) * SIZE
    if not is_query:
        target = keys + (slot * KEYS + head - QUERIES) * SIZE
    if is_value:
        target = values + (slot * KEYS + head - QUERIES - KEYS) * SIZE
    tl.store(target + half, first.to(dtype), mask=here)
    tl.store(target + SIZE // 2 + half, second.to(dtype), mask=here)


@triton.jit
def _gate(gate_up, gated, width, BLOCK: tl.constexpr):
    """silu(gate)·up of some entries of one token."""
    token = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    here = place < width
    dtype = gated.dtype.element_ty
    gate = tl.load(gate_up + token * 2 * width + place, mask=here, other=0.0).to(tl.float32)
    up = tl.load(gate_up + token * 2 * width + width + place, mask=here, other=0.0).to(tl.float32)
    opened = (gate / (1.0 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(gated + token * width + place, (opened * up).to(dtype), mask=here)


def add_normalise(
    x: Float[Tensor, "tokens width"], delta: Float[Tensor, "tokens width"] | None, scale: Tensor, eps: float
) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "tokens width"]]:
    """x + δ (x itself without one), and its RMS norm times `scale`."""
    num_tokens, width = x.shape
    assert x.is_contiguous() and (delta is None or delta.is_contiguous()), "tokens lie one behind the other"
    normed, total = torch.empty_like(x), x if delta is None else torch.empty_like(x)
    _add_normalise[(num_tokens,)](
        x, x if delta is None else delta, scale, total, normed, width, eps,
        HAS_DELTA=delta is not None, BLOCK=triton.next_power_of_2(width), num_warps=8 if width >= 2048 else 4,
    )  # fmt: skip
    return total, normed


def turn(
    heads: Float[Tensor, "tokens entries"],
    angles: tuple[Float32[Tensor, "tokens size"], Float32[Tensor, "tokens size"]],
    norms: Norms,
    slots: Int[Tensor, " tokens"],
    cached: Keys,
    shape: LlamaShape,
) -> Float[Tensor, "tokens heads size"]:
    """The queries, turned; keys and values are in their slots when it is done."""
    num_tokens, num_queries, num_keys, size = len(heads), shape.num_heads, shape.num_key_value_heads, shape.head_width
    assert heads.is_contiguous() and cached.keys.is_contiguous() and cached.values.is_contiguous(), "dense"
    assert angles[0].is_contiguous() and angles[1].is_contiguous() and slots.dtype == torch.int64, "as `_turn` reads"
    queries = heads.new_empty(num_tokens, num_queries, size)
    has_norm = norms.query is not None
    scales = (norms.query, norms.key) if has_norm else (heads, heads)
    _turn[(num_tokens, num_queries + 2 * num_keys)](
        heads, *angles, *scales, slots, queries, cached.keys, cached.values, shape.norm_eps,
        QUERIES=num_queries, KEYS=num_keys, SIZE=size, HALF_PAD=triton.next_power_of_2(size // 2), HAS_NORM=has_norm,
        num_warps=1,
    )  # fmt: skip
    return queries


def gate(gate_up: Float[Tensor, "tokens twice"]) -> Float[Tensor, "tokens width"]:
    """silu of the first half of every token's entries times the second half."""
    num_tokens, width = len(gate_up), gate_up.shape[1] // 2
    assert gate_up.is_contiguous(), "dense"
    gated = gate_up.new_empty(num_tokens, width)
    block = 1024
    _gate[(num_tokens, triton.cdiv(width, block))](gate_up, gated, width, BLOCK=block, num_warps=4)
    return gated


class FusedNetwork(LlamaNetwork):
    """`LlamaNetwork` on CUDA, in a third of the launches."""

    def compute(
        self,
        ids: Int[Tensor, " tokens"],
        positions: Int[Tensor, " tokens"],
        slots: Int[Tensor, " tokens"],
        cache: Sequence[Keys],
        attention: Attention,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float32[Tensor, "wanted vocab"]:
        """As `LlamaNetwork.compute`."""
        eps = self.shape.norm_eps
        angles = self._angles(positions)
        scales = [layer.norms.attention for layer in self._layers] + [self._norm]
        x, normed = add_normalise(F.embedding(ids, self._embedding), None, scales[0], eps)
        for layer, cached, following in zip(self._layers, cache, scales[1:], strict=True):
            queries = turn(layer.qkv(normed), angles, layer.norms, slots, cached, self.shape)
            mixed = attention(queries, cached)
            x, normed = add_normalise(x, layer.out(mixed.flatten(1)), layer.norms.mlp, eps)
            x, normed = add_normalise(x, layer.down(gate(layer.gate_up(normed))), following, eps)
        return self._head(normed if wanted is None else normed[wanted]).float()

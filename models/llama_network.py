"""The forward pass of the Llama family over pages of keys and values, written out; logits equal transformers'.

Tokens come flat, whichever rows they belong to; an `Attention` says which slots each of them looks at. Query, key and
value are one matrix product, and so are the MLP's gate and up. It must not know of gangs, prompts or pages' owners.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_config import LlamaShape


@dataclass(frozen=True)
class Keys:
    """The keys and values of one layer, a slot a token."""

    keys: Float[Tensor, "slots kv_heads size"]
    values: Float[Tensor, "slots kv_heads size"]


@dataclass(frozen=True)
class StepAttention:
    """One token a row; `slots` holds each row's slots in order, padded with any, `visible` which of them count."""

    slots: Int[Tensor, "rows columns"]
    visible: Bool[Tensor, "rows columns"]

    def __call__(self, queries: Float[Tensor, "tokens heads size"], cached: Keys) -> Float[Tensor, "tokens heads size"]:
        rows, columns = self.slots.shape
        flat = self.slots.flatten()
        keys, values = (x.index_select(0, flat).view(rows, columns, *x.shape[1:]) for x in (cached.keys, cached.values))
        mixed = F.scaled_dot_product_attention(
            queries.unsqueeze(2),
            keys.transpose(1, 2),
            values.transpose(1, 2),
            attn_mask=self.visible[:, None, None],
            enable_gqa=queries.shape[1] != keys.shape[2],
        )
        return mixed.squeeze(2)


@dataclass(frozen=True)
class PromptAttention:
    """Several tokens a row, row after row: (first and last token of the pass, all slots of the row up to the last)."""

    spans: Sequence[tuple[int, int, Int[Tensor, " _"]]]

    def __call__(self, queries: Float[Tensor, "tokens heads size"], cached: Keys) -> Float[Tensor, "tokens heads size"]:
        mixed = torch.empty_like(queries)
        for start, stop, slots in self.spans:
            keys, values = (x.index_select(0, slots).transpose(0, 1) for x in (cached.keys, cached.values))
            num_queries, num_keys = stop - start, len(slots)
            visible = torch.ones(num_queries, num_keys, dtype=torch.bool, device=slots.device).tril_(
                num_keys - num_queries
            )
            mixed[start:stop] = F.scaled_dot_product_attention(
                queries[start:stop].transpose(0, 1),
                keys,
                values,
                attn_mask=visible,
                enable_gqa=queries.shape[1] != keys.shape[0],
            ).transpose(0, 1)
        return mixed


Attention = StepAttention | PromptAttention  # softmax(q·k/√size)-weighted means of the values a token looks at


@dataclass(frozen=True)
class _Layer:
    """One layer's weights; matrices are [out, in] as in transformers, biases and norms of heads None where there are
    none."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None
    out: Tensor
    out_bias: Tensor | None
    mlp_norm: Tensor
    gate_up: Tensor
    gate_up_bias: Tensor | None
    down: Tensor
    down_bias: Tensor | None


class LlamaNetwork:
    """Weights and forward pass; takes its weights from a transformers model of the family and leaves that untouched."""

    def __init__(self, model: Any) -> None:
        self.shape = LlamaShape.of(model.config)
        inner = model.model
        self.embedding: Tensor = inner.embed_tokens.weight.detach()
        self.head: Tensor = model.lm_head.weight.detach()
        self.norm: Tensor = inner.norm.weight.detach()
        self.layers = [_take_layer(layer) for layer in inner.layers]
        self._rotary = inner.rotary_emb  # the architecture's own angles, scaled as its config says

    @property
    def device(self) -> torch.device:
        return self.embedding.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.dtype

    @property
    def bytes_per_token(self) -> int:
        """What the keys and values of one token of one row take in all layers."""
        shape = self.shape
        return 2 * shape.num_layers * shape.num_key_value_heads * shape.head_width * self.dtype.itemsize

    def new_cache(self, num_pages: int) -> list[Keys]:
        """Room for the keys and values of `num_pages` pages in every layer."""
        size = (num_pages * PAGE_SIZE, self.shape.num_key_value_heads, self.shape.head_width)
        return [Keys(self.embedding.new_zeros(size), self.embedding.new_zeros(size)) for _ in self.layers]

    def forward(
        self,
        ids: Int[Tensor, " tokens"],
        positions: Int[Tensor, " tokens"],
        slots: Int[Tensor, " tokens"],
        cache: Sequence[Keys],
        attention: Attention,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float32[Tensor, "wanted vocab"]:
        """Write each token's keys and values to its slot and return the logits behind `wanted` (all if left out)."""
        x = F.embedding(ids, self.embedding)
        cos, sin = (angles[0, :, None] for angles in self._rotary(x[None], positions[None]))  # [tokens, 1, size]
        for layer, cached in zip(self.layers, cache, strict=True):
            x = self._attend(x, layer, cached, cos, sin, slots, attention)
            h = self._normalise(x, layer.mlp_norm)
            gate, up = F.linear(h, layer.gate_up, layer.gate_up_bias).chunk(2, dim=-1)
            x = x + F.linear(F.silu(gate) * up, layer.down, layer.down_bias)
        if wanted is not None:
            x = x[wanted]
        return F.linear(self._normalise(x, self.norm), self.head).float()

    def _attend(
        self, x: Tensor, layer: _Layer, cached: Keys, cos: Tensor, sin: Tensor, slots: Tensor, attention: Attention
    ) -> Tensor:
        shape = self.shape
        num_tokens, num_rotated = len(x), shape.num_heads + shape.num_key_value_heads
        h = F.linear(self._normalise(x, layer.attention_norm), layer.qkv, layer.qkv_bias)
        heads = h.view(num_tokens, num_rotated + shape.num_key_value_heads, shape.head_width)
        rotated, values = heads[:, :num_rotated], heads[:, num_rotated:]
        if layer.query_norm is not None and layer.key_norm is not None:
            queries, keys = rotated[:, : shape.num_heads], rotated[:, shape.num_heads :]
            rotated = torch.cat(
                (self._normalise(queries, layer.query_norm), self._normalise(keys, layer.key_norm)), dim=1
            )
        rotated = rotated * cos + _rotate_half(rotated) * sin
        cached.keys.index_copy_(0, slots, rotated[:, shape.num_heads :])
        cached.values.index_copy_(0, slots, values)
        mixed = attention(rotated[:, : shape.num_heads], cached)
        return x + F.linear(mixed.reshape(num_tokens, -1), layer.out, layer.out_bias)

    def _normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm, computed in float32 as transformers does."""
        wide = x.float()
        scaled = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.shape.norm_eps)
        return weight * scaled.to(x.dtype)


def _rotate_half(x: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def _take_layer(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    qkv, qkv_bias = _fuse(attention.q_proj, attention.k_proj, attention.v_proj)
    gate_up, gate_up_bias = _fuse(mlp.gate_proj, mlp.up_proj)
    return _Layer(
        attention_norm=layer.input_layernorm.weight.detach(),
        qkv=qkv,
        qkv_bias=qkv_bias,
        query_norm=attention.q_norm.weight.detach() if hasattr(attention, "q_norm") else None,
        key_norm=attention.k_norm.weight.detach() if hasattr(attention, "k_norm") else None,
        out=attention.o_proj.weight.detach(),
        out_bias=_bias(attention.o_proj),
        mlp_norm=layer.post_attention_layernorm.weight.detach(),
        gate_up=gate_up,
        gate_up_bias=gate_up_bias,
        down=mlp.down_proj.weight.detach(),
        down_bias=_bias(mlp.down_proj),
    )


def _fuse(*linears: Any) -> tuple[Tensor, Tensor | None]:
    """The matrices one below the other; their biases too, with zeros for one that has none."""
    biases = [_bias(linear) for linear in linears]
    weight = torch.cat([linear.weight.detach() for linear in linears])
    if all(bias is None for bias in biases):
        return weight, None
    pairs = zip(biases, linears, strict=True)
    return weight, torch.cat([linear.weight.new_zeros(len(linear.weight)) if b is None else b for b, linear in pairs])


def _bias(linear: Any) -> Tensor | None:
    return None if linear.bias is None else linear.bias.detach()

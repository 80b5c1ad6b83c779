"""The forward pass of the Llama family over pages of keys and values, written out; logits equal transformers'.

Tokens come flat, whichever rows they belong to; an `Attention` says which slots each of them looks at. Query, key and
value are one matrix product, and so are the MLP's gate and up. It must not know of gangs, prompts or pages' owners.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from tokenauction.models.llama_weights import Angles, AngleTable, LayerWeights, LlamaWeights, Norms
from tokenauction.models.products import DTYPES, Product, product
from tokenauction.models.token_batch import Keys, TokenBatch


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


@runtime_checkable
class Attention(Protocol):
    """softmax(q·k/√size)-weighted means of the values a token looks at; its own are in the cache already."""

    def __call__(
        self, queries: Float[Tensor, "tokens heads size"], cached: Keys, /
    ) -> Float[Tensor, "tokens heads size"]: ...


class LlamaNetwork:
    """The forward pass in torch operations, on any device."""

    def __init__(self, weights: LlamaWeights, numerics: str) -> None:
        """Convert `weights` to `numerics` ("float32", "bf16", "int8") and prepare their products."""
        dtype = DTYPES[numerics]
        self.shape = weights.shape
        self._embedding = weights.embedding.to(dtype)
        self._layers = [_Layer.of(layer, numerics) for layer in weights.layers]
        self._norm = weights.norm.to(dtype)
        self._head = product(weights.head, numerics)
        self._angles: Angles | AngleTable = weights.angles

    @property
    def runner(self) -> str:
        return "packed" if self.device.type == "cpu" else self.device.type

    @property
    def device(self) -> torch.device:
        return self._embedding.device

    @property
    def cache_dtype(self) -> torch.dtype:
        return self._embedding.dtype

    def tabulate_angles(self, max_length: int) -> None:
        """Compute the angles of the positions below `max_length` once; later calls of `compute` look them up."""
        if isinstance(self._angles, Angles):
            self._angles = self._angles.tabulated(max_length, self.device)

    def forward(self, batch: TokenBatch, cache: Sequence[Keys]) -> Float32[Tensor, "wanted vocab"]:
        """Write the keys and values of the batch's tokens to their slots; the logits behind those that are wanted."""
        positions = torch.tensor(batch.positions(), device=self.device)
        row_slots = batch.row_slots()
        lengths = torch.tensor(batch.lengths, device=self.device)
        if batch.is_step:
            rows = torch.arange(len(lengths), device=self.device)
            attention: Attention = StepAttention(
                row_slots, torch.arange(row_slots.shape[1], device=self.device) < lengths[:, None]
            )
        else:
            rows = lengths.new_tensor(batch.counts)
            rows = torch.repeat_interleave(rows)
            stops = list(accumulate(batch.counts))
            spans = zip(stops, batch.counts, batch.lengths, row_slots, strict=True)
            attention = PromptAttention([(stop - count, stop, slots[:length]) for stop, count, length, slots in spans])
        is_all = sum(batch.num_wanted) == len(batch.ids)
        wanted = None if is_all else torch.tensor(batch.wanted(), dtype=torch.long, device=self.device)
        with torch.no_grad():
            return self.compute(batch.ids, positions, row_slots[rows, positions], cache, attention, wanted)

    def launch(self, batch: TokenBatch, cache: Sequence[Keys]) -> Callable[[], Float32[Tensor, "wanted vocab"]]:
        """`forward`, to be called."""
        return partial(self.forward, batch, cache)

    def compute(
        self,
        ids: Int[Tensor, " tokens"],
        positions: Int[Tensor, " tokens"],
        slots: Int[Tensor, " tokens"],
        cache: Sequence[Keys],
        attention: Attention,
        wanted: Int[Tensor, " wanted"] | None = None,
    ) -> Float32[Tensor, "wanted vocab"]:
        """The forward pass itself, tensors in and out; logits behind the tokens `wanted` (all if left out).

        With tabulated angles nothing in it waits for a GPU, so a CUDA graph can hold it.
        """
        x = F.embedding(ids, self._embedding)
        cos, sin = (angle.to(x.dtype)[:, None] for angle in self._angles(positions))  # [tokens, 1, size]
        sin = torch.cat((-sin[..., : sin.shape[-1] // 2], sin[..., sin.shape[-1] // 2 :]), dim=-1)
        for layer, cached in zip(self._layers, cache, strict=True):
            x = self._attend(x, layer, cached, cos, sin, slots, attention)
            gate, up = layer.gate_up(self._normalise(x, layer.norms.mlp)).chunk(2, dim=-1)
            x = x + layer.down(F.silu(gate) * up)
        if wanted is not None:
            x = x[wanted]
        return self._head(self._normalise(x, self._norm)).float()

    def _attend(
        self, x: Tensor, layer: _Layer, cached: Keys, cos: Tensor, sin: Tensor, slots: Tensor, attention: Attention
    ) -> Tensor:
        shape = self.shape
        num_tokens, num_rotated = len(x), shape.num_heads + shape.num_key_value_heads
        h = layer.qkv(self._normalise(x, layer.norms.attention))
        heads = h.view(num_tokens, num_rotated + shape.num_key_value_heads, shape.head_width)
        rotated, values = heads[:, :num_rotated], heads[:, num_rotated:]
        if layer.norms.query is not None and layer.norms.key is not None:
            queries, keys = rotated[:, : shape.num_heads], rotated[:, shape.num_heads :]
            pair = self._normalise(queries, layer.norms.query), self._normalise(keys, layer.norms.key)
            rotated = torch.cat(pair, dim=1)
        halves = rotated.view(*rotated.shape[:-1], 2, -1).flip(-2).flatten(-2)
        rotated = torch.addcmul(rotated * cos, halves, sin)
        cached.keys.index_copy_(0, slots, rotated[:, shape.num_heads :])
        cached.values.index_copy_(0, slots, values)
        mixed = attention(rotated[:, : shape.num_heads], cached)
        return x + layer.out(mixed.reshape(num_tokens, -1))

    def _normalise(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.shape.norm_eps)


@dataclass(frozen=True)
class _Layer:
    """One layer, ready to run."""

    norms: Norms
    qkv: Product
    out: Product
    gate_up: Product
    down: Product

    @classmethod
    def of(cls, layer: LayerWeights, numerics: str) -> _Layer:
        products = (product(affine, numerics) for affine in (layer.qkv, layer.out, layer.gate_up, layer.down))
        return cls(layer.norms.to(DTYPES[numerics]), *products)

"""The weights of a model of the Llama family as its runners take them: products of one input are fused.

They come from a transformers model, which is left as it is. It must not know how they are multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float32, Int
from torch import Tensor

from tokenauction.models.llama_config import LlamaShape

_Turn = Float32[Tensor, "tokens head_width"]


@dataclass(frozen=True)
class Norms:
    """The scales of one layer's RMS norms; those of heads are None where there are none."""

    attention: Tensor
    query: Tensor | None
    key: Tensor | None
    mlp: Tensor

    def to(self, dtype: torch.dtype) -> Norms:
        """The same in `dtype`."""
        query, key = (None if scale is None else scale.to(dtype) for scale in (self.query, self.key))
        return Norms(self.attention.to(dtype), query, key, self.mlp.to(dtype))


@dataclass(frozen=True)
class Affine:
    """One product: x ↦ x·weightᵀ + bias; `weight` is [out, in] as in transformers."""

    weight: Tensor
    bias: Tensor | None = None


@dataclass(frozen=True)
class LayerWeights:
    """One layer."""

    norms: Norms
    qkv: Affine
    out: Affine
    gate_up: Affine
    down: Affine


@dataclass(frozen=True)
class Angles:
    """How far queries and keys are turned at each position, by the architecture's own module and as its config says."""

    rotary: Any

    @torch.no_grad()
    def __call__(self, positions: Int[Tensor, " tokens"]) -> tuple[_Turn, _Turn]:
        """Cosines and sines in float32, every angle twice: both halves of a head are turned alike."""
        cos, sin = self.rotary(torch.empty(1, device=positions.device), positions[None])
        return cos[0], sin[0]

    def tabulated(self, max_length: int, device: torch.device) -> AngleTable:
        """The same for the positions below `max_length`, computed now."""
        return AngleTable(*self(torch.arange(max_length, device=device)))


@dataclass(frozen=True)
class AngleTable:
    """`Angles` by heart: what depends on positions is looked up on the device, so that a CUDA graph can hold it."""

    cos: _Turn
    sin: _Turn

    def __call__(self, positions: Int[Tensor, " tokens"]) -> tuple[_Turn, _Turn]:
        """As `Angles`."""
        return self.cos[positions], self.sin[positions]


@dataclass(frozen=True)
class LlamaWeights:
    """A whole model; the head's matrix is `embedding` itself where the two are tied."""

    shape: LlamaShape
    embedding: Tensor
    layers: list[LayerWeights]
    norm: Tensor
    head: Affine
    angles: Angles

    @classmethod
    def of(cls, model: Any) -> LlamaWeights:
        """The weights of a transformers model that `llama_config.unsupported` has no reason against."""
        inner = model.model
        return cls(
            shape=LlamaShape.of(model.config),
            embedding=inner.embed_tokens.weight.detach(),
            layers=[_take_layer(layer) for layer in inner.layers],
            norm=inner.norm.weight.detach(),
            head=_fuse(model.lm_head),
            angles=Angles(inner.rotary_emb),
        )


def _take_layer(layer: Any) -> LayerWeights:
    attention, mlp = layer.self_attn, layer.mlp
    return LayerWeights(
        norms=Norms(
            attention=layer.input_layernorm.weight.detach(),
            query=attention.q_norm.weight.detach() if hasattr(attention, "q_norm") else None,
            key=attention.k_norm.weight.detach() if hasattr(attention, "k_norm") else None,
            mlp=layer.post_attention_layernorm.weight.detach(),
        ),
        qkv=_fuse(attention.q_proj, attention.k_proj, attention.v_proj),
        out=_fuse(attention.o_proj),
        gate_up=_fuse(mlp.gate_proj, mlp.up_proj),
        down=_fuse(mlp.down_proj),
    )


def _fuse(*linears: Any) -> Affine:
    """The matrices one below the other; their biases too, with zeros for one that has none."""
    weights = [linear.weight.detach() for linear in linears]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    if all(linear.bias is None for linear in linears):
        return Affine(weight)
    biases = [linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias for linear in linears]
    return Affine(weight, torch.cat([bias.detach() for bias in biases]))

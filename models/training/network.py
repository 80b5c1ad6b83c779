"""The network that is trained: a Llama, written out; its weights export 1:1 to the transformers format.

It differs from decoding only in that rows are packed (positions and attention mask are given) and that logits are
computed for the positions that carry a loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The architecture of the shipped checkpoint."""

    vocab_size: int = 4096
    width: int = 256
    num_layers: int = 6
    num_heads: int = 4
    mlp_width: int = 640
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    max_length: int = 1024

    @property
    def head_width(self) -> int:
        return self.width // self.num_heads

    def to_transformers(self, begin_id: int, end_id: int) -> dict[str, object]:
        """The same shape as a transformers `LlamaConfig`, as JSON."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab_size,
            "hidden_size": self.width,
            "intermediate_size": self.mlp_width,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_heads,
            "head_dim": self.head_width,
            "hidden_act": "silu",
            "max_position_embeddings": self.max_length,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "bos_token_id": begin_id,
            "eos_token_id": end_id,
            "dtype": "float32",
        }


class Layer(nn.Module):
    """Attention and gated MLP, each behind an RMS norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width, inner = shape.width, shape.mlp_width
        self.input_layernorm = nn.Parameter(torch.ones(width))
        self.post_attention_layernorm = nn.Parameter(torch.ones(width))
        self.q_proj = nn.Parameter(torch.empty(width, width))
        self.k_proj = nn.Parameter(torch.empty(width, width))
        self.v_proj = nn.Parameter(torch.empty(width, width))
        self.o_proj = nn.Parameter(torch.empty(width, width))
        self.gate_proj = nn.Parameter(torch.empty(inner, width))
        self.up_proj = nn.Parameter(torch.empty(inner, width))
        self.down_proj = nn.Parameter(torch.empty(width, inner))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        h = _rms_norm(x, self.input_layernorm, self.shape.norm_eps)
        q, k, v = (
            F.linear(h, w).view(rows, tokens, self.shape.num_heads, -1).transpose(1, 2)
            for w in (self.q_proj, self.k_proj, self.v_proj)
        )
        a = F.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v, attn_mask=mask)
        x = x + F.linear(a.transpose(1, 2).reshape(rows, tokens, width), self.o_proj)
        h = _rms_norm(x, self.post_attention_layernorm, self.shape.norm_eps)
        return x + F.linear(F.silu(F.linear(h, self.gate_proj)) * F.linear(h, self.up_proj), self.down_proj)


class Network(nn.Module):
    """Tied embeddings, layers, a final norm."""

    def __init__(self, shape: Shape, seed: int) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Parameter(torch.empty(shape.vocab_size, shape.width))
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_layers))
        self.norm = nn.Parameter(torch.ones(shape.width))
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                std = 0.02 if name == "embed_tokens" else parameter.shape[1] ** -0.5
                scale = 0.2 if name.endswith(("o_proj", "down_proj")) else 1.0
                nn.init.normal_(parameter, 0.0, std * scale, generator=generator)

    def forward(self, ids: Tensor, positions: Tensor, mask: Tensor, wanted: Tensor) -> Tensor:
        """Logits [wanted, vocab] at the positions where `wanted` [rows, tokens] is True."""
        x = F.embedding(ids, self.embed_tokens)
        half = self.shape.head_width // 2
        frequencies = self.shape.rope_theta ** (-torch.arange(half, dtype=torch.float32) / half)
        angles = positions[:, None, :, None].float() * frequencies
        cos, sin = angles.cos(), angles.sin()
        bias = torch.zeros(mask.shape).masked_fill_(~mask, float("-inf"))
        for layer in self.layers:
            x = layer(x, cos, sin, bias)
        return F.linear(_rms_norm(x[wanted], self.norm, self.shape.norm_eps), self.embed_tokens)

    def compile_layers(self) -> None:
        """Fuse each layer's element-wise work; needs a C++ compiler."""
        for layer in self.layers:
            layer.compile(dynamic=True)

    def load_transformers(self, weights: Mapping[str, Tensor]) -> None:
        """Take over the weights of a checkpoint that `to_transformers` named; ValueError if it is of another shape."""
        mine = dict(self._named())
        if mine.keys() != weights.keys() or any(mine[name].shape != weights[name].shape for name in mine):
            raise ValueError("the checkpoint is of another architecture or size than this network")
        with torch.no_grad():
            for name, parameter in mine.items():
                parameter.copy_(weights[name])

    def to_transformers(self) -> dict[str, Tensor]:
        """Weights under the names of `LlamaForCausalLM`."""
        return {name: tensor.detach().clone().contiguous() for name, tensor in self._named()}

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        yield "model.embed_tokens.weight", self.embed_tokens
        yield "model.norm.weight", self.norm
        for number, layer in enumerate(self.layers):
            for name, parameter in layer.named_parameters():
                part = "self_attn." if name[:2] in ("q_", "k_", "v_", "o_") else ("mlp." if "proj" in name else "")
                yield f"model.layers.{number}.{part}{name}.weight", parameter


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)

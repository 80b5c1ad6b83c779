"""The forward passes of the Llama family, by the name of the runner; all of them have one interface.

It must not know of gangs, nor which runner is the best where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Protocol

import torch
from jaxtyping import Float32
from torch import Tensor

from tokenauction.models.llama_compiled import CompiledNetwork
from tokenauction.models.llama_config import LlamaShape
from tokenauction.models.llama_network import LlamaNetwork
from tokenauction.models.llama_weights import LlamaWeights
from tokenauction.models.token_batch import Keys, TokenBatch


class Network(Protocol):
    """A forward pass of the family; the same interface whatever code is behind it."""

    @property
    def shape(self) -> LlamaShape: ...

    @property
    def runner(self) -> str: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def cache_dtype(self) -> torch.dtype:
        """Of keys and values."""

    def launch(self, batch: TokenBatch, cache: Sequence[Keys]) -> Callable[[], Float32[Tensor, "wanted vocab"]]:
        """What is returned writes the keys and values of the batch's tokens to their slots and returns the logits
        behind those that are wanted; it is called once, in any thread, before any other."""


def has_triton() -> bool:
    """Whether the kernels for CUDA can be built."""
    return find_spec("triton") is not None


def _on_cuda(weights: LlamaWeights, numerics: str) -> LlamaNetwork:
    """Fused where there is Triton, which PyTorch brings along on Linux."""
    if not has_triton():
        return LlamaNetwork(weights, numerics)
    from tokenauction.models.llama_fused import FusedNetwork

    return FusedNetwork(weights, numerics)


NETWORKS: dict[str, Callable[[LlamaWeights, str], Network]] = {
    "cpp": CompiledNetwork,
    "packed": LlamaNetwork,
    "cuda": _on_cuda,
}

"""The forward pass of the Llama family as one call of compiled C++ (llama_step.cpp): the fastest on a CPU.

Weights are copied into the layout that it streams; activations, keys and values are float32 whatever the weights are.
It must not know of gangs, nor of prompts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float32
from torch import Tensor

from tokenauction.models.compiler import load_library
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_weights import Affine, LlamaWeights
from tokenauction.models.products import quantise
from tokenauction.models.token_batch import Keys, TokenBatch

SOURCE = Path(__file__).with_name("llama_step.cpp")
_KINDS = {"float32": (0, torch.float32), "bf16": (1, torch.bfloat16), "int8": (2, torch.int8)}
_ALIGNMENT = 64  # bytes: a cache line
_FIRST_ANGLES = 1024  # positions whose angles are computed at once, and twice as many whenever they do not do


class _Matrix(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("weights", "scale", "bias")),
        *((name, ctypes.c_int64) for name in ("num_outputs", "num_inputs")),
    )


class _Layer(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("attention_norm", "query_norm", "key_norm", "mlp_norm")),
        *((name, _Matrix) for name in ("qkv", "out", "gate_up", "down")),
    )


class _Network(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in "kind width num_layers num_heads num_kv_heads head_width".split()),
        *((name, ctypes.c_int64) for name in "mlp_width is_bf16_embedding".split()),
        ("norm_eps", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("embedding", "norm")),
        ("head", _Matrix),
        ("layers", ctypes.POINTER(_Layer)),
    )


class _Batch(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_int64) for name in ("num_tokens", "num_rows", "num_columns", "num_wanted")),
        *((name, ctypes.c_void_p) for name in ("ids", "counts", "lengths", "pages", "wanted", "cos", "sin", "cache")),
    )


class CompiledNetwork:
    """The forward pass of C++ on the CPU."""

    def __init__(self, weights: LlamaWeights, numerics: str) -> None:
        """Compile (once a machine) and lay out `weights` as "float32", "bf16" or "int8"; raises NotCompiled."""
        if weights.embedding.device.type != "cpu":
            raise ValueError(f"the runner cpp computes on the CPU, and the model is on {weights.embedding.device}")
        self._library = load_library(SOURCE)
        assert self._library.page_size() == PAGE_SIZE, "llama_step.cpp and kv_cache.py agree on the size of a page"
        self.shape = weights.shape
        self._packer = _Packer(self._library, weights, numerics)
        self._network = self._packer.network(weights)
        self._angles = weights.angles
        self._turns: tuple[Tensor, Tensor] = self._angles(torch.arange(_FIRST_ANGLES))

    @property
    def runner(self) -> str:
        return "cpp"

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")

    @property
    def cache_dtype(self) -> torch.dtype:
        return torch.float32

    def launch(self, batch: TokenBatch, cache: Sequence[Keys]) -> Callable[[], Float32[Tensor, "wanted vocab"]]:
        """What is returned writes the keys and values of the batch's tokens to their slots and returns the logits
        behind those that are wanted: one call of C++, which leaves Python to other threads."""
        cos, sin = self._reach(max(batch.lengths))
        wanted = batch.wanted()
        logits = torch.empty(len(wanted), self.shape.vocab_size)
        pointers = [pointer for layer in cache for pointer in (layer.keys.data_ptr(), layer.values.data_ptr())]
        ids, pages = batch.ids.contiguous(), batch.pages.contiguous()
        counts, lengths, places, cached = map(_int64s, (batch.counts, batch.lengths, wanted, pointers))
        passed = _Batch(
            *(len(ids), *pages.shape, len(wanted), ids.data_ptr(), ctypes.addressof(counts), ctypes.addressof(lengths)),
            *(pages.data_ptr(), ctypes.addressof(places), cos.data_ptr(), sin.data_ptr(), ctypes.addressof(cached)),
        )
        pointed_to = (ids, pages, counts, lengths, places, cached, cos, sin)  # which must live until all is computed
        numbers = ctypes.c_void_p(logits.data_ptr()), ctypes.c_int64(torch.get_num_threads())

        def compute() -> Tensor:
            self._library.forward(ctypes.byref(self._network), ctypes.byref(passed), *numbers)
            assert pointed_to
            return logits

        return compute

    def _reach(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of at least the first `length` positions."""
        if length > len(self._turns[0]):
            self._turns = self._angles(torch.arange(2 * length))
        return self._turns


class _Packer:
    """Copies weights into the C++ layout and keeps alive what is pointed to."""

    def __init__(self, library: ctypes.CDLL, weights: LlamaWeights, numerics: str) -> None:
        self._library = library
        self._kind, self._dtype = _KINDS[numerics]
        self._lanes = int(library.num_lanes())
        self._kept: list[Any] = []
        sizes = [self._num_bytes(affine) for affine in _matrices(weights)]
        self._buffer = torch.empty(sum(sizes) + _ALIGNMENT, dtype=torch.uint8)
        self._end = self._buffer.data_ptr() + -self._buffer.data_ptr() % _ALIGNMENT

    def network(self, weights: LlamaWeights) -> _Network:
        """The C++ side's view of the whole model."""
        shape = weights.shape
        layers = (_Layer * shape.num_layers)(
            *(
                _Layer(
                    *(self._floats(scale) for scale in (n.attention, n.query, n.key, n.mlp)),
                    *(self._matrix(affine) for affine in (layer.qkv, layer.out, layer.gate_up, layer.down)),
                )
                for layer in weights.layers
                for n in [layer.norms]
            )
        )
        embedding = weights.embedding.to(
            torch.bfloat16 if self._dtype == torch.bfloat16 else torch.float32
        ).contiguous()
        self._kept += [layers, embedding]
        return _Network(
            kind=self._kind,
            width=shape.width,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            num_kv_heads=shape.num_key_value_heads,
            head_width=shape.head_width,
            mlp_width=shape.mlp_width,
            is_bf16_embedding=embedding.dtype == torch.bfloat16,
            norm_eps=shape.norm_eps,
            embedding=embedding.data_ptr(),
            norm=self._floats(weights.norm),
            head=self._matrix(weights.head),
            layers=layers,
        )

    def _matrix(self, affine: Affine) -> _Matrix:
        weight, scale = quantise(affine.weight) if self._dtype == torch.int8 else (affine.weight.to(self._dtype), None)
        weight = weight.contiguous()
        num_outputs, num_inputs = weight.shape
        place = self._end
        self._end += self._num_bytes(affine)
        self._library.pack(
            ctypes.c_void_p(weight.data_ptr()),
            *map(ctypes.c_int64, (num_outputs, num_inputs, weight.itemsize)),
            ctypes.c_void_p(place),
        )
        return _Matrix(place, self._floats(scale), self._floats(affine.bias), num_outputs, num_inputs)

    def _floats(self, x: Tensor | None) -> int | None:
        """Where the numbers lie as float32; they stay there as long as this object does."""
        if x is None:
            return None
        self._kept.append(x.float().contiguous())
        return int(self._kept[-1].data_ptr())

    def _num_bytes(self, affine: Affine) -> int:
        num_outputs, num_inputs = affine.weight.shape
        size = (num_outputs + -num_outputs % self._lanes) * num_inputs * self._dtype.itemsize
        return size + -size % _ALIGNMENT


def _matrices(weights: LlamaWeights) -> Iterator[Affine]:
    for layer in weights.layers:
        yield from (layer.qkv, layer.out, layer.gate_up, layer.down)
    yield weights.head


def _int64s(numbers: Sequence[int]) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(numbers))(*numbers)

"""Matrix products with fixed weights: what a forward pass spends its time on, prepared once for each kind of number.

    float32   weights and activations in float32
    bf16      weights and activations in bfloat16
    int8      weights as 8-bit integers with one scale an output, activations in bfloat16

Which code multiplies follows from size, kind and device alone, never from a timing: two runs must not part by noise.
Large matrices on a CPU are laid out for oneDNN once (4 rows of a 32,000 × 288 product: 1.4 ms against F.linear's 2.5);
small ones, where that costs more than it saves, are left to F.linear.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int8
from torch import Tensor

from tokenauction.models.llama_weights import Affine

DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "int8": torch.bfloat16}  # of activations

_MIN_PACKED = 1 << 19  # entries of a float32 matrix from which on packing pays
_INT8_MULTIPLE = 32  # of which PyTorch's product with 8-bit weights wants both sides of the matrix
_PACKED_FOR = 16  # rows that the layout is made for; it serves any number

Product = Callable[[Float[Tensor, "*rows inputs"]], Float[Tensor, "*rows outputs"]]


def product(affine: Affine, numerics: str) -> Product:
    """x ↦ x·weightᵀ + bias in `numerics`, for x in DTYPES[numerics]."""
    if numerics == "int8":
        return _int8_product(affine)
    dtype = DTYPES[numerics]
    weight = affine.weight.to(dtype)
    bias = None if affine.bias is None else affine.bias.to(dtype)
    if weight.device.type == "cpu" and (dtype != torch.float32 or weight.numel() >= _MIN_PACKED):
        packed = _packed(weight)
        if packed is not None:
            return partial(_multiply_packed, packed=packed, bias=bias)
    return partial(F.linear, weight=weight, bias=bias)


def quantise(
    weight: Float[Tensor, "outputs inputs"],
) -> tuple[Int8[Tensor, "outputs inputs"], Float32[Tensor, " outputs"]]:
    """Round to whole multiples, -127 to 127, of each output's own scale, which bfloat16 holds exactly."""
    largest = weight.float().abs().amax(-1)
    scale = (largest / 127).bfloat16()
    scale = torch.where(scale.float() * 127 < largest, _next_bf16(scale), scale).float()
    scale = torch.where(scale > 0, scale, 1.0)
    return (weight.float() / scale[:, None]).round().to(torch.int8), scale


def _next_bf16(x: Tensor) -> Tensor:
    """The next larger bfloat16 of positive numbers."""
    return (x.view(torch.int16) + 1).view(torch.bfloat16)


def _packed(weight: Tensor) -> Any:
    """The matrix in oneDNN's own layout; None where this PyTorch has no such (private) operation."""
    try:
        if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
            return None
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR)
        _multiply_packed(weight.new_zeros(1, weight.shape[1]), packed, None)
        return packed
    except (AttributeError, RuntimeError):
        return None


def _multiply_packed(x: Tensor, packed: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, "none", [], "")
    return result


def _int8_product(affine: Affine) -> Product:
    whole, scale = quantise(affine.weight)
    bias = None if affine.bias is None else affine.bias.bfloat16()
    if any(size % _INT8_MULTIPLE for size in whole.shape):
        return partial(_multiply_rounded, weight=whole.float() * scale[:, None], bias=bias)
    return partial(_multiply_int8, whole=whole, scale=scale.bfloat16(), bias=bias)


def _multiply_int8(x: Tensor, whole: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    y = torch._weight_int8pack_mm(x, whole, scale)
    return y if bias is None else y + bias


def _multiply_rounded(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The same with the weights as float32, for sizes that PyTorch's operation reads beyond the end of."""
    y = F.linear(x.float(), weight).bfloat16()
    return y if bias is None else y + bias

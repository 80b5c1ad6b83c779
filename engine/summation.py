"""Sums whose bits depend on their own row alone: not on padding, on the rest of the batch, or on the number of threads.

A plain `Tensor.sum` splits one long row between threads when it is alone, and regroups a short row when it is padded;
either moves the last bit, and with it, now and then, a token. This file knows nothing of auctions.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 1024  # tokens a block; far below the size at which PyTorch shares one sum between threads


def sum_padded(x: Float[Tensor, "*rows short"]) -> Float[Tensor, "*rows"]:
    """Sum a short last axis strictly from left to right, so that zeros appended as padding change no bit."""
    return x.cumsum(-1)[..., -1]


def sum_blocks(x: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows blocks"]:
    """Sum the last axis in blocks of `BLOCK` entries; the last block may be shorter."""
    whole = x.shape[-1] // BLOCK * BLOCK
    blocks = x[..., :whole].reshape(*x.shape[:-1], whole // BLOCK, BLOCK).sum(-1)
    if whole == x.shape[-1]:
        return blocks
    return torch.cat([blocks, x[..., whole:].sum(-1, keepdim=True)], dim=-1)


def sum_tokens(x: Float[Tensor, "*rows vocab"]) -> Float[Tensor, "*rows"]:
    """Sum a long last axis, block by block."""
    return sum_blocks(x).sum(-1)

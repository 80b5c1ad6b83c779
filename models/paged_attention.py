"""Decode attention on a GPU: one token a row over its pages of keys and values, in one or two Triton kernels.

    mixed[row, head] = Σ_n softmax_n(q·k_n / √size) v_n,   n over the row's first `lengths[row]` tokens

Query heads that share a key head are one matrix. A row is cut into `num_splits` parts that are read at the same time
("split-KV": Dao et al., Flash-Decoding, 2023) and combined by their maxima and sums. Products take the keys' dtype and
add up in float32. Lengths and pages are read on the device: a captured call serves any of them.
`llama_network.StepAttention` computes the same and is the oracle. It must not know whose rows these are. It imports
Triton, so import it only where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int
from torch import Tensor

from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.token_batch import Keys

MAX_SPLITS = 32
PROGRAMS = 264  # aim at so many: two on each of an H100's 132 multiprocessors
_MIN_GROUP = 16  # rows of the smallest matrix that tensor cores multiply
_BLOCK = 64  # tokens read at a time


@triton.jit
def _attend(
    queries, keys, values, pages, lengths, mixed, parts, tops, sums,
    query_stride, key_stride, page_stride, scale,
    GROUP: tl.constexpr, SIZE: tl.constexpr, SPLITS: tl.constexpr, PAGE: tl.constexpr,
    GROUP_PAD: tl.constexpr, SIZE_PAD: tl.constexpr, BLOCK: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One part of one row for the query heads of one key head."""
    row = tl.program_id(0).to(tl.int64)
    key_head = tl.program_id(1)
    split = tl.program_id(2)
    num_heads = tl.num_programs(1) * GROUP
    group = tl.arange(0, GROUP_PAD)
    size = tl.arange(0, SIZE_PAD)
    heads = key_head * GROUP + group
    is_entry = (group < GROUP)[:, None] & (size < SIZE)[None, :]
    places = row * query_stride + heads[:, None] * SIZE + size[None, :]
    query = tl.load(queries + places, mask=is_entry, other=0.0)
    if WIDE:
        query = query.to(tl.float32)

    length = tl.load(lengths + row).to(tl.int32)
    span = tl.cdiv(tl.cdiv(length, SPLITS), BLOCK) * BLOCK
    start = split * span
    stop = tl.minimum(start + span, length)
    top = tl.full([GROUP_PAD], float("-inf"), tl.float32)
    total = tl.zeros([GROUP_PAD], tl.float32)
    mean = tl.zeros([GROUP_PAD, SIZE_PAD], tl.float32)
    for first in range(start, stop, BLOCK):
        token = first + tl.arange(0, BLOCK)
        is_token = token < stop
        page = tl.load(pages + row * page_stride + token // PAGE, mask=is_token, other=0).to(tl.int64)
        slot = page * PAGE + token % PAGE  # int64: slots times entries pass 2^31
        here = slot[:, None] * key_stride + key_head * SIZE + size[None, :]
        is_here = is_token[:, None] & (size < SIZE)[None, :]
        key = tl.load(keys + here, mask=is_here, other=0.0)
        value = tl.load(values + here, mask=is_here, other=0.0)
        if WIDE:  # Triton's interpreter, for tensors on a CPU, has no product of bf16
            key, value = key.to(tl.float32), value.to(tl.float32)
        score = tl.dot(query, tl.trans(key), input_precision="ieee") * scale
        score = tl.where(is_token[None, :], score, float("-inf"))
        higher = tl.maximum(top, tl.max(score, 1))  # finite: a block has at least one token
        weight = tl.exp(score - higher[:, None])
        fade = tl.exp(top - higher)
        total = total * fade + tl.sum(weight, 1)
        mean = mean * fade[:, None] + tl.dot(weight.to(value.dtype), value, input_precision="ieee")
        top = higher
    if SPLITS == 1:
        out = (row * num_heads + heads[:, None]) * SIZE + size[None, :]
        tl.store(mixed + out, (mean / total[:, None]).to(mixed.dtype.element_ty), mask=is_entry)
    else:
        part = (row * num_heads + heads) * SPLITS + split
        tl.store(tops + part, top, mask=group < GROUP)
        tl.store(sums + part, total, mask=group < GROUP)
        tl.store(parts + part[:, None] * SIZE + size[None, :], mean, mask=is_entry)


@triton.jit
def _combine(
    mixed, parts, tops, sums,
    SIZE: tl.constexpr, SPLITS: tl.constexpr, SPLITS_PAD: tl.constexpr, SIZE_PAD: tl.constexpr,
):  # fmt: skip
    """The parts of one head of one row become one; a part without tokens has the maximum -inf and counts nothing."""
    head = tl.program_id(0).to(tl.int64)
    split = tl.arange(0, SPLITS_PAD)
    size = tl.arange(0, SIZE_PAD)
    part = head * SPLITS + split
    top = tl.load(tops + part, mask=split < SPLITS, other=float("-inf"))
    fade = tl.exp(top - tl.max(top, 0))
    total = tl.sum(fade * tl.load(sums + part, mask=split < SPLITS, other=0.0), 0)
    is_entry = (split < SPLITS)[:, None] & (size < SIZE)[None, :]
    mean = tl.load(parts + part[:, None] * SIZE + size[None, :], mask=is_entry, other=0.0)
    result = tl.sum(fade[:, None] * mean, 0) / total
    tl.store(mixed + head * SIZE + size, result.to(mixed.dtype.element_ty), mask=size < SIZE)


@dataclass(frozen=True)
class PagedAttention:
    """An attention of `LlamaNetwork.compute` for rows with one new token each, whose keys are in the cache already."""

    pages: Int[Tensor, "rows columns"]  # int32; what lies beyond a row's length is never read
    lengths: Int[Tensor, " rows"]  # tokens to look at, the new one among them: at least 1

    def __call__(self, queries: Float[Tensor, "rows heads size"], cached: Keys) -> Float[Tensor, "rows heads size"]:
        """The means of the values that each query looks at; `queries` may be a slice of heads of a wider tensor."""
        num_rows, num_heads, size = queries.shape
        num_key_heads = cached.keys.shape[1]
        group = num_heads // num_key_heads
        num_splits = splits_for(num_rows * num_key_heads)
        mixed = queries.new_empty(num_rows, num_heads, size)
        shape = (num_rows, num_heads, num_splits) if num_splits > 1 else (0, 0, 0)
        parts = mixed.new_empty(*shape, size, dtype=torch.float32)
        tops, sums = (mixed.new_empty(shape, dtype=torch.float32) for _ in range(2))
        assert queries.stride()[1:] == (size, 1), "the heads of a row lie one behind the other"
        assert cached.keys.stride() == cached.values.stride() == (num_key_heads * size, size, 1), "a cache is dense"
        _attend[(num_rows, num_key_heads, num_splits)](
            queries, cached.keys, cached.values, self.pages, self.lengths, mixed, parts, tops, sums,
            queries.stride(0), cached.keys.stride(0), self.pages.stride(0), size**-0.5,
            GROUP=group, SIZE=size, SPLITS=num_splits, PAGE=PAGE_SIZE,
            GROUP_PAD=max(_MIN_GROUP, triton.next_power_of_2(group)), SIZE_PAD=max(16, triton.next_power_of_2(size)),
            BLOCK=_BLOCK, WIDE=not queries.is_cuda, num_warps=4, num_stages=2,
        )  # fmt: skip
        if num_splits > 1:
            _combine[(num_rows * num_heads,)](
                mixed, parts, tops, sums,
                SIZE=size, SPLITS=num_splits, SPLITS_PAD=triton.next_power_of_2(num_splits),
                SIZE_PAD=triton.next_power_of_2(size), num_warps=1,
            )  # fmt: skip
        return mixed


def splits_for(num_programs: int) -> int:
    """Into how many parts a row is cut where unsplit rows are so many programs: enough to occupy the device.

    It depends on shapes alone, so that a captured call stays right however long its rows grow.
    """
    return max(1, min(MAX_SPLITS, -(-PROGRAMS // num_programs)))

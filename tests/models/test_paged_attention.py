"""The paged attention kernel against `StepAttention` in float32; without CUDA by Triton's interpreter."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_cuda import attention_over_slots
from tokenauction.models.token_batch import Keys

# The interpreter of older versions fails on a current numpy.
pytest.importorskip("triton", None if torch.cuda.is_available() else "3.7", reason="no Triton that computes here")

from tokenauction.models import paged_attention
from tokenauction.models.paged_attention import MAX_SPLITS, PagedAttention, splits_for

DEVICES = [
    "cpu" if not torch.cuda.is_available() else pytest.param("cuda", marks=pytest.mark.gpu),
]
NUM_KEY_HEADS, NUM_COLUMNS = 2, 12
LENGTHS = (1, 15, 16, 65, NUM_COLUMNS * PAGE_SIZE)


def parts(size: int, group: int, dtype: torch.dtype, device: str) -> tuple[Any, ...]:
    """Queries that are a slice of wider rows, a cache, pages in any order, lengths from 1 to all."""
    generator = torch.Generator().manual_seed(size + group)
    num_rows, num_slots = len(LENGTHS), len(LENGTHS) * NUM_COLUMNS * PAGE_SIZE
    normal = lambda *shape: torch.randn(*shape, generator=generator).to(device, dtype)  # noqa: E731
    queries = normal(num_rows, (group + 2) * NUM_KEY_HEADS, size)[:, : group * NUM_KEY_HEADS]
    cache = Keys(normal(num_slots, NUM_KEY_HEADS, size), normal(num_slots, NUM_KEY_HEADS, size))
    pages = torch.randperm(num_rows * NUM_COLUMNS, generator=generator).view(num_rows, NUM_COLUMNS).int().to(device)
    return queries, cache, pages, torch.tensor(LENGTHS, device=device)


def compare(size: int, group: int, dtype: torch.dtype, device: str) -> None:
    queries, cache, pages, lengths = parts(size, group, dtype, device)
    mixed = PagedAttention(pages, lengths)(queries, cache)
    truth = attention_over_slots(pages, lengths)(queries.float(), Keys(cache.keys.float(), cache.values.float()))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-2
    assert mixed.dtype == dtype
    torch.testing.assert_close(mixed.float(), truth, atol=tolerance, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bf16"])
@pytest.mark.parametrize(("size", "group"), [(64, 4), (80, 1), (96, 3), (128, 8), (8, 2)])
def test_paged_attention_equals_its_oracle_for_every_head_width(
    size: int, group: int, dtype: torch.dtype, device: str
) -> None:
    compare(size, group, dtype, device)


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num_splits", [1, 2, 3, 7])
def test_paged_attention_is_the_same_in_any_number_of_parts(
    num_splits: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paged_attention, "splits_for", lambda num_programs: num_splits)
    compare(16, 2, torch.float32, device)


def test_rows_are_cut_into_fewer_parts_the_more_there_are() -> None:
    splits = [splits_for(num_rows * 8) for num_rows in range(1, 200)]
    assert splits == sorted(splits, reverse=True)
    assert (splits[0], splits[-1]) == (MAX_SPLITS, 1)

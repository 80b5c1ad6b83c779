"""Steps from device tensors alone against the runner's own steps; on a CPU, where the same functions run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tokenauction.models import base
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_cuda import DeviceLlama
from tokenauction.models.toy import ToyTokenizer

PROMPTS = [list(range(3, 3 + PAGE_SIZE + 3)), [40, 41], [*range(3, 3 + PAGE_SIZE), 42]]


@pytest.fixture
def new_model(tiny_model: Callable[..., Any]) -> Callable[..., DeviceLlama]:
    """`new_model(architecture, **options)`: a runner that steps from device tensors, on a CPU."""
    return lambda architecture="llama", **options: DeviceLlama(
        tiny_model(architecture), ToyTokenizer("ab"), runner="packed", **options
    )


@pytest.mark.parametrize("architecture", ["llama", "llama-yarn", "qwen3"])
def test_decode_gives_the_logits_of_step(architecture: str, new_model: Callable[..., DeviceLlama]) -> None:
    oracle, model = new_model(architecture), new_model(architecture)
    gangs = [each.admit(PROMPTS, 2 * PAGE_SIZE) for each in (oracle, model)]
    for each, gang in zip((oracle, model), gangs, strict=True):
        each.prefill([gang])
    spare = model.spare_page
    lengths = torch.tensor([*map(len, PROMPTS), 0])
    pages = torch.full((4, model.num_columns), spare, dtype=torch.int32)  # and a row of nobody
    for token in range(2 * PAGE_SIZE - 1):
        places = torch.tensor([*model.grow([gangs[1]]), spare], dtype=torch.int32)
        for row, table in enumerate(model.pages_of(gangs[1])):
            pages[row, : len(table)] = torch.tensor(table, dtype=torch.int32)
        assert torch.equal(pages.gather(1, (lengths // PAGE_SIZE)[:, None])[:, 0], places)
        logits = model.decode(torch.tensor([token] * 4), lengths, pages)
        truth = oracle.step([gangs[0]], torch.tensor([token]))
        torch.testing.assert_close(logits[:3], truth, atol=2e-5, rtol=0)
        lengths[:3] += 1
    assert gangs[1].num_tokens == gangs[0].num_tokens


def test_growing_beyond_the_memory_is_refused_and_changes_nothing(new_model: Callable[..., DeviceLlama]) -> None:
    page_bytes = 2 * 2 * 2 * 4 * 4 * PAGE_SIZE
    model = new_model(cache_bytes=5 * page_bytes)
    gangs = [model.admit([[1] * (PAGE_SIZE - 1)], PAGE_SIZE + 2) for _ in range(2)]
    model.prefill(gangs)
    model.grow(gangs)
    model.grow(gangs)
    late = model.num_free_pages
    assert late == 0
    for _ in range(PAGE_SIZE - 1):
        model.grow(gangs)
    before = [gang.num_tokens for gang in gangs], [model.pages_of(gang) for gang in gangs]
    with pytest.raises(base.NoRoom, match="2 rows need more than the 0 free tokens"):
        model.grow(gangs)
    assert ([gang.num_tokens for gang in gangs], [model.pages_of(gang) for gang in gangs]) == before


def test_spare_page_is_never_given_out(new_model: Callable[..., DeviceLlama]) -> None:
    model = new_model(cache_bytes=2 * 2 * 2 * 4 * 4 * PAGE_SIZE * 5)
    gang = model.admit([[1] * PAGE_SIZE] * 2, PAGE_SIZE)
    model.prefill([gang])
    model.grow([gang])
    assert model.num_free_pages == 0
    assert model.spare_page not in [page for row in model.pages_of(gang) for page in row]


def test_device_llama_satisfies_the_protocol(new_model: Callable[..., DeviceLlama]) -> None:
    assert isinstance(new_model(), base.DeviceModel)

"""Which auctions run: whole gangs, first come first served, bounded reading, the youngest gives way, nobody starves.

The model is a tiny Llama with random weights, whose memory is as small as a test wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from torch import Tensor

from tokenauction.engine.scheduler import Scheduler
from tokenauction.models.base import Gang, PromptTooLong
from tokenauction.models.compiler import find_compiler
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama import LlamaModel
from tokenauction.models.toy import ToyTokenizer

RUNNER = "packed" if find_compiler() is None else "cpp"
VOCAB_SIZE, WIDTH, LAYERS = 40, 16, 2
PAGE_BYTES = 2 * LAYERS * WIDTH * 4 * PAGE_SIZE


def model_of(num_pages: int, max_rows: int = 64) -> LlamaModel:
    """A model whose memory holds so many pages."""
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    torch.manual_seed(0)
    network: Any = transformers.LlamaForCausalLM(config)
    return LlamaModel(network, ToyTokenizer("ab"), runner=RUNNER, max_rows=max_rows, cache_bytes=num_pages * PAGE_BYTES)


@dataclass(eq=False)
class Line:
    """An auction as the scheduler sees it; its next token follows from its logits."""

    name: int
    prompts: Sequence[Sequence[int]]
    max_tokens: int
    token_ids: list[int] = field(default_factory=list)
    gang: Gang | None = None
    is_elsewhere: bool = False
    is_held: bool = False

    @property
    def num_tokens_left(self) -> int:
        return self.max_tokens - len(self.token_ids)


def line(name: int, num_rows: int = 2, num_prompt_tokens: int = 10, max_tokens: int = 4) -> Line:
    return Line(name, [[3 + name, 5 + row, *[7] * (num_prompt_tokens - 2)] for row in range(num_rows)], max_tokens)


def step(scheduler: Scheduler[Line]) -> list[int]:
    """One step, its tokens drawn; the names of those that got one."""
    assert scheduler.admit() == []
    lines, logits = scheduler.step()
    names = [each.name for each in lines]
    for each in lines:
        rows, logits = logits[: len(each.prompts)], logits[len(each.prompts) :]
        each.token_ids.append(next_token(rows))
        if not each.num_tokens_left:
            scheduler.remove(each)
    assert not len(logits)
    return names


def next_token(rows: Float[Tensor, "rows vocab"]) -> int:
    """Any function of the logits' very bits."""
    return int(rows.sum(0).view(torch.int32).sum()) % 10


def names_of(lines: Sequence[Line]) -> list[int]:
    return [each.name for each in lines]


def test_whole_gangs_join_in_order_as_rows_come_free() -> None:
    scheduler = Scheduler[Line](model_of(99, max_rows=6))
    scheduler.waiting.extend([line(0, 3), line(1, 2), line(2, 4), line(3, 1)])
    assert [step(scheduler) for _ in range(4)] == [[0, 1]] * 4
    assert names_of(scheduler.waiting) == [2, 3]
    assert step(scheduler) == [2, 3]


def test_no_small_auction_overtakes_a_large_one() -> None:
    scheduler = Scheduler[Line](model_of(99, max_rows=4))
    scheduler.waiting.extend([line(0, 2), line(1, 3), line(2, 1)])
    assert [step(scheduler) for _ in range(5)] == [[0], [0], [0], [0], [1, 2]]


def test_auctions_keep_their_pace_while_a_long_prompt_is_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler[Line](model_of(99), max_prefill_tokens=20)
    scheduler.waiting.extend([line(0, max_tokens=9)])
    step(scheduler)
    scheduler.waiting.extend([line(1, 2, num_prompt_tokens=30), line(2)])
    sizes = sizes_of_passes(scheduler.model, monkeypatch)
    assert [step(scheduler) for _ in range(5)] == [[0], [0], [0, 1], [0, 1, 2], [0, 1, 2]]
    assert sizes == [2, 20, 2, 9, 11, 2, 20, 4, 20, 6]  # the rows that run, then what is read beside them


def sizes_of_passes(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens each forward pass has from now on."""
    sizes: list[int] = []
    launch = model._network.launch

    def measured(batch: Any, cache: Any) -> Any:
        sizes.append(len(batch.ids))
        return launch(batch, cache)

    monkeypatch.setattr(model._network, "launch", measured)
    return sizes


def test_while_nobody_runs_the_bound_is_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = Scheduler[Line](model_of(99), max_prefill_tokens=20)
    scheduler.waiting.extend([line(0, 2, num_prompt_tokens=60)])
    assert step(scheduler) == [0]


def test_the_youngest_gives_way_when_memory_is_short_and_comes_back_first() -> None:
    scheduler = Scheduler[Line](model_of(6))
    scheduler.waiting.extend(line(name, 1, num_prompt_tokens=15, max_tokens=40) for name in range(3))
    seen = [step(scheduler) for _ in range(40)]
    assert seen[0] == [0, 1, 2]
    assert scheduler.num_preemptions > 0
    assert all(0 in names for names in seen), "the first is never interrupted"
    order: list[int] = []
    while scheduler.has_work:
        order += [name for name in step(scheduler) if name not in order]
    assert order == [1, 2]


@pytest.mark.skipif(RUNNER != "cpp", reason="asks for the very bits, which only the compiled runner promises")
def test_an_auction_that_was_sent_away_goes_on_as_if_nothing_had_happened() -> None:
    lines = [line(name, 2, num_prompt_tokens=20, max_tokens=40) for name in range(4)]
    crowded = run(model_of(16), lines)
    assert crowded.num_preemptions > 0
    for each in lines:
        alone = line(each.name, 2, num_prompt_tokens=20, max_tokens=40)
        run(model_of(16), [alone])
        assert alone.token_ids == each.token_ids


def run(model: LlamaModel, lines: Sequence[Line]) -> Scheduler[Line]:
    scheduler = Scheduler[Line](model, max_prefill_tokens=24)
    scheduler.waiting.extend(lines)
    while scheduler.has_work:
        step(scheduler)
    return scheduler


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_everybody_is_served_whatever_comes(data: st.DataObject) -> None:
    scheduler = Scheduler[Line](model_of(data.draw(st.integers(10, 24)), max_rows=8), max_prefill_tokens=24)
    sizes = st.tuples(st.integers(1, 3), st.integers(2, 30), st.integers(1, 20))
    lines = [line(name, *size) for name, size in enumerate(data.draw(st.lists(sizes, max_size=8)))]
    for each in lines:
        scheduler.waiting.append(each)
        if data.draw(st.booleans()):
            step(scheduler)
    num_steps = 0
    while scheduler.has_work:
        if data.draw(st.integers(0, 20)) == 0:
            gone = data.draw(st.sampled_from(scheduler.everybody()))
            scheduler.remove(gone)
            gone.max_tokens = len(gone.token_ids)
            continue
        names = step(scheduler)
        assert names == sorted(names), "the order of coming is kept"
        num_steps += 1
        assert num_steps < 1000
    assert all(not each.num_tokens_left and each.gang is None for each in lines)
    model: Any = scheduler.model
    assert (model.free_rows, model.num_free_pages) == (8, model._pages.num_pages)


def test_removing_an_auction_frees_its_rows_and_its_memory_at_once() -> None:
    model = model_of(99)
    scheduler = Scheduler[Line](model)
    auction = line(0)
    scheduler.waiting.append(auction)
    step(scheduler)
    assert model.num_free_pages < 99
    scheduler.remove(auction)
    assert (model.num_free_pages, model.free_rows, scheduler.has_work) == (99, 64, False)


def test_an_auction_that_memory_never_holds_fails_and_holds_up_nobody() -> None:
    scheduler = Scheduler[Line](model_of(4))
    large, small = line(0, 2, max_tokens=100), line(1)
    scheduler.waiting.extend([large, small])
    [(failed, error)] = scheduler.admit()
    assert failed is large
    assert isinstance(error, PromptTooLong)
    assert step(scheduler) == [1]


def test_a_model_that_reads_only_whole_prompts_goes_beyond_the_bound_one_auction_a_step(
    world: Callable[..., Any],
) -> None:
    scheduler = Scheduler[Line](world().decoder.model, max_prefill_tokens=5)
    scheduler.waiting.append(line(0))
    assert step(scheduler) == [0]
    scheduler.waiting.extend([line(1), line(2)])
    assert step(scheduler) == [0, 1]
    assert step(scheduler) == [0, 1, 2]

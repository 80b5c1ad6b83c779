"""Which auctions join: whole gangs, first come first served, bounded prefill, nobody starves."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.scheduler import MAX_PREFILL_TOKENS, Scheduler


@dataclass(frozen=True)
class Waiting:
    name: int
    num_rows: int
    num_prompt_tokens: int = 10


def scheduler_of(*waiting: Waiting) -> Scheduler[Waiting]:
    scheduler: Scheduler[Waiting] = Scheduler()
    scheduler.waiting.extend(waiting)
    return scheduler


def test_scheduler_lets_whole_gangs_join_in_order() -> None:
    scheduler = scheduler_of(Waiting(0, 3), Waiting(1, 2), Waiting(2, 4))
    assert [w.name for w in scheduler.next_to_join(free_rows=6)] == [0, 1]
    assert [w.name for w in scheduler.waiting] == [2]


def test_scheduler_lets_no_small_auction_overtake_a_large_one() -> None:
    scheduler = scheduler_of(Waiting(0, 4), Waiting(1, 1))
    assert scheduler.next_to_join(free_rows=3) == []
    assert [w.name for w in scheduler.next_to_join(free_rows=5)] == [0, 1]


def test_scheduler_bounds_the_prompt_tokens_of_one_step_but_never_blocks_a_single_auction() -> None:
    scheduler = scheduler_of(Waiting(0, 1, MAX_PREFILL_TOKENS * 3), Waiting(1, 1, 10))
    assert [w.name for w in scheduler.next_to_join(free_rows=10)] == [0]
    assert [w.name for w in scheduler.next_to_join(free_rows=10)] == [1]


@given(st.lists(st.integers(1, 8), max_size=20), st.integers(8, 16))
def test_scheduler_serves_everybody_in_order_when_rows_come_free(sizes: list[int], rows: int) -> None:
    scheduler = scheduler_of(*(Waiting(i, size) for i, size in enumerate(sizes)))
    served = []
    while scheduler.has_work:
        joining = scheduler.next_to_join(rows)
        assert sum(w.num_rows for w in joining) <= rows
        served += [w.name for w in joining]
    assert served == list(range(len(sizes)))


def test_scheduler_takes_back_whoever_could_not_join_in_front_of_the_rest() -> None:
    scheduler = scheduler_of(*(Waiting(i, 1) for i in range(4)))
    joining = scheduler.next_to_join(free_rows=3)
    scheduler.put_back(joining[1:])
    assert [w.name for w in scheduler.waiting] == [1, 2, 3]

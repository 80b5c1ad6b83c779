"""Pages: what is reserved, shared, written and given back, checked against a plain count of who holds what."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.models.base import NoRoom, PromptTooLong
from tokenauction.models.kv_cache import PAGE_SIZE, PageTable, Row
from tokenauction.models.token_batch import TokenBatch

BEGINNING = list(range(100, 100 + 3 * PAGE_SIZE))


def reserve(table: PageTable, *prompts: list[int], room: int = 1) -> list[Row]:
    rows = table.reserve(prompts, room)
    assert rows is not None
    return rows


def test_rows_share_the_full_pages_of_a_common_beginning() -> None:
    table = PageTable(20)
    a, b, c = reserve(table, [*BEGINNING, 1], [*BEGINNING, 2], [*BEGINNING[:-1], 3])
    assert a.pages[:3] == b.pages[:3]
    assert a.pages[:2] == c.pages[:2]
    assert len({a.pages[3], b.pages[3], c.pages[2], c.pages[3], *a.pages[:3]}) == 7
    assert (a.num_shared, b.num_shared, c.num_shared) == (3, 3, 2)
    assert table.num_free == 20 - 7


@pytest.mark.parametrize(("num_tokens", "num_shared"), [(1, 0), (16, 0), (17, 1), (32, 1), (33, 2)])
def test_the_last_token_of_a_prompt_lies_in_no_shared_page(num_tokens: int, num_shared: int) -> None:
    [row] = reserve(PageTable(9), list(range(num_tokens)))
    assert row.num_shared == num_shared


def test_same_tokens_behind_another_beginning_are_not_shared() -> None:
    same = list(range(PAGE_SIZE))
    a, b = reserve(PageTable(9), [*[1] * PAGE_SIZE, *same, 5], [*[2] * PAGE_SIZE, *same, 5])
    assert not set(a.pages) & set(b.pages)


def test_slots_follow_the_pages() -> None:
    length = PAGE_SIZE + 2
    batch = TokenBatch(torch.tensor([5]), torch.tensor([[7, 2]]), [1], [length], [1])
    assert batch.row_slots().tolist() == [[*range(7 * PAGE_SIZE, 8 * PAGE_SIZE), 2 * PAGE_SIZE, 2 * PAGE_SIZE + 1]]


def test_only_written_pages_count_as_computed() -> None:
    table = PageTable(20)
    a, b = reserve(table, [*BEGINNING, 1], [*BEGINNING, 2])
    assert table.num_computed(a, set()) == 0
    assert table.num_computed(b, set(a.pages[:2])) == 2 * PAGE_SIZE
    table.record_read(a, len(a.prompt))
    assert table.num_computed(b, set()) == 3 * PAGE_SIZE
    table.release([a, b])
    [again] = reserve(table, [*BEGINNING, 1])
    assert table.num_computed(again, set()) == 0


def test_a_row_need_not_compute_what_was_read_of_it_nor_full_pages_that_others_read() -> None:
    table = PageTable(20)
    a, b = reserve(table, [*BEGINNING, 1], [*BEGINNING, 2])
    assert table.unread([a, b]) == [3 * PAGE_SIZE + 1, 1]
    table.record_read(a, PAGE_SIZE + 3)
    assert table.unread([a, b]) == [2 * PAGE_SIZE - 2, 1]
    assert table.unread([b]) == [2 * PAGE_SIZE + 1]
    assert table.num_computed(b, set()) == PAGE_SIZE


def test_rows_grow_all_or_none() -> None:
    table = PageTable(4)
    rows = reserve(table, [1] * 16, [2] * 8, room=0)
    assert not table.extend(rows, [33, 33])
    assert (table.num_free, [len(row.pages) for row in rows]) == (2, [1, 1])
    assert table.extend(rows, [32, 16])
    assert table.extend(rows, [32, 17])
    assert (table.num_free, [len(row.pages) for row in rows]) == (0, [2, 2])
    assert len({page for row in rows for page in row.pages}) == 4
    table.release(rows)
    assert table.num_free == 4


def test_a_gang_is_taken_in_only_with_headroom_beside_its_prompts() -> None:
    table = PageTable(4)
    [row] = table.take([[1] * 16], 16)
    assert len(row.pages) == 1
    with pytest.raises(NoRoom, match="up to 64 tokens are needed and 48 are free"):
        table.take([[2] * 20], 40)
    assert table.num_free == 3
    with pytest.raises(PromptTooLong, match="may take 80 tokens, and there is memory for 64"):
        table.take([[2] * 20], 60)
    assert len(table.take([[2] * 16], 40)) == 1


def test_a_gang_that_does_not_fit_leaves_no_trace() -> None:
    table = PageTable(5)
    assert table.reserve([[*BEGINNING, 1], [*[7] * PAGE_SIZE, 2]], 1) is None
    assert table.num_free == 5
    reserve(table, [*BEGINNING, 1])


@settings(deadline=None)
@given(data=st.data())
def test_pages_are_held_by_whoever_reserved_them_and_free_once_nobody_does(data: st.DataObject) -> None:
    table = PageTable(30)
    prompt = st.builds(
        lambda num, tail: [*BEGINNING[:num], *tail],
        st.integers(0, 3 * PAGE_SIZE),
        st.lists(st.integers(0, 3), min_size=1),
    )
    gangs: list[list[Row]] = []
    for _ in range(data.draw(st.integers(1, 12))):
        if gangs and data.draw(st.booleans()):
            table.release(gangs.pop(data.draw(st.integers(0, len(gangs) - 1))))
        else:
            prompts = data.draw(st.lists(prompt, min_size=1, max_size=3))
            rows = table.reserve(prompts, 5)
            if rows is None:
                assert table.num_free < table.num_needed(prompts, 5)
            else:
                gangs.append(rows)
        holders = Counter(page for rows in gangs for row in rows for page in row.pages)
        assert table.num_free == 30 - len(holders)
        contents: dict[int, tuple[int, ...]] = {}
        for row in (row for rows in gangs for row in rows):
            assert len(row.pages) * PAGE_SIZE >= len(row.prompt) + 5
            for number, page in enumerate(row.pages):
                if holders[page] > 1:  # whoever shares a page has the same tokens up to its end
                    assert (
                        contents.setdefault(page, row.prompt[: (number + 1) * PAGE_SIZE])
                        == row.prompt[: (number + 1) * PAGE_SIZE]
                    )

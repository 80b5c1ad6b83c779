"""What is to be scored as a tree: every token is covered once, and pages hold what their segments say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.score_tree import MIN_SAVED, Pair, lay_out, passes, waves

texts = st.lists(st.integers(0, 1), min_size=1, max_size=40).map(tuple)


def pairs_of(prefixes: list[tuple[int, ...]], candidates: list[tuple[int, ...]]) -> list[Pair]:
    return [Pair(prefix, candidate) for prefix in prefixes for candidate in candidates]


@pytest.mark.slow
@given(st.lists(texts, min_size=1, max_size=3), st.lists(texts, min_size=1, max_size=5))
def test_segments_of_a_pair_are_what_it_reads(
    prefixes: list[tuple[int, ...]], candidates: list[tuple[int, ...]]
) -> None:
    pairs = pairs_of(prefixes, candidates)
    tree = waves(pairs)
    for number, pair in enumerate(pairs):
        path = [segment for wave in tree for segment in wave if number in segment.members]
        assert tuple(token for segment in path for token in segment.tokens) == pair.read
        assert [segment.start for segment in path] == [sum(len(s.tokens) for s in path[:i]) for i in range(len(path))]
        assert [segment.parent for segment in path] == [None, *path[:-1]]
        wanted = [place for s in path for place in range(s.end - s.num_wanted, s.end)]
        assert set(wanted) >= set(range(pair.first_wanted, len(pair.read)))


@pytest.mark.slow
@given(st.lists(texts, min_size=1, max_size=3), st.lists(texts, min_size=1, max_size=5))
def test_pages_hold_what_was_written_to_them(
    prefixes: list[tuple[int, ...]], candidates: list[tuple[int, ...]]
) -> None:
    """Write every token to its slot, wave by wave with the copies; then every path reads back its own tokens."""
    pairs = pairs_of(prefixes, candidates)
    tree = waves(pairs)
    num_pages, copies = lay_out(tree)
    memory: list[list[int | None]] = [[None] * PAGE_SIZE for _ in range(num_pages)]
    for wave, copied in zip(tree, copies, strict=True):
        for source, target in copied:
            memory[target] = list(memory[source])
        for segment in wave:
            for place, token in zip(range(segment.start, segment.end), segment.tokens, strict=True):
                slot = memory[segment.pages[place // PAGE_SIZE]]
                assert slot[place % PAGE_SIZE] in (None, token) or place >= segment.start
                slot[place % PAGE_SIZE] = token
        for segment in wave:  # nothing that was written in this wave has hurt another
            [member, *_] = segment.members
            read = pairs[member].read[: segment.end]
            found = [memory[segment.pages[place // PAGE_SIZE]][place % PAGE_SIZE] for place in range(segment.end)]
            assert tuple(found) == read


def test_what_saves_little_is_not_shared() -> None:
    few = waves(pairs_of([(1,)], [(2, 3, 4), (2, 5, 6)]))
    assert [len(wave) for wave in few] == [2]
    beginning = (2,) * MIN_SAVED
    many = waves(pairs_of([(1,)], [(*beginning, 3, 4), (*beginning, 5, 6)]))
    assert [len(wave) for wave in many] == [1, 2]


def test_equal_texts_are_read_once() -> None:
    tree = waves(pairs_of([(1,) * 20], [(2, 3, 4)] * 6))
    assert sum(len(segment.tokens) for wave in tree for segment in wave) == 22


def test_passes_are_bounded_and_count_a_prefix_once() -> None:
    pairs = pairs_of([(1,) * 50, (2,) * 50], [(3,) * 10] * 4)
    assert [len(passed) for passed in passes(pairs, 90)] == [4, 4]
    assert [len(passed) for passed in passes(pairs, 10)] == [1] * 8
    assert [len(passed) for passed in passes(pairs, 1000)] == [8]
    assert list(passes([], 10)) == []

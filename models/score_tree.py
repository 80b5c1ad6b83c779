"""What is to be scored, as a tree: texts that begin alike are read once, up to where they part.

    segments of one wave have all their ancestors in earlier waves, so that a wave is one forward pass

A segment lies on pages of its own from the page on in which it begins; the pages in front of that are its parent's, and
of a page that its parent has begun it takes a copy. So what texts share is computed once to the token, not to the page.
It must not know how a model computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tokenauction.models.kv_cache import PAGE_SIZE

MIN_SAVED = 12  # tokens that a branch must save: each may cost a forward pass more


@dataclass(frozen=True)
class Pair:
    """One text behind one prefix."""

    prefix: tuple[int, ...]
    text: tuple[int, ...]  # at least one token

    @property
    def read(self) -> tuple[int, ...]:
        """The tokens that a model reads for it: nobody asks what follows the last."""
        return self.prefix + self.text[:-1]

    @property
    def first_wanted(self) -> int:
        """The place of the token behind which the first of the text is predicted."""
        return len(self.prefix) - 1


@dataclass(eq=False)
class Segment:
    """Tokens that some of the pairs have in common, behind what they have in common already."""

    tokens: tuple[int, ...]
    start: int  # place of the first of them
    members: list[int]  # the pairs that read it
    first_wanted: int  # the first place, of any of them, behind which a token is predicted
    parent: Segment | None = None
    pages: list[int] = field(default_factory=list)  # of all tokens up to its end

    @property
    def end(self) -> int:
        return self.start + len(self.tokens)

    @property
    def num_wanted(self) -> int:
        """Of how many of its tokens, the last ones, the logits are asked for."""
        return max(0, self.end - max(self.start, self.first_wanted))


def waves(pairs: Sequence[Pair]) -> list[list[Segment]]:
    """The segments that cover all pairs, each in the wave behind its parent's."""
    found: list[list[Segment]] = []
    texts = [pair.read for pair in pairs]

    def grow(members: list[int], start: int, parent: Segment | None, depth: int) -> None:
        """Cover what these pairs read from `start` on, up to which they are alike."""
        for group in _alike(texts, members, start):
            end = _common_end(texts, group)
            is_shared = (len(group) - 1) * (end - start) >= MIN_SAVED
            for part in [group] if is_shared else [[member] for member in group]:
                stop = end if is_shared else len(texts[part[0]])
                first = min(pairs[member].first_wanted for member in part)
                segment = Segment(texts[part[0]][start:stop], start, part, first, parent)
                while len(found) <= depth:
                    found.append([])
                found[depth].append(segment)
                grow([member for member in part if len(texts[member]) > stop], stop, segment, depth + 1)

    grow(list(range(len(pairs))), 0, None, 0)
    return found


def lay_out(wave: Sequence[Sequence[Segment]]) -> tuple[int, list[list[tuple[int, int]]]]:
    """Give every segment its pages; how many there are, and for each wave which are copied first: (from, to)."""
    num_pages = 0
    copies: list[list[tuple[int, int]]] = []
    for segments in wave:
        copies.append([])
        for segment in segments:
            num_kept = segment.start // PAGE_SIZE
            num_own = -(-segment.end // PAGE_SIZE) - num_kept
            before = [] if segment.parent is None else segment.parent.pages
            segment.pages = [*before[:num_kept], *range(num_pages, num_pages + num_own)]
            if segment.start % PAGE_SIZE:
                copies[-1].append((before[num_kept], num_pages))
            num_pages += num_own
    return num_pages, copies


def passes(pairs: Sequence[Pair], max_tokens: int) -> Iterator[Sequence[Pair]]:
    """The pairs in order, in groups whose texts and different prefixes have at most so many tokens; a longer one goes
    alone."""
    start = 0
    while start < len(pairs):
        stop, num_tokens = start, 0
        known: set[tuple[int, ...]] = set()
        while stop < len(pairs):
            pair = pairs[stop]
            num_tokens += len(pair.text) + (0 if pair.prefix in known else len(pair.prefix))
            if stop > start and num_tokens > max_tokens:
                break
            known.add(pair.prefix)
            stop += 1
        yield pairs[start:stop]
        start = stop


def _alike(texts: Sequence[tuple[int, ...]], members: Sequence[int], start: int) -> list[list[int]]:
    """The members in groups of one next token."""
    groups: dict[int, list[int]] = {}
    for member in members:
        groups.setdefault(texts[member][start], []).append(member)
    return list(groups.values())


def _common_end(texts: Sequence[tuple[int, ...]], members: Sequence[int]) -> int:
    """How far these texts are alike."""
    low, high = min(texts[m] for m in members), max(texts[m] for m in members)
    for place, (a, b) in enumerate(zip(low, high, strict=False)):
        if a != b:
            return place
    return len(low)

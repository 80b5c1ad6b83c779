"""Pages of keys and values, and which rows hold them: rows whose prompts begin alike share the pages of the beginning.

A page holds PAGE_SIZE tokens of one row in every layer. All pages that a gang can ever need are reserved when it is
admitted, so a running gang never lacks one and the memory is bounded before it is used. It must not know what is in a
page, nor how a model computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

PAGE_SIZE = 16  # tokens
_NO_PAGE = -1

# A full page of a prompt is known by the page before it (which stands for all that precedes) and its own tokens.
_Key = tuple[int, tuple[int, ...]]


@dataclass(eq=False)
class Row:
    """One row's pages, in order; the first `num_shared` may belong to other rows too."""

    prompt: tuple[int, ...]
    pages: list[int]
    num_shared: int

    def slots(self, num_tokens: int) -> list[int]:
        """Where the row's first `num_tokens` tokens lie, counted over all pages."""
        return [self.pages[place // PAGE_SIZE] * PAGE_SIZE + place % PAGE_SIZE for place in range(num_tokens)]


@dataclass
class PageTable:
    """Which of `num_pages` pages are free, who uses the others, and what the written ones hold."""

    num_pages: int
    _free: list[int] = field(init=False)
    _num_users: list[int] = field(init=False)
    _keys: list[_Key | None] = field(init=False)
    _known: dict[_Key, int] = field(default_factory=dict)
    _written: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._free = list(range(self.num_pages))[::-1]  # the lowest first: what was touched before is used again
        self._num_users = [0] * self.num_pages
        self._keys = [None] * self.num_pages

    @property
    def num_free(self) -> int:
        return len(self._free)

    @staticmethod
    def num_needed(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> int:
        """The most pages that these prompts can need: as if nothing were shared."""
        return sum(-(-(len(prompt) + max_new_tokens) // PAGE_SIZE) for prompt in prompts)

    def reserve(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, num_private: Sequence[int] | None = None
    ) -> list[Row] | None:
        """One row a prompt with pages for the prompt and `max_new_tokens` more, or None if too few pages are free.

        The last `num_private` tokens of a prompt (1 if left out) are in no shared page: their logits must be computed.
        """
        rows: list[Row] = []
        for prompt, private in zip(map(tuple, prompts), num_private or [1] * len(prompts), strict=True):
            row = Row(prompt, [], 0)
            rows.append(row)
            before = _NO_PAGE
            for number in range(-(-(len(prompt) + max_new_tokens) // PAGE_SIZE)):
                stop = (number + 1) * PAGE_SIZE
                key = (before, prompt[stop - PAGE_SIZE : stop]) if stop <= len(prompt) - private else None
                page = self._known.get(key) if key is not None else None
                if page is None:
                    if not self._free:
                        self.release(rows)
                        return None
                    page = self._free.pop()
                    self._keys[page] = key
                    if key is not None:
                        self._known[key] = page
                row.pages.append(page)
                row.num_shared += key is not None
                self._num_users[page] += 1
                before = page
        return rows

    def num_computed(self, row: Row, also: set[int]) -> int:
        """How many tokens of the row's prompt lie in shared pages that are written, or in those of `also`."""
        num_pages = 0
        while num_pages < row.num_shared and (row.pages[num_pages] in self._written or row.pages[num_pages] in also):
            num_pages += 1
        return num_pages * PAGE_SIZE

    def record_written(self, rows: Sequence[Row]) -> None:
        """The rows' shared pages now hold what their keys say."""
        for row in rows:
            self._written.update(row.pages[: row.num_shared])

    def release(self, rows: Sequence[Row]) -> None:
        """Give the rows' pages back; a page is free once nobody uses it."""
        for row in rows:
            for page in row.pages:
                self._num_users[page] -= 1
                if self._num_users[page] == 0:
                    key = self._keys[page]
                    if key is not None:
                        del self._known[key]
                    self._keys[page] = None
                    self._written.discard(page)
                    self._free.append(page)
            row.pages, row.num_shared = [], 0

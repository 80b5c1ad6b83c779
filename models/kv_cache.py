"""Pages of keys and values, and which rows hold them: rows whose prompts begin alike share the pages of the beginning.

A page holds PAGE_SIZE tokens of one row in every layer. There is a fixed number of them, so memory is bounded before
any is used; a row takes pages as it grows. It must not know what is in a page, nor how a model computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tokenauction.models.base import NoRoom, PromptTooLong

PAGE_SIZE = 16  # tokens
HEADROOM = 32  # tokens a row that must be free when a gang comes, beside its prompts: else it would soon be sent away
_NO_PAGE = -1

# A full page of a prompt is known by the page before it (which stands for all that precedes) and its own tokens.
_Key = tuple[int, tuple[int, ...]]


@dataclass(eq=False)
class Row:
    """One row's pages, in order; the first `num_shared` may belong to other rows too."""

    prompt: tuple[int, ...]
    pages: list[int]
    num_shared: int
    num_read: int = 0  # tokens of the prompt that were computed for this very row


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

    def reserve(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Row] | None:
        """One row a prompt with pages for the prompt and `max_new_tokens` more, or None if too few pages are free.

        The last token of a prompt is in no shared page: its logits must be computed.
        """
        rows: list[Row] = []
        for prompt in map(tuple, prompts):
            row = Row(prompt, [], 0)
            rows.append(row)
            before = _NO_PAGE
            for number in range(-(-(len(prompt) + max_new_tokens) // PAGE_SIZE)):
                stop = (number + 1) * PAGE_SIZE
                key = (before, prompt[stop - PAGE_SIZE : stop]) if stop < len(prompt) else None
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

    def take(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Row]:
        """Rows with pages for the prompts alone, given that HEADROOM is free too.

        Raises NoRoom, and PromptTooLong where all there is would not reach for `max_new_tokens` more.
        """
        most = self.num_needed(prompts, max_new_tokens)
        if most > self.num_pages:
            raise PromptTooLong(
                f"the prompts and texts of {len(prompts)} rows may take {most * PAGE_SIZE} tokens, and there is memory "
                f"for {self.num_pages * PAGE_SIZE}; shorten them, ask for fewer tokens or raise cache_bytes "
                "(--cache-gib)"
            )
        num_free, headroom = self.num_free, min(HEADROOM, max_new_tokens)
        rows = self.reserve(prompts, 0)
        if rows is not None:
            spare = sum(-(-(len(row.prompt) + headroom) // PAGE_SIZE) - len(row.pages) for row in rows)
            if spare <= self.num_free:
                return rows
            self.release(rows)
        needed = self.num_needed(prompts, headroom) * PAGE_SIZE
        raise NoRoom(f"up to {needed} tokens are needed and {num_free * PAGE_SIZE} are free")

    def extend(self, rows: Sequence[Row], lengths: Sequence[int]) -> bool:
        """Give every row pages for so many tokens in all; False, and nothing is done, if too few are free."""
        missing = [-(-length // PAGE_SIZE) - len(row.pages) for row, length in zip(rows, lengths, strict=True)]
        if sum(max(0, num) for num in missing) > self.num_free:
            return False
        for row, num in zip(rows, missing, strict=True):
            for _ in range(num):
                row.pages.append(self._free.pop())
                self._num_users[row.pages[-1]] = 1
        return True

    def num_computed(self, row: Row, also: set[int]) -> int:
        """How many first tokens of the row's prompt need not be computed: its own, and those in shared pages that are
        written or among `also`."""
        num_pages = 0
        while num_pages < row.num_shared and (row.pages[num_pages] in self._written or row.pages[num_pages] in also):
            num_pages += 1
        return max(row.num_read, num_pages * PAGE_SIZE)

    def unread(self, rows: Sequence[Row]) -> list[int]:
        """How many tokens of each row's prompt are to be computed, a beginning in common for the first alone."""
        counts: list[int] = []
        also: set[int] = set()
        for row in rows:
            counts.append(len(row.prompt) - self.num_computed(row, also))
            also.update(row.pages[: row.num_shared])
        return counts

    def record_read(self, row: Row, num_tokens: int) -> None:
        """The first `num_tokens` of the row's prompt are computed, so shared pages among them may serve others."""
        row.num_read = num_tokens
        self._written.update(row.pages[: min(row.num_shared, num_tokens // PAGE_SIZE)])

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

"""Which auctions run in the next step. The unit is the auction, a gang of rows: all of them run, or none.

    waiting → admitted: its rows and the pages for its prompts are taken → reading: its prompts, so many tokens a step
            → running: one token a step, as long as there is memory; else → waiting, in front

First come, first served: an auction that does not fit yet holds back those behind it, and when memory runs short it is
the youngest that gives its rows back. It waits in front of the rest and is computed anew from its prompts and its text
so far; nobody sees a difference. The oldest is never interrupted, so none starves. What reading costs a step is
bounded, so that running auctions keep their pace. It must not know what is written, nor who bids.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Event
from time import perf_counter
from typing import Generic, Protocol, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from tokenauction.models.base import Gang, LanguageModel, ModelError, NoRoom

MAX_PREFILL_TOKENS = 512  # prompt tokens read in one step while others run
MAX_IDLE_PREFILL_TOKENS = 8192  # and while nobody waits for the next token
MAX_WAITING = 10_000


class Gangable(Protocol):
    """What the scheduler needs to know of an auction."""

    gang: Gang | None

    @property
    def is_elsewhere(self) -> bool:
        """Whether somebody else steps it, once its prompts are read and their last logits used."""

    @property
    def is_held(self) -> bool:
        """Whether its next token waits for somebody outside: then it takes no step."""

    @property
    def prompts(self) -> Sequence[Sequence[int]]:
        """Token ids, one prompt a row."""

    @property
    def token_ids(self) -> Sequence[int]:
        """The text so far."""

    @property
    def num_tokens_left(self) -> int:
        """The most tokens that may still be drawn."""


T = TypeVar("T", bound=Gangable)
R = TypeVar("R")
_Step = tuple[list[T], Float[Tensor, "rows vocab"]]


@dataclass
class Scheduler(Generic[T]):
    """The queue of those that wait and the lists of those that have rows, each in the order of coming."""

    model: LanguageModel
    max_prefill_tokens: int = MAX_PREFILL_TOKENS
    waiting: deque[T] = field(default_factory=deque)
    reading: list[T] = field(default_factory=list)
    running: list[T] = field(default_factory=list)
    num_preemptions: int = 0
    model_seconds: float = 0.0  # that callers of `wait` and `step` have waited for the model, in all
    is_full: bool = False  # the next in line found no room, and nobody has left since
    _thread: ThreadPoolExecutor = field(default_factory=partial(ThreadPoolExecutor, 1, "tokenauction-step"))
    _ahead: Future[_Step[T]] | None = None

    @property
    def has_work(self) -> bool:
        """Whether a step would get anybody further."""
        if self.reading or any(not auction.is_held for auction in self.running):
            return True
        return bool(self.waiting) and not self.is_full

    def everybody(self) -> list[T]:
        """All auctions, those that came first in front."""
        return [*self.running, *self.reading, *self.waiting]

    def remove(self, auction: T) -> None:
        """Forget an auction, wherever it is, and free its rows at once."""
        for queue in (self.running, self.reading, self.waiting):
            if auction in queue:
                queue.remove(auction)
        self._give_back(auction)

    def admit(self) -> list[tuple[T, ModelError | ValueError]]:
        """Give rows to whoever is next, as long as there are some; returns those that can never run, and why."""
        failed: list[tuple[T, ModelError | ValueError]] = []
        unread = sum(self.model.num_unread(auction.gang) for auction in self.reading if auction.gang)
        while self.waiting and unread < self._prefill_tokens:
            auction = self.waiting[0]
            text = list(auction.token_ids)
            is_alone = not (self.running or self.reading)
            try:
                if len(auction.prompts) > self.model.free_rows and not is_alone:
                    self.is_full = True
                    break
                rows = [[*prompt, *text] for prompt in auction.prompts]
                auction.gang = self.model.admit(rows, auction.num_tokens_left)
            except (ModelError, ValueError) as error:
                if isinstance(error, NoRoom) and not is_alone:  # memory is short until another auction ends
                    self.is_full = True
                    break
                failed.append((self.waiting.popleft(), error))
                continue
            self.reading.append(self.waiting.popleft())
            unread += self.model.num_unread(auction.gang)
        return failed

    def launch(self) -> None:
        """Begin the next step of those that run, beside whatever the caller does until it calls `wait` or `step`."""
        assert self._ahead is None, "a step is launched when the one before has been taken"
        if all(auction.is_elsewhere or auction.is_held for auction in self.running):
            return
        stepped, compute = self._launch()
        begun = Event()

        def run() -> _Step[T]:
            with torch.inference_mode():
                begun.set()
                return stepped, compute()

        self._ahead = self._thread.submit(run)
        begun.wait()  # the caller would keep Python to itself for milliseconds, and the step would begin after it

    def wait(self) -> None:
        """Let a step that was launched come to its end: before this, no auction may come or go."""
        if self._ahead is not None:
            self._computed(self._ahead.result)

    def step(self) -> tuple[list[T], Float[Tensor, "rows vocab"]]:
        """Run the model: the last token of those that run, a share of the prompts of those that read.

        Returns the auctions whose next token is to be drawn, and the logits of their rows in that order. What was
        launched before is taken up, without the auctions that were removed since.
        """
        if self._ahead is None:
            stepped, compute = self._launch()
            logits = self._computed(compute)
        else:
            stepped, logits = self._ahead.result()
            self._ahead = None
        gone = [auction for auction in stepped if auction.gang is None]
        if gone:
            rows = torch.split(logits, [len(auction.prompts) for auction in stepped])
            kept = [part for auction, part in zip(stepped, rows, strict=True) if auction.gang is not None]
            stepped = [auction for auction in stepped if auction.gang is not None]
            logits = torch.cat([logits[:0], *kept])
        ready = self._computed(self._read)
        if not ready:
            return stepped, logits
        read = self._computed(partial(self.model.prefill, _gangs(ready)))
        self.running += ready  # at no time is an auction in no list: somebody may look for it
        self.reading = [auction for auction in self.reading if auction not in ready]
        return stepped + ready, torch.cat((logits, read)) if stepped else read

    def _computed(self, compute: Callable[[], R]) -> R:
        """What the model computes. If it fails, whoever has rows is computed anew from the start, when it does not."""
        began = perf_counter()
        try:
            return compute()
        except BaseException:
            self._ahead = None
            for auction in reversed([*self.running, *self.reading]):
                self._give_back(auction)
                self.waiting.appendleft(auction)
            self.running, self.reading = [], []
            raise
        finally:
            self.model_seconds += perf_counter() - began

    def _give_back(self, auction: T) -> None:
        """Free an auction's rows, if it has any."""
        self.is_full = False
        if auction.gang is not None:
            self.model.release(auction.gang)
            auction.gang = None

    @property
    def _prefill_tokens(self) -> int:
        return self.max_prefill_tokens if self.running else max(self.max_prefill_tokens, MAX_IDLE_PREFILL_TOKENS)

    def _launch(self) -> tuple[list[T], Callable[[], Float[Tensor, "rows vocab"]]]:
        """A step of everybody that runs here, to be computed, after as many as it takes have given memory back."""
        while here := [auction for auction in self.running if not (auction.is_elsewhere or auction.is_held)]:
            tokens = torch.tensor([auction.token_ids[-1] for auction in here], device=self.model.device)
            try:
                return here, self.model.launch(_gangs(here), tokens)
            except NoRoom:
                self.preempt()
        return [], lambda: torch.empty(0, self.model.vocab_size, device=self.model.device)

    def preempt(self) -> None:
        """Send the youngest auction back to the head of the queue."""
        assert len(self.running) + len(self.reading) > 1, "an auction that was admitted fits when it is alone"
        youngest = (self.reading or self.running).pop()
        self._give_back(youngest)
        self.waiting.appendleft(youngest)
        self.num_preemptions += 1

    def _read(self) -> list[T]:
        """Let the first in line read, up to the step's bound; returns those of whom only the last pass is left."""
        ready: list[T] = []
        left = self._prefill_tokens
        for auction in list(self.reading):
            assert auction.gang is not None, "whoever reads has a gang"
            unread = self.model.num_unread(auction.gang)
            if unread > left:
                is_whole = left == self._prefill_tokens and not self.model.preload(auction.gang, left)
                if not is_whole:  # a model that reads only whole prompts goes beyond the bound, one auction a step
                    break
            ready.append(auction)
            left = max(0, left - unread)
        return ready


def _gangs(auctions: Sequence[Gangable]) -> list[Gang]:
    return [auction.gang for auction in auctions if auction.gang is not None]

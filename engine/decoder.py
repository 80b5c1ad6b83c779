"""The loop: choose which auctions run, run the model once for all their rows, clear, record. One call of `step` is one
token of every running auction; `run` is an async generator over the events of all of them.

Per auction: submit → wait for rows → read the prompts → (clear → record → step)* → settle → release. A token flows
forward only; bids are read on one line per step, so that a new bid counts from the next token. Cancelling or failing
one auction disturbs no other. What the loop must not know: sockets, model classes, how prompts are written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from tokenauction.engine.auction import LIVE, Auction, Bids, Charges, State
from tokenauction.engine.awaiting import clearable
from tokenauction.engine.device_loop import DeviceLoop, Landed
from tokenauction.engine.ensemble import Ensemble
from tokenauction.engine.errors import CapacityError, InvalidInput, TokenAuctionError
from tokenauction.engine.events import Event
from tokenauction.engine.finalizing import Finalizing
from tokenauction.engine.fused_clearing import ClearingChoice
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.performance import Awaited, Performance
from tokenauction.engine.policy import Policy
from tokenauction.engine.preparation import Preparation
from tokenauction.engine.randomness import step_key
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line
from tokenauction.engine.recorder import Stamp
from tokenauction.engine.report import Report
from tokenauction.engine.resumption import take_up
from tokenauction.engine.reward import RewardSource
from tokenauction.engine.scheduler import MAX_WAITING, Scheduler
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step
from tokenauction.models.base import DeviceModel, LanguageModel, NoRoom

StepsChoice = Literal["auto", "device"]


@dataclass(frozen=True)
class _Taken:
    """What one step did to one auction."""

    text: str
    charges: Charges | None  # None where no token was drawn
    reason: str  # why it ended with this step; empty where it goes on


class Decoder:
    """Decodes any number of auctions on one model; every auction's rows share the model's batch with all others."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        stamp: Stamp,
        entropy: Callable[[int], bytes],
        store_distributions: bool = False,
        clearing: ClearingChoice = "auto",
        steps: StepsChoice = "auto",
    ) -> None:
        """`stamp` gives event ids and times, `entropy(n)` n fresh random bytes: the only two things not repeatable.

        `clearing` may insist on compiled code or on torch; see `fused_clearing.cleared_by`. `steps` says where those
        that `device_loop` covers are computed: on the device where a model on CUDA can, as "auto", or in any case.
        """
        self.model = model
        self.stamp = stamp
        self.entropy = entropy
        self.clearing = clearing
        self.scheduler: Scheduler[Performance] = Scheduler(model)
        self._untold: list[Event] = []
        self.device: DeviceLoop[Performance] | None = None
        on_cuda = model.device.type == "cuda"
        if steps == "device" or (steps == "auto" and on_cuda and isinstance(model, DeviceModel)):
            assert isinstance(model, DeviceModel), "only a DeviceModel steps on the device"
            self.device = DeviceLoop(model, capture=on_cuda)
        self._preparation = Preparation(model, stamp, entropy, store_distributions, clearing, self.device is not None)
        self.finalizing = Finalizing(model, self.scheduler)

    def submit(self, spec: AuctionSpec, prompts: Sequence[Sequence[int]], policy: Policy, auction_id: str) -> Auction:
        """Queue an auction: one prompt (token ids) for each of `spec.hosted_ids`. Returns its state, through which
        bids change.

        Raises InvalidInput for a wrong number of prompts and CapacityError when the queue is full or it could never
        fit.
        """
        performance = self.prepare(spec, prompts, policy, auction_id)
        self.enqueue(performance)
        return performance.auction

    def prepare(
        self,
        spec: AuctionSpec,
        prompts: Sequence[Sequence[int]],
        policy: Policy,
        auction_id: str,
        seed: Seed | None = None,
        *,
        is_paced: bool = False,
        rewards: RewardSource | None = None,
    ) -> Performance:
        """The first half of `submit`: an auction that is ready to be queued, and of which no other knows yet.

        `seed` is one that was drawn before; an auction that `is_paced` rests behind every token; `rewards` are those of
        a softmax auction (LogRatio if left out). Raises InvalidInput for a wrong number of prompts and CapacityError
        for more rows than the model has.
        """
        return self._preparation.prepare(spec, prompts, policy, auction_id, seed, is_paced, rewards)

    def enqueue(self, performance: Performance) -> None:
        """The second half of `submit`; raises CapacityError when the queue is full."""
        if isinstance(performance, Ensemble):
            self.finalizing.enqueue(performance)
            return
        if len(self.scheduler.waiting) >= MAX_WAITING:
            raise CapacityError(f"{MAX_WAITING} auctions are waiting, which is the limit; try again later")
        self.scheduler.waiting.append(performance)

    def resume(self, performance: Performance, lines: Sequence[Line]) -> list[Event]:
        """Queue a prepared auction behind what its receipt says of it, to go on as it would have gone on.

        Returns its last event where those lines leave nothing to draw. Raises ReceiptError where they are not of this
        auction on this model, and CapacityError as `enqueue`.
        """
        if isinstance(performance, Ensemble):
            return self.finalizing.resume(performance, lines)
        take_up(performance.recorder, self.model.tokenizer, performance.stream, lines)
        performance.is_created = True
        reason = self._why_over(performance.auction)
        if not reason:
            self.enqueue(performance)
            return []
        performance.auction.settle(reason, performance.stream.finish())
        return [performance.recorder.settled()]

    def cancel(self, auction_id: str) -> None:
        """Stop an auction at the next step: what was written is charged and settled, its rows are freed."""
        self._find(auction_id).is_cancelled = True

    def supply(self, auction_id: str, step: int, reports: Mapping[str, Report]) -> None:
        """What agents with models of their own say of a step that `step.awaited` has opened, all at once.

        Whoever says nothing is absent for this step. Raises what `Performance.supply` raises.
        """
        self._find(auction_id).supply(step, reports, self.model.tokenizer.vocab_size)

    def receipt(self, auction_id: str) -> list[Line]:
        """The receipt of an auction that waits or runs, as far as it goes; a finished one's stays with its last
        event."""
        return list(self._find(auction_id).recorder.receipt)

    def _find(self, auction_id: str) -> Performance:
        for performance in (*self.finalizing.ensembles, *self.scheduler.everybody()):
            if performance.auction.auction_id == auction_id:
                return performance
        raise InvalidInput(f"no auction {auction_id!r} is waiting or running")

    @property
    def has_work(self) -> bool:
        """Whether `step` would get any auction further; one that waits for reports alone is none."""
        is_due = any(p.is_told or p.is_cancelled for p in self.scheduler.everybody())
        return is_due or self.scheduler.has_work or self.finalizing.has_work

    async def run(self) -> AsyncIterator[Event]:
        """Yield the events of all auctions until none waits or runs; the model computes in a thread of its own."""
        while self.has_work:
            for event in await asyncio.to_thread(self.step):
                yield event

    def step(self) -> list[Event]:
        """One token for every running auction, and the next auctions join: choose, run, clear, record.

        The model's next step is begun as soon as the tokens are known, and runs while this one is being recorded.
        """
        started = time.perf_counter()
        events = self._untold  # where an error comes between, what happened before it is told by the next call
        with torch.inference_mode():
            self.scheduler.wait()
            events += self._end_cancelled()
            events += self.finalizing.turn(is_alone=not self.scheduler.everybody())
            events += self._admit()
            steps = [*self._step_on_device(), *self._step_here()]
            taken = [self._take_in(step.performance, step.bids, step.outcome) for step in steps]
            try:
                self.scheduler.launch()
            finally:
                latency_ms = (time.perf_counter() - started) * 1e3
                for step, what in zip(steps, taken, strict=True):
                    events += self._tell(step, what, latency_ms)
        self._untold = []
        return list(self.finalizing.absorb(events))

    def _step_here(self) -> list[Landed[Performance]]:
        """Run the model, clear, and bring what was decided to the host."""
        stepped, logits = self.scheduler.step()
        now = clearable(stepped, logits, self.scheduler.running, self.model.tokenizer.vocab_size)
        standings = [Standing(p.auction.spec, p.auction.token_ids, p.policy) for p in now.performances]
        bids = [p.auction.read_bids(told) for p, told in zip(now.performances, now.reports, strict=True)]  # here alone
        keys = [step_key(p.recorder.seed.value, p.auction.num_tokens) for p in now.performances]
        outcomes = clear_step(standings, bids, keys, now.logits, self.clearing)
        return list(map(Landed, now.performances, bids, keys, outcomes, now.reports))

    def _step_on_device(self) -> list[Landed[Performance]]:
        """Start the next step of those on the device; what the one before decided."""
        while self.device is not None:
            try:
                return self.device.step([p for p in self.scheduler.running if p.is_elsewhere])
            except NoRoom:
                self.scheduler.preempt()
        return []

    @staticmethod
    def _create(performance: Performance) -> Iterator[Event]:
        """Its first event, unless it has been told."""
        if not performance.is_created:
            performance.is_created = True
            yield performance.recorder.created()

    def _end_cancelled(self) -> Iterator[Event]:
        for performance in [p for p in self.scheduler.everybody() if p.is_cancelled]:
            yield from self._create(performance)
            performance.auction.cancel()
            yield self._end(performance)

    def _admit(self) -> Iterator[Event]:
        """Let the next auctions have rows; those that could never run fail."""
        failed = self.scheduler.admit()
        for performance in self.scheduler.everybody():  # behind admission: others submit at any time
            yield from self._create(performance)
        for performance, error in failed:
            yield from self._create(performance)
            yield from self._fail(performance, getattr(error, "code", "invalid_input"), str(error))
        for performance in self.scheduler.reading:
            if performance.auction.state == State.CREATED:
                performance.auction.start()
            yield from self._open(performance)

    @staticmethod
    def _open(performance: Performance) -> Iterator[Event]:
        """Ask agents with models of their own about the next token, unless they have been asked."""
        if performance.auction.spec.own_model_ids and performance.awaited is None:
            performance.awaited = Awaited()
            yield performance.recorder.awaited()

    def _take_in(self, performance: Performance, bids: Bids, outcome: StepOutcome | TokenAuctionError) -> _Taken:
        """What a step does to its auction: its token, its text, its charges, and whether it is the last."""
        auction = performance.auction
        if isinstance(outcome, TokenAuctionError):
            self.scheduler.remove(performance)
            reason = "budget_spent" if "budget_spent" in bids.status else "no_bid"
            return _Taken("", None, reason if bids.is_spent else "error")
        text = added_text(self.model.tokenizer, performance.stream, outcome.token, auction.text)
        charges = auction.record(outcome.token, text, outcome.owed)
        reason = self._why_over(auction)
        if reason:
            self.scheduler.remove(performance)
        performance.is_resting = performance.is_paced
        return _Taken(text, charges, reason)

    def _why_over(self, auction: Auction) -> str:
        """Why no token may follow the last; empty where one may."""
        has_ended = auction.token_ids and auction.token_ids[-1] in self.model.tokenizer.end_ids
        return "end" if has_ended else auction.limit_reached

    def _tell(self, step: Landed[Performance], taken: _Taken, latency_ms: float) -> Iterator[Event]:
        """The events of a step that was taken in."""
        performance, outcome = step.performance, step.outcome
        if not isinstance(outcome, TokenAuctionError):
            assert taken.charges is not None, "who has drawn a token has been charged for it"
            number = performance.auction.num_tokens - 1
            yield performance.recorder.token(
                number, outcome, step.bids, taken.charges, taken.text, step.key, latency_ms, step.reports
            )
        elif taken.reason == "error":
            yield from self._fail(performance, outcome.code, str(outcome))
            return
        if taken.reason:
            performance.auction.settle(taken.reason, performance.stream.finish())
            yield self._end(performance)
        else:
            yield from self._open(performance)

    def _fail(self, performance: Performance, code: str, message: str) -> Iterator[Event]:
        yield performance.recorder.error(code, message)
        performance.auction.fail()
        yield self._end(performance)

    def _end(self, performance: Performance) -> Event:
        """Free the rows and close the record."""
        self.scheduler.remove(performance)
        assert performance.auction.state not in LIVE, "an auction ends before its record is closed"
        return performance.recorder.settled()

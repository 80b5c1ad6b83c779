"""The loop: choose which auctions run, run the model once for all their rows, clear, record. One call of `step` is one
token of every running auction; `run` is an async generator over the events of all of them.

Per auction: submit → wait for rows → admit → prefill → (clear → record → step)* → settle → release. A token flows
forward only; bids are read on one line per step, so that a new bid counts from the next token. Cancelling or failing
one auction disturbs no other. What the loop must not know: sockets, model classes, how prompts are written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tokenauction.engine.auction import LIVE, Auction, Bids
from tokenauction.engine.errors import CapacityError, InvalidInput, TokenAuctionError
from tokenauction.engine.events import Event
from tokenauction.engine.fused_clearing import ClearingChoice, cleared_by
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.policy import Policy
from tokenauction.engine.provenance import Provenance
from tokenauction.engine.randomness import step_key
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line, caller_nonce
from tokenauction.engine.recorder import Recorder, Stamp
from tokenauction.engine.scheduler import MAX_WAITING, Scheduler
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step
from tokenauction.models.base import Gang, LanguageModel, ModelError, NoRoom, TextStream


@dataclass(frozen=True)
class Seed:
    """The seed of one auction and where it came from."""

    value: int
    nonce: bytes
    source: str

    @classmethod
    def of_caller(cls, value: int) -> Seed:
        """A seed that the caller chose: repeatable, and marked so."""
        return cls(value, caller_nonce(value), "caller")

    @classmethod
    def drawn(cls, entropy: bytes) -> Seed:
        """A seed from 64 fresh random bytes: 32 for the seed, 32 for the nonce that hides it."""
        if len(entropy) != 64:
            raise InvalidInput(f"a drawn seed takes 64 random bytes, not {len(entropy)}")
        return cls(int.from_bytes(entropy[:32], "big"), entropy[32:], "drawn")


@dataclass(eq=False)
class Performance:
    """One auction in the decoder: its prompts, its rows in the model, its record."""

    auction: Auction
    prompts: list[list[int]]
    policy: Policy
    recorder: Recorder
    stream: TextStream
    gang: Gang | None = None
    is_created: bool = False
    is_cancelled: bool = False

    @property
    def num_rows(self) -> int:
        return len(self.prompts)

    @property
    def num_prompt_tokens(self) -> int:
        return sum(map(len, self.prompts))


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
    ) -> None:
        """`stamp` gives event ids and times, `entropy(n)` n fresh random bytes: the only two things not repeatable.

        `clearing` may insist on compiled code or on torch; see `fused_clearing.cleared_by`.
        """
        self.model = model
        self.stamp = stamp
        self.entropy = entropy
        self.store_distributions = store_distributions
        self.clearing = clearing
        self.scheduler: Scheduler[Performance] = Scheduler()

    def submit(self, spec: AuctionSpec, prompts: Sequence[Sequence[int]], policy: Policy, auction_id: str) -> Auction:
        """Queue an auction: one prompt (token ids) for each of `spec.row_ids`. Returns its state, through which bids
        change.

        Raises InvalidInput for a wrong number of prompts and CapacityError when the queue is full or it could never
        fit.
        """
        if len(prompts) != len(spec.row_ids):
            raise InvalidInput(f"{len(spec.row_ids)} rows need as many prompts, not {len(prompts)}")
        if len(prompts) > self.model.max_rows:
            raise CapacityError(f"{len(prompts)} rows never fit into the model's {self.model.max_rows}; raise max_rows")
        if len(self.scheduler.waiting) >= MAX_WAITING:
            raise CapacityError(f"{MAX_WAITING} auctions are waiting, which is the limit; try again later")
        seed = Seed.drawn(self.entropy(64)) if spec.seed is None else Seed.of_caller(spec.seed)
        auction = Auction(spec, auction_id)
        tokenizer = self.model.tokenizer
        provenance = Provenance.of(self.model, prompts, cleared_by(spec, self.model.device, self.clearing))
        recorder = Recorder(
            auction,
            seed.value,
            seed.source,
            seed.nonce,
            provenance,
            self.stamp,
            tokenizer.decode,
            self.store_distributions,
        )
        rows = [list(prompt) for prompt in prompts]
        self.scheduler.waiting.append(Performance(auction, rows, policy, recorder, tokenizer.text_stream()))
        return auction

    def cancel(self, auction_id: str) -> None:
        """Stop an auction at the next step: what was written is charged and settled, its rows are freed."""
        for performance in self._all():
            if performance.auction.auction_id == auction_id:
                performance.is_cancelled = True
                return
        raise InvalidInput(f"no auction {auction_id!r} is waiting or running")

    def receipt(self, auction_id: str) -> list[Line]:
        """The receipt of an auction that waits or runs, as far as it goes; a finished one's stays with its last
        event."""
        for performance in self._all():
            if performance.auction.auction_id == auction_id:
                return list(performance.recorder.receipt)
        raise InvalidInput(f"no auction {auction_id!r} is waiting or running")

    async def run(self) -> AsyncIterator[Event]:
        """Yield the events of all auctions until none waits or runs; the model computes in a thread of its own."""
        while self.scheduler.has_work:
            for event in await asyncio.to_thread(self.step):
                yield event

    def step(self) -> list[Event]:
        """One token for every running auction, and the next auctions join: choose, run, clear, record."""
        started = time.perf_counter()
        with torch.inference_mode():
            events = [*self._end_cancelled(), *self._announce()]
            performances, logits, failed = self._advance()
            events += failed
            standings = [Standing(p.auction.spec, p.auction.token_ids, p.policy) for p in performances]
            bids = [p.auction.read_bids() for p in performances]  # the one line on which a step reads the bids
            keys = [step_key(p.recorder.seed, p.auction.num_tokens) for p in performances]
            outcomes = clear_step(standings, bids, keys, logits, self.clearing)
            latency_ms = (time.perf_counter() - started) * 1e3
            for performance, bid, key, outcome in zip(performances, bids, keys, outcomes, strict=True):
                events += self._record(performance, bid, key, outcome, latency_ms)
        return events

    def _all(self) -> list[Performance]:
        return [*self.scheduler.running, *self.scheduler.waiting]

    def _announce(self) -> Iterator[Event]:
        for performance in self._all():
            if not performance.is_created:
                performance.is_created = True
                yield performance.recorder.created()

    def _end_cancelled(self) -> Iterator[Event]:
        for performance in [p for p in self._all() if p.is_cancelled]:
            if not performance.is_created:
                yield performance.recorder.created()
            performance.auction.cancel()
            yield self._end(performance)

    def _advance(self) -> tuple[list[Performance], Tensor, list[Event]]:
        """Run the model: the last token of those that run, the prompts of those that join. Logits are [rows, vocab]."""
        running = list(self.scheduler.running)
        joining, failed = self._admit()
        parts: list[Tensor] = []
        if running:
            tokens = torch.tensor([p.auction.token_ids[-1] for p in running], device=self.model.device)
            parts.append(self.model.step([p.gang for p in running if p.gang], tokens))
        if joining:
            parts.append(self.model.prefill([p.gang for p in joining if p.gang]))
        logits = torch.cat(parts) if parts else torch.empty(0, self.model.vocab_size, device=self.model.device)
        return running + joining, logits, failed

    def _admit(self) -> tuple[list[Performance], list[Event]]:
        joined: list[Performance] = []
        events: list[Event] = []
        joining = self.scheduler.next_to_join(self.model.free_rows)
        for place, performance in enumerate(joining):
            is_alone = not self.scheduler.running
            self.scheduler.running.append(performance)
            try:
                performance.gang = self.model.admit(performance.prompts, performance.auction.spec.max_tokens)
            except (ModelError, ValueError) as error:
                if isinstance(error, NoRoom) and not is_alone:  # memory is short until another auction ends
                    self.scheduler.running.pop()
                    self.scheduler.put_back(joining[place:])
                    break
                events += self._fail(performance, getattr(error, "code", "invalid_input"), str(error))
                continue
            performance.auction.start()
            joined.append(performance)
        return joined, events

    def _record(
        self,
        performance: Performance,
        bids: Bids,
        key: bytes,
        outcome: StepOutcome | TokenAuctionError,
        latency_ms: float,
    ) -> Iterator[Event]:
        auction = performance.auction
        if isinstance(outcome, TokenAuctionError):
            if bids.is_spent:
                yield self._settle(performance, "budget_spent" if "budget_spent" in bids.status else "no_bid")
            else:
                yield from self._fail(performance, outcome.code, str(outcome))
            return
        tokenizer = self.model.tokenizer
        text = added_text(tokenizer, performance.stream, outcome.token, auction.text)
        yield performance.recorder.token(outcome, bids, text, key, latency_ms)
        reason = "end" if outcome.token in tokenizer.end_ids else auction.limit_reached
        if reason:
            yield self._settle(performance, reason)

    def _settle(self, performance: Performance, reason: str) -> Event:
        performance.auction.settle(reason, performance.stream.finish())
        return self._end(performance)

    def _fail(self, performance: Performance, code: str, message: str) -> Iterator[Event]:
        yield performance.recorder.error(code, message)
        performance.auction.fail()
        yield self._end(performance)

    def _end(self, performance: Performance) -> Event:
        """Free the rows and close the record."""
        if performance.gang is not None:
            self.model.release(performance.gang)
        for queue in (self.scheduler.running, self.scheduler.waiting):
            if performance in queue:
                queue.remove(performance)
        assert performance.auction.state not in LIVE, "an auction ends before its record is closed"
        return performance.recorder.settled()

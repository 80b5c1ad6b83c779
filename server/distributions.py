"""Distributions that agents with models of their own send: who is asked, how long anybody waits, what came in time.

    step.awaited → ask whoever is connected and not suspended → reports, until all are there or the time is over
                 → (commit-reveal: their hashes, on the ledger) → the decoder, for which whoever is missing is absent

A report is checked when it comes: vocabulary, form, that it sums to 1. What is refused changes nothing, and the step
stays open to a better one until its time is over. It must not know sockets, nor how a report is written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.report import Report
from tokenauction.server.circuit_breaker import CircuitBreaker
from tokenauction.server.decoding import DecoderStopped, DecodingThread
from tokenauction.server.legality import SESSION_CODES
from tokenauction.server.live_auction import LiveAuction
from tokenauction.server.refusal import Refused
from tokenauction.server.telemetry import Telemetry

MIN_PREFIX = 16  # hexadecimal digits of a vocabulary's hash that a report names at least


class Source(Protocol):
    """A connection on which an agent with a model of its own has joined."""

    def open_step(
        self, auction_id: str, agent_id: str, step: int, deadline_ms: int, token_ids: Sequence[int], *, is_first: bool
    ) -> None:
        """Ask for the distribution behind `token_ids`; `is_first` on this connection."""

    def close_step(self, auction_id: str, agent_id: str, step: int, missed: CircuitBreaker | None) -> None:
        """Nothing is awaited any more; `missed` where the agent's time ran out."""


@dataclass
class _Agent:
    """One agent with a model of its own, in one auction."""

    source: Source | None = None
    was_asked: bool = False  # on this connection
    breaker: CircuitBreaker = field(default_factory=CircuitBreaker)


@dataclass
class _OpenStep:
    """A step that waits."""

    live: LiveAuction
    step: int
    timer: asyncio.TimerHandle
    asked: set[str]  # who has not answered yet
    since: float  # loop time
    reports: dict[str, Report] = field(default_factory=dict)


class DistributionDesk:
    """Collects the distributions of all auctions of one house; every method is called on its event loop."""

    def __init__(
        self,
        decoder: Decoder,
        thread: DecodingThread,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        telemetry: Telemetry,
    ) -> None:
        """`spawn` does something in the background; an error of it ends the server."""
        self.decoder = decoder
        self.thread = thread
        self.spawn = spawn
        self.telemetry = telemetry
        self._agents: dict[str, dict[str, _Agent]] = {}  # by auction and id
        self._open: dict[str, _OpenStep] = {}  # by auction

    def attach(self, auction_id: str, agent_id: str, source: Source) -> None:
        """From the next step on, `source` is asked for this agent, and nobody else."""
        agent = self._agents.setdefault(auction_id, {}).setdefault(agent_id, _Agent())
        if agent.source is not None and agent.source is not source:
            self._excuse(auction_id, agent_id, agent.source)
        agent.source, agent.was_asked = source, False

    def detach(self, source: Source) -> None:
        """The connection is gone: its agents are silent until they are back, and nobody waits for them."""
        for auction_id, agents in list(self._agents.items()):
            for agent_id, agent in agents.items():
                if agent.source is source:
                    agent.source = None
                    self._excuse(auction_id, agent_id, source)

    def begin(self, live: LiveAuction, step: int) -> None:
        """The decoder awaits the reports for this step: ask for them."""
        agents = self._agents.get(live.auction_id, {})
        assert live.performance is not None, "a text that is written has a performance"
        token_ids = live.performance.token_ids[:step]
        tmax_ms = live.request.tmax_token_ms
        loop = asyncio.get_running_loop()
        timer = loop.call_later(tmax_ms / 1000, self._time_out, live.auction_id, step)
        asked = {
            agent_id
            for agent_id, agent in agents.items()
            if agent.source is not None and agent_id not in live.left and agent.breaker.lets_through(step)
        }
        self._open[live.auction_id] = _OpenStep(live, step, timer, asked, loop.time())
        for agent_id in sorted(asked):
            agent = agents[agent_id]
            assert agent.source is not None, "who is asked is there"
            is_first, agent.was_asked = not agent.was_asked, True
            agent.source.open_step(live.auction_id, agent_id, step, tmax_ms, token_ids, is_first=is_first)
        self._finish_if_complete(live.auction_id)

    def submit(self, auction_id: str, agent_id: str, step: int, vocabulary_hash: str, report: Report) -> None:
        """What an agent says of a step; raises Refused (step_not_open, wrong_vocabulary) or InvalidDistribution."""
        waiting = self._open.get(auction_id)
        if waiting is None or waiting.step != step or agent_id not in waiting.asked:
            raise Refused("step_not_open", SESSION_CODES["step_not_open"])
        self.check_vocabulary(vocabulary_hash)
        report.check(self.decoder.model.tokenizer.vocab_size)
        waiting.reports[agent_id] = report
        waiting.asked.discard(agent_id)
        self._agents[auction_id][agent_id].breaker.answer()
        self.telemetry.reported(asyncio.get_running_loop().time() - waiting.since)
        self._finish_if_complete(auction_id)

    def check_vocabulary(self, vocabulary_hash: str) -> None:
        """Raise Refused (wrong_vocabulary) where it names another one; a frame names the first 16 digits."""
        ours = self.decoder.model.tokenizer.hash
        if len(vocabulary_hash) < MIN_PREFIX or not ours.startswith(vocabulary_hash):
            raise Refused("wrong_vocabulary", f"ids mean tokens of the vocabulary {ours}, not of {vocabulary_hash}")

    def forget(self, auction_id: str) -> None:
        """The auction is over."""
        waiting = self._open.pop(auction_id, None)
        if waiting is not None:
            waiting.timer.cancel()
            self._close(waiting, is_late=False)
        self._agents.pop(auction_id, None)

    def close(self) -> None:
        """Nothing is decoded any more."""
        for waiting in self._open.values():
            waiting.timer.cancel()
        self._open.clear()

    def _excuse(self, auction_id: str, agent_id: str, source: Source) -> None:
        """Wait no longer for an agent whose connection is another one now, or none."""
        waiting = self._open.get(auction_id)
        if waiting is not None and agent_id in waiting.asked:
            waiting.asked.discard(agent_id)
            source.close_step(auction_id, agent_id, waiting.step, None)
            self._finish_if_complete(auction_id)

    def _time_out(self, auction_id: str, step: int) -> None:
        waiting = self._open[auction_id]
        assert waiting.step == step, "a step's timer ends with it"
        self._close(waiting, is_late=True)
        self._finish_if_complete(auction_id)

    def _close(self, waiting: _OpenStep, *, is_late: bool) -> None:
        """Nobody is asked any more."""
        for agent_id in sorted(waiting.asked):
            agent = self._agents[waiting.live.auction_id][agent_id]
            if is_late:
                agent.breaker.miss(waiting.step)
                is_suspended = not agent.breaker.lets_through(waiting.step + 1)
                self.telemetry.missed(waiting.live.auction_id, agent_id, is_suspended=is_suspended)
            if agent.source is not None:
                missed = agent.breaker if is_late else None
                agent.source.close_step(waiting.live.auction_id, agent_id, waiting.step, missed)
        waiting.asked.clear()

    def _finish_if_complete(self, auction_id: str) -> None:
        waiting = self._open.get(auction_id)
        if waiting is None or waiting.asked:
            return
        del self._open[auction_id]
        waiting.timer.cancel()
        self.spawn(self._supply(waiting))

    async def _supply(self, waiting: _OpenStep) -> None:
        """Hand the reports over; with commit-reveal their hashes are on the ledger before the step's key is used."""
        live, reports = waiting.live, waiting.reports
        if not live.is_live:  # it ends meanwhile, and nothing stands behind its last event
            return
        if live.request.commit_reveal and reports:
            agents = [{"id": agent_id, "report_hash": report.hash} for agent_id, report in sorted(reports.items())]
            await live.say("distributions.committed", {"step": waiting.step, "agents": agents})
        with suppress(InvalidInput, DecoderStopped):  # the auction was cancelled meanwhile, or nothing is written more
            await self.thread.call(partial(self.decoder.supply, live.auction_id, waiting.step, reports))

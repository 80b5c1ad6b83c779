"""The house: auctions from their creation to their settlement, on one decoder, in front of one ledger.

    create → ledger (holds) → [agents join] → decoder → tell (ledger queued, published at once) → ledger → settled

Durable before anybody hears of it: a creation, a hold, a bid, a settlement. A bid counts from the step that its answer
names, which is drawn behind its commit. Whoever reads (hub.py) is never waited for. It must not know sockets, nor how a
request was made.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from tokenauction.engine.auction import LIVE
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.events import Event
from tokenauction.engine.performance import Performance
from tokenauction.engine.receipt import canonical, commitment
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import ModelError
from tokenauction.server.auction_request import AuctionRequest
from tokenauction.server.decoding import DecoderStopped, DecodingThread
from tokenauction.server.distributions import DistributionDesk
from tokenauction.server.hub import Channel
from tokenauction.server.ledger import Ledger, Replayed
from tokenauction.server.live_auction import LiveAuction, Phase
from tokenauction.server.pace import hurry, rest
from tokenauction.server.play_money import PlayMoney
from tokenauction.server.ready import Prepare, ready
from tokenauction.server.refusal import Refused
from tokenauction.server.settlement import post
from tokenauction.server.telemetry import Telemetry

MAX_AUCTIONS = 256  # that join, run or settle at a time
RETRY_SECONDS = 5  # what those are told who come too early or too late


@dataclass(frozen=True)
class Accepted:
    """An auction that is on the ledger."""

    auction_id: str
    is_replay: bool  # the same request had come before


class House:
    """Runs auctions; every method is called on the event loop that `start` was called on."""

    def __init__(
        self,
        decoder: Decoder,
        prepare: Prepare,
        ledger: Ledger,
        *,
        max_auctions: int = MAX_AUCTIONS,
        play_micros: int = 0,
        takes_seeds: bool = False,
        telemetry: Telemetry | None = None,
    ) -> None:
        """`prepare(spec)` writes the prompts of a spec's rows and its policy; it is called in some thread.

        `takes_seeds` lets auctions choose theirs, to be repeated: for those who try the server out alone.
        """
        self.decoder = decoder
        self.prepare = prepare
        self.ledger = ledger
        self.max_auctions = max_auctions
        self.takes_seeds = takes_seeds
        self.play_money = PlayMoney(ledger, play_micros)
        self.live: dict[str, LiveAuction] = {}
        self.asides: dict[str, Callable[[Event], None]] = {}  # who hears of texts that are no auctions (studies.py)
        self.is_draining = False
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.telemetry = telemetry or Telemetry()
        ledger.watch_commits(self.telemetry.committed)
        self.thread = DecodingThread(decoder, self._take, self.telemetry.stepped)
        self.desk = DistributionDesk(decoder, self.thread, self.spawn, self.telemetry)
        self._num_creating = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self.thread.ended.add_done_callback(self._note)
        self.ledger.failure.add_done_callback(self._note)

    # --- Creating ------------------------------------------------------------------------------------------------

    async def create(self, source: Mapping[str, Any], owner: str, idempotency_key: str | None = None) -> Accepted:
        """Put an auction on the ledger and begin it, or its time to join.

        Raises the engine's errors for a spec that cannot be, Refused (draining, capacity), and the ledger's
        (insufficient_funds, idempotency_conflict).
        """
        if self.is_draining:
            raise Refused("draining", f"the server is shutting down: try another one, or this in {RETRY_SECONDS} s")
        request = AuctionRequest.from_mapping(source)
        if request.template.seed is not None and not self.takes_seeds:
            raise Refused("seed_given", "this server draws its seeds itself: who knew one could tell bids from hashes")
        if len(self.live) + self._num_creating >= self.max_auctions:
            raise Refused("capacity", f"{self.max_auctions} auctions are running, which is the limit; try again later")
        self._num_creating += 1
        self._idle.clear()
        try:
            return await self._create(request, owner, idempotency_key)
        finally:
            self._num_creating -= 1
            self._look_idle()

    async def _create(self, request: AuctionRequest, owner: str, key: str | None) -> Accepted:
        auction_id = f"auc_{self.decoder.entropy(16).hex()}"
        drawn, asked = Seed.drawn(self.decoder.entropy(64)), request.template.seed
        live = self.new_live(auction_id, request, owner, drawn if asked is None else Seed.of_caller(asked))
        live.agents = {agent.id: agent for agent in request.agents}
        performance = None if request.tmax_join_ms else await self.perform(live, request.spec_of(request.agents))
        promise = commitment(live.seed.value, live.seed.nonce, {"spec": {**request.to_mapping(), "seed": None}})
        document = live.document
        digest = hashlib.sha256(canonical([owner, request.to_mapping()])).hexdigest()
        scoped = None if key is None else f"{owner}/{key}"
        await self.play_money.give(request.holds)
        outcome = await self.ledger.create_auction(auction_id, document, request.holds, scoped, digest, promise)
        if isinstance(outcome, Replayed):
            return Accepted(outcome.auction_id, True)
        self.adopt(live)
        if performance is None:
            self.let_join(live)
        else:
            await self.begin(live, performance)
        return Accepted(auction_id, False)

    def adopt(self, live: LiveAuction) -> None:
        """From now on the auction is the house's."""
        self.live[live.auction_id] = live
        self._idle.clear()
        self.telemetry.adopted(live)

    def new_live(self, auction_id: str, request: AuctionRequest, owner: str, seed: Seed) -> LiveAuction:
        """An auction that nobody knows of yet."""
        _, now = self.decoder.stamp()
        return LiveAuction(auction_id, request, owner, seed, now, self, self.decoder.stamp, Channel(auction_id))

    async def perform(self, live: LiveAuction, spec: AuctionSpec) -> Performance:
        """The engine's side of an auction; raises TokenAuctionError or ModelError where the model cannot write it."""
        is_paced = live.request.token_ms > 0 and not self.is_draining
        return await ready(self.decoder, self.prepare, spec, live.auction_id, live.seed, is_paced=is_paced)

    async def begin(self, live: LiveAuction, performance: Performance) -> None:
        """The first event, and the decoder's turn."""
        live.performance = performance
        live.phase = Phase.RUNNING
        performance.is_created = True
        await live.tell_durable(performance.recorder.created())  # no crash takes back what was seen
        await self.thread.call(partial(self.decoder.enqueue, performance))
        live.started.set()

    def let_join(self, live: LiveAuction) -> None:
        """Agents may join until the time for it, which began with the auction, is over."""
        _, now = self.decoder.stamp()
        limit = live.request.tmax_join_ms / 1000
        self.spawn(self._begin_after(live, min(max(live.created_at + limit - now, 0.0), limit)))

    async def _begin_after(self, live: LiveAuction, seconds: float) -> None:
        """Wait until the time to join is over; then begin with whoever is there."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await live.no_more_joins.wait()
        if live.phase is not Phase.JOINING:
            return
        live.phase = Phase.RUNNING
        try:
            performance = await self.perform(live, live.request.spec_of(tuple(live.agents.values())))
        except (TokenAuctionError, ModelError) as error:
            await self.void(live, getattr(error, "code", "error"), str(error))
        else:
            await self.begin(live, performance)

    # --- Ending --------------------------------------------------------------------------------------------------

    async def cancel(self, auction_id: str) -> None:
        """Stop an auction at the next step: what was written is charged; while agents join, nothing is."""
        live = self.find_live(auction_id)
        if live.phase is Phase.JOINING:
            live.no_more_joins.set()
            await self.void(live, "cancelled", "the auction was cancelled before its text began")
            return
        await live.started.wait()
        if live.performance is not None and live.performance.auction.state in LIVE:
            with suppress(TokenAuctionError, DecoderStopped):  # it has ended in the meantime
                await self.thread.call(partial(self.decoder.cancel, auction_id))

    async def settle(self, live: LiveAuction, event: Event) -> None:
        """Post what is owed and give back the rest; then tell everybody."""
        live.phase = Phase.SETTLING
        settled = live.numbered(event.to_mapping())
        await live.record(settled, event.receipt[-1])
        await post(self.ledger, live.auction_id, settled)
        live.show(settled)
        self._forget(live)

    async def void(self, live: LiveAuction, code: str, message: str) -> None:
        """End an auction whose text has not begun: nothing is charged, all that was held is given back."""
        live.phase = Phase.SETTLING
        await live.publish_durable(live.envelope("error", {"code": code, "message": message}))
        settled = live.numbered(live.envelope("auction.settled", live.nothing_charged(code)))
        await live.record(settled)
        await self.ledger.void(live.auction_id, code)
        live.show(settled)
        self._forget(live)

    def _forget(self, live: LiveAuction) -> None:
        live.phase = Phase.OVER
        self.desk.forget(live.auction_id)
        live.started.set()
        live.channel.close()
        del self.live[live.auction_id]
        self._look_idle()

    async def drain(self, seconds: float) -> None:
        """Take no new auction, and return when all others have settled; those that take too long are cancelled."""
        self.is_draining = True
        for live in self.live.values():
            live.no_more_joins.set()
        await hurry(list(self.live.values()), self.thread)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        for auction_id in list(self.live):
            with suppress(Refused):  # it has settled meanwhile, or is about to
                await self.cancel(auction_id)
        await self._idle.wait()
        for study_id in list(self.asides):  # nobody pays for these, and nobody waits for them
            with suppress(TokenAuctionError, DecoderStopped):
                await self.thread.call(partial(self.decoder.cancel, study_id))

    async def stop(self) -> None:
        """End the decoder's thread; auctions that are live stay on the ledger, to be recovered."""
        await self.thread.stop()
        self.desk.close()
        for task in list(self._tasks):
            task.cancel()

    # --- What the parts above share ------------------------------------------------------------------------------

    def find_live(self, auction_id: str) -> LiveAuction:
        """The auction, while it takes bids; Refused (not_live) otherwise."""
        live = self.live.get(auction_id)
        if live is None or not live.is_live:
            raise Refused("not_live", f"{auction_id} is no auction that takes bids")
        return live

    def append(
        self, auction_id: str, epoch: int, seq: int, event: Mapping[str, Any], charges: Mapping[str, int] | None = None
    ) -> asyncio.Future[int]:
        """Queue an event for the ledger; a ledger that fails ends the server, which recovers when it starts again."""
        future = self.ledger.append(auction_id, epoch, seq, event, charges)
        future.add_done_callback(self._note)
        return future

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Do something in the background; an error of it ends the server."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(self._note)

    def _take(self, events: Sequence[Event]) -> None:
        """One step's events, on the loop."""
        durable: asyncio.Future[int] | None = None
        for event in events:
            if (aside := self.asides.get(event.auction_id)) is not None:
                aside(event)
                continue
            live = self.live[event.auction_id]
            if event.type == "auction.settled":
                live.phase = Phase.SETTLING
                self.spawn(self.settle(live, event))
            elif event.type == "step.awaited":
                self.desk.begin(live, event.fields["step"])
            else:
                durable = live.tell(event)
                if event.type == "auction.token" and live.request.token_ms:
                    self.spawn(rest(live, self.thread))
        if durable is None:
            self.thread.release()
        else:
            durable.add_done_callback(lambda _: self.thread.release())

    def _note(self, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and (error := future.exception()) and not self.failure.done():
            self.failure.set_exception(error)

    def _look_idle(self) -> None:
        if not self.live and not self._num_creating:
            self._idle.set()

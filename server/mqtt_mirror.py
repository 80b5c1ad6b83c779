"""Everything an auction tells, told to a broker as well: behind the ledger's commit, in order, at least once.

    ledger (outbox.py) → view of the public → publish, QoS 1 → acknowledged → place on the ledger

One event of an auction is under way at a time, so that a broker that dies makes at most one of each come twice; (epoch,
seq) says which. Nothing is kept in memory for a broker that is away. It must not know how a connection comes about.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from tokenauction.server import mqtt_topics as topics
from tokenauction.server.catalogue import Catalogue
from tokenauction.server.hub import Viewpoint, encode_view, payments
from tokenauction.server.mqtt_link import Link
from tokenauction.server.outbox import Unsent

NAME = "mqtt"  # of this mirror, on the ledger
BATCH = 256  # events that are read at a time
STATE_SECONDS = 3_600  # that a broker keeps the state of an auction that is over
PUBLIC = Viewpoint("public")
EVERYBODY = Viewpoint("admin")


class Mirror:
    """The outbound half."""

    def __init__(self, catalogue: Catalogue, prefix: str, *, tells_payments: bool) -> None:
        """`tells_payments`: each agent's topic gets its `payment.posted`, which the broker must keep from others."""
        self.catalogue = catalogue
        self.house = catalogue.house
        self.outbox = catalogue.house.ledger.outbox(NAME)
        self.prefix = prefix
        self.tells_payments = tells_payments
        self._news = asyncio.Event()
        self._told: dict[str, int] = {}  # acknowledged, and not yet on the ledger
        self._states: dict[str, str] = {}  # of live auctions, as the broker was told
        self._is_caught_up = asyncio.Event()

    async def begin(self) -> None:
        """Hear of what becomes durable."""
        await self.outbox.begin()
        self.house.ledger.watch_commits(lambda seconds, num_writes: self._hear())

    def _hear(self) -> None:
        self._is_caught_up.clear()
        self._news.set()

    async def run(self, link: Link) -> None:
        """Tell a broker what it was not told yet, and what comes; ends with the link."""
        self._states.clear()  # it may have forgotten what it was to retain
        while True:
            self._news.clear()
            unsent = await self.outbox.unsent(BATCH)
            await self._tell_states(link)  # an auction is the house's a moment after it is on the ledger
            if not unsent:
                self._is_caught_up.set()
                await self._news.wait()
                continue
            async with asyncio.TaskGroup() as group:
                for _, events in groupby(unsent, key=lambda entry: entry.auction_id):
                    group.create_task(self._tell_stream(link, list(events)))
            await self.note_told()

    async def note_told(self) -> None:
        """Put on the ledger what the broker has acknowledged."""
        told, self._told = self._told, {}
        if told:
            await self.outbox.mark(told)

    async def finish(self, seconds: float) -> None:
        """Return when everything is told, or the time is over."""
        with suppress(TimeoutError):  # the ledger knows what is left
            async with asyncio.timeout(seconds):
                await self._is_caught_up.wait()

    async def _tell_stream(self, link: Link, entries: Sequence[Unsent]) -> None:
        """Some events of one auction, one behind the other."""
        for entry in entries:
            event = {**entry.event, "durable_seq": entry.seq}
            is_last = event["type"] == "auction.settled"
            if is_last and self.tells_payments:
                await self._tell_payments(link, event)
            topic = topics.events(self.prefix, entry.auction_id, event["type"])
            await link.publish(topic, encode_view(event, PUBLIC, is_settled=is_last))
            if is_last:
                await self._tell_end(link, entry.auction_id)
            self._told[entry.auction_id] = entry.seq
            self.house.telemetry.mirrored()

    async def _tell_payments(self, link: Link, settled: Mapping[str, Any]) -> None:
        for text in payments(settled, EVERYBODY):
            agent_id = json.loads(text)["agent_id"]
            await link.publish(topics.payments(self.prefix, agent_id), text)

    async def _tell_states(self, link: Link) -> None:
        """Where live auctions stand, each time that this is another place."""
        for live in list(self.house.live.values()):
            if live.is_live and self._states.get(live.auction_id) != live.phase:
                self._states[live.auction_id] = str(live.phase)
                await self._tell_state(link, live.summary())

    async def _tell_end(self, link: Link, auction_id: str) -> None:
        self._states.pop(auction_id, None)
        kept = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        kept.MessageExpiryInterval = STATE_SECONDS
        record = await self.house.ledger.auction(auction_id)
        assert record is not None, "its events are on the ledger"
        summary = await self.catalogue.describe(auction_id)
        await self._tell_state(link, {**summary, "state": record.state}, kept)

    async def _tell_state(self, link: Link, summary: Mapping[str, Any], kept: Properties | None = None) -> None:
        topic = topics.auction_state(self.prefix, summary["auction_id"])
        await link.publish(topic, json.dumps(summary), retain=True, properties=kept)

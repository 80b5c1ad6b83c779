"""The broker beside the server: connected as long as there is one to connect to; no auction ever waits for it.

    connect (Last Will: offline) → online → mirror and bids, until the connection ends → wait → connect …

After a reconnection the mirror rests for RECONNECT_REST: a broker that was restarted may have forgotten who subscribed,
and subscribers need a moment to come back. It must not know topics' contents (mqtt_mirror.py, mqtt_bids.py).
"""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import suppress
from dataclasses import dataclass

import aiomqtt

from tokenauction.server.context import Context
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.log import logger
from tokenauction.server.mqtt_bids import BidDesk
from tokenauction.server.mqtt_link import LOST, QOS, Link, link_to
from tokenauction.server.mqtt_mirror import Mirror
from tokenauction.server.mqtt_topics import Address, server_state
from tokenauction.server.wire_error import one_line

FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between two tries to connect
RECONNECT_REST = 3.0  # seconds; mosquitto_sub tries once a second
WELL_SECONDS = 10.0  # that a connection lasts where all is well
FINISH_SECONDS = 5.0  # for what is left when the server stops; the ledger keeps the rest

log = logger("tokenauction.server.mqtt")


@dataclass(frozen=True)
class MqttSettings:
    """What a server's owner may choose."""

    address: Address
    trusts_broker: bool = False  # who may publish to agents/ID/bids acts for ID
    tells_payments: bool = False  # agents/ID/payments, which the broker keeps from others
    reconnect_rest: float = RECONNECT_REST


class Mqtt:
    """A companion of a server."""

    def __init__(self, context: Context, settings: MqttSettings) -> None:
        self.settings = settings
        address = settings.address
        self.mirror = Mirror(context.catalogue, address.prefix, tells_payments=settings.tells_payments)
        self.desk = BidDesk(context, address.prefix, trusts_broker=settings.trusts_broker)
        self.is_connected = False
        self._telemetry = context.house.telemetry
        self._running: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def is_listening(self) -> bool:
        """Whether bids have come to be heard; a broker that went away since is looked for."""
        return self.desk.is_listening.is_set()

    async def start(self) -> None:
        """Begin; returns at once, whether there is a broker or not."""
        await self.mirror.begin()
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(_note)

    async def stop(self) -> None:
        """Tell what is left, if the broker is there and quick; then say that the server is offline, and disconnect."""
        if self._running is None:
            return
        if self.is_connected:
            await self.mirror.finish(FINISH_SECONDS)
        self._stopping.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FINISH_SECONDS):
                await asyncio.wait([self._running])
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self.desk.finish()
        with suppress(LedgerError):  # it has failed, which others say; then some events come twice
            await self.mirror.note_told()

    async def _run(self) -> None:
        """One connection after the other."""
        delay, is_again, said = FIRST_DELAY, False, ""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            since = loop.time()
            try:
                async with link_to(self.settings.address, self._will()) as link:
                    log.info("connected to the broker", broker=str(self.settings.address))
                    await self._serve(link, is_again)
            except LOST as lost:
                is_again = True
                if loop.time() - since > WELL_SECONDS:
                    delay, said = FIRST_DELAY, ""
                if str(lost) != said:  # once, not with every try
                    said = str(lost)
                    log.warning("no broker: trying on", broker=str(self.settings.address), reason=one_line(said))
            await self.mirror.note_told()
            with suppress(TimeoutError):
                async with asyncio.timeout(delay * random.uniform(0.5, 1.0)):
                    await self._stopping.wait()
            delay = min(LONGEST_DELAY, 2 * delay)

    async def _serve(self, link: Link, is_again: bool) -> None:
        """Mirror and bids, until the server stops; raises one of LOST when the connection ends."""
        await self._say(link, "online")
        bidding = asyncio.create_task(self.desk.run(link))
        mirroring = asyncio.create_task(self._mirror(link, is_again))
        stopping = asyncio.create_task(self._stopping.wait())
        tasks: list[asyncio.Task[None] | asyncio.Task[bool]] = [bidding, mirroring, stopping]
        self.is_connected = True
        self._telemetry.broker(is_connected=True)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_connected = False
            self._telemetry.broker(is_connected=False)
            for task in tasks:
                task.cancel()
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise _first_of(outcome)
        await self._say(link, "offline")

    async def _mirror(self, link: Link, is_again: bool) -> None:
        if is_again:
            await asyncio.sleep(self.settings.reconnect_rest)
        await self.mirror.run(link)

    def _will(self) -> aiomqtt.Will:
        return aiomqtt.Will(self._state_topic, _state("offline"), QOS, retain=True)

    async def _say(self, link: Link, state: str) -> None:
        await link.publish(self._state_topic, _state(state), retain=True)

    @property
    def _state_topic(self) -> str:
        return server_state(self.settings.address.prefix)


def _note(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()):
        log.error("the broker is told nothing more until the server starts again", exc_info=error)


def _state(state: str) -> str:
    return json.dumps({"state": state})


def _first_of(error: Exception) -> Exception:
    """What several tasks failed by, which is the same connection."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error

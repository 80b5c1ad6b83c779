"""One WebSocket: what it sends becomes calls of the house, what it may see is sent to it; nothing waits for it.

Two tasks: one reads, decodes, asks the session what is legal and starts what was asked; one writes replies and the
streams that the peer subscribed to. An event that is the next of its stream goes out past them when it is published,
where nothing waits and the peer takes it. Whoever does not read is told so (a viewer: `stream.gap` and a snapshot) and
closed with 4008; whoever does not even take that within SEND_SECONDS is cut off. It must not know HTTP.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol

from tokenauction.server import step_notices
from tokenauction.server.catalogue import Catalogue
from tokenauction.server.circuit_breaker import CircuitBreaker
from tokenauction.server.hub import Published, Reader
from tokenauction.server.legality import EXPIRED, SESSION_CODES
from tokenauction.server.log import logger
from tokenauction.server.own_agents import OwnAgents
from tokenauction.server.refusal import Refused
from tokenauction.server.requests import EXPECTED, Requests
from tokenauction.server.session import Close, Reply, Session
from tokenauction.server.wire import (
    AgentJoin,
    AgentLeave,
    BidUpdate,
    ClientMessage,
    ServerMessage,
    Subscribe,
    Unsubscribe,
    encode,
)

SEND_SECONDS = 10.0  # for the peer to take what is sent to it
MAX_REPLIES = 256  # that wait to be sent
MAX_IN_FLIGHT = 32  # requests of one connection that wait for the ledger
BATCH = 64  # events of one stream in a row

CLOSE_GOING_AWAY, CLOSE_TOO_SLOW = 1001, 4008

log = logger()


class Socket(Protocol):
    """An accepted WebSocket, as ASGI gives it."""

    async def receive(self) -> Mapping[str, Any]:
        """The next `websocket.receive` or `websocket.disconnect`."""

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send `websocket.send` or `websocket.close`; waits while the peer does not read."""

    @property
    def offer(self) -> Callable[[bytes], bool]:
        """Sends a whole frame at once; False, having sent nothing, where the peer is not ready."""


class Connection:
    """One peer."""

    def __init__(
        self,
        socket: Socket,
        abort: Callable[[], None],
        session: Session,
        requests: Requests,
        catalogue: Catalogue,
        clock: Callable[[], float],
    ) -> None:
        """`abort` ends the connection without waiting for the peer; `clock` gives seconds since 1970."""
        self.socket = socket
        self.abort = abort
        self.session = session
        self.requests = requests
        self.catalogue = catalogue
        self.clock = clock
        self.session_id = f"ses_{uuid.uuid4().hex}"
        self.readers: dict[str, Reader] = {}  # by auction
        self.own = OwnAgents(catalogue.house.live, self._auction_over)
        self._replies: deque[str] = deque()
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._is_leaving = False
        self._is_writing = False  # the writing task is in the middle of something
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Serve the peer until it leaves or is closed."""
        self.reply(self.session.greet(self.session_id).message)
        reading = asyncio.create_task(self._read())
        writing = asyncio.create_task(self._write())
        try:
            await asyncio.wait([reading, writing], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, writing):
                task.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            if self._tasks:  # a bid that is on the ledger must reach its auction, whoever hears of it
                await asyncio.wait(self._tasks)
            self.requests.house.desk.detach(self)
            for auction_id in list(self.readers):
                self._unsubscribe(auction_id)
            self.own.close()

    def open_step(
        self, auction_id: str, agent_id: str, step: int, deadline_ms: int, token_ids: Sequence[int], *, is_first: bool
    ) -> None:
        """Ask the peer for a distribution; see distributions.py."""
        self.session.open_step(auction_id, agent_id, step)
        asked = (auction_id, agent_id, step, deadline_ms, token_ids)
        self.reply(step_notices.opened(self.requests.stamp, *asked, is_first=is_first))

    def close_step(self, auction_id: str, agent_id: str, step: int, missed: CircuitBreaker | None) -> None:
        """The step's time is over, or it is somebody else's; see distributions.py."""
        self.session.close_step(auction_id, agent_id)
        if missed is not None:
            self.reply(step_notices.missed(self.requests.stamp, auction_id, agent_id, step, missed))

    def leave(self) -> None:
        """Close as soon as everything that the peer is waiting for has been sent."""
        self._is_leaving = True
        self._wake.set()

    def expel(self) -> None:
        """The token that opened this is gone: nothing that comes is obeyed any more, and the connection closes."""
        self.session.expires = -math.inf
        self._close(EXPIRED, "the token has expired or was revoked")

    def reply(self, message: ServerMessage) -> None:
        """Queue an answer; a peer with too many of them does not read."""
        if len(self._replies) >= MAX_REPLIES:
            self._drop("answers are not read")
        else:
            self._replies.append(encode(message).decode())
        self._wake.set()

    def _drop(self, reason: str) -> None:
        """The peer does not read."""
        if self._closing is None:
            self.requests.house.telemetry.dropped(self.session_id, is_agent=bool(self.own.by_auction), reason=reason)
        self._close(CLOSE_TOO_SLOW, reason)

    def _close(self, code: int, reason: str) -> None:
        self._closing = self._closing or (code, reason)
        self._wake.set()

    # --- What comes in -------------------------------------------------------------------------------------------

    async def _read(self) -> None:
        while (message := await self.socket.receive())["type"] == "websocket.receive":
            text = message.get("text")
            for item in self.session.take(text if text is not None else message.get("bytes") or b"", self.clock()):
                if isinstance(item, Reply):
                    self.reply(item.message)
                elif isinstance(item, Close):
                    self._close(item.code, item.reason)
                else:
                    await self._begin(item.message)

    async def _begin(self, message: ClientMessage) -> None:
        """Start what was asked for; too many at a time wait here, and with them what the peer sends next."""
        if isinstance(message, Unsubscribe):
            self._unsubscribe(message.auction_id)
            return
        await self._slots.acquire()
        task = asyncio.create_task(self._answer(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, message: ClientMessage) -> None:
        try:
            if isinstance(message, Subscribe):
                await self._subscribe(message)
            else:
                answer = await self.requests.do(message)
                if answer is not None:
                    self.reply(answer)
        except EXPECTED as error:
            self._refuse(message, error.code, str(error))
        except Exception:  # a defect of ours must not end what runs for others
            log.exception("a message could not be answered", kind=type(message).__name__, session_id=self.session_id)
            self._refuse(message, "internal", "the server failed at this; nothing is known of its effect")
        else:
            self.session.answer(message, accepted=True)
            if isinstance(message, AgentJoin):
                self.own.add(message.auction_id, message.agent_id)
                if message.own_model:
                    self.requests.house.desk.attach(message.auction_id, message.agent_id, self)
            if isinstance(message, AgentJoin | AgentLeave):
                self.own.attend(message.auction_id)
        finally:
            self._slots.release()

    def _refuse(self, message: ClientMessage, code: str, why: str) -> None:
        self.session.answer(message, accepted=False)
        if code == "not_live" and isinstance(message, AgentJoin | BidUpdate | AgentLeave):
            self.session.end_auction(message.auction_id)
        self.reply(self.session.refuse(message, code, why).message)

    def _auction_over(self, auction_id: str) -> None:
        if auction_id not in self.readers:  # who still reads it ends it with the last event
            self.session.end_auction(auction_id)

    async def _subscribe(self, message: Subscribe) -> None:
        auction_id = message.auction_id
        agent_id = message.agent_id or next(iter(self.own.of(auction_id)), None)
        if agent_id is not None and not self.requests.identity.acts_for(agent_id):
            raise Refused("not_your_agent", SESSION_CODES["not_your_agent"])
        viewpoint = await self.catalogue.viewpoint(auction_id, self.requests.identity, agent_id)
        reader = await self.catalogue.reader(auction_id, viewpoint, message.after_seq, message.epoch, self._wake.set)
        if reader.is_at_end:
            reader.channel.readers.discard(reader)
            raise Refused("over", f"{auction_id} is over: nothing follows its event {message.after_seq}")
        self._unsubscribe(auction_id)
        reader.push = self._push
        self.readers[auction_id] = reader
        if self.session.state_of(message) != "watching":  # it has unsubscribed meanwhile
            self._unsubscribe(auction_id)
        self._wake.set()

    def _unsubscribe(self, auction_id: str) -> None:
        reader = self.readers.pop(auction_id, None)
        if reader is not None:
            reader.channel.readers.discard(reader)

    # --- What goes out -------------------------------------------------------------------------------------------

    def _push(self, reader: Reader, published: Published) -> bool:
        """Send an event past the writing task, unless that has something to say before it."""
        is_idle = not self._is_writing and not self._replies and self._closing is None
        return is_idle and self.socket.offer(published.frame(reader.viewpoint))

    async def _write(self) -> None:
        while True:
            self._is_writing = False
            await self._wake.wait()
            self._wake.clear()
            self._is_writing = True
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    num_left = await self._write_some()
            except TimeoutError:
                self._drop("what is sent is not taken")
                self.abort()
                return
            if num_left and self._closing is None:
                self._wake.set()
                await asyncio.sleep(0)  # a long replay lets others have their turn
            elif self._closing is not None or (self._is_leaving and self._has_all):
                code, reason = self._closing or (CLOSE_GOING_AWAY, "the server is shutting down")
                with suppress(TimeoutError):
                    async with asyncio.timeout(SEND_SECONDS):
                        await self.socket.send({"type": "websocket.close", "code": code, "reason": reason})
                return

    async def _write_some(self) -> int:
        """Everything that waits, but of each stream at most a batch; how many streams have more."""
        while self._replies:
            await self._send(self._replies.popleft())
        num_left = 0
        for auction_id, reader in list(self.readers.items()):
            if self._closing is not None:
                return 0
            if reader.has_overflowed:
                await self._overflow(auction_id, reader)
                return 0
            texts = reader.take(BATCH)
            if texts is None:
                texts = await self.catalogue.replay(reader, BATCH)
            for text in texts:
                await self._send(text)
            if reader.is_at_end:
                self._unsubscribe(auction_id)
                self.session.end_auction(auction_id)
            num_left += not reader.is_at_end and reader.is_behind
        return num_left

    async def _overflow(self, auction_id: str, reader: Reader) -> None:
        """The peer reads more slowly than the auction is written: say so, and close."""
        agents = self.own.of(auction_id)
        for agent_id in agents:
            await self.requests.bidding.cut_off(auction_id, agent_id)
        if not agents:
            for notice in self.catalogue.gap(reader, self.requests.stamp):
                await self._send(encode(notice).decode())
        self._drop("events are not read as fast as they come; resume with after_seq")

    async def _send(self, text: str) -> None:
        await self.socket.send({"type": "websocket.send", "text": text})

    @property
    def _has_all(self) -> bool:
        return not self._replies and not self.readers and not self._tasks

"""A client of the server: create an auction, watch one, keep watching when the connection breaks.

    async with Client("http://127.0.0.1:8400") as client:
        async for event in client.create(spec):
            print(event.get("text", ""), end="")

Events are mappings as they come, fields and types that are not known here included. Whoever watches sees every `seq`
exactly once within an epoch; a `stream.reset` says that what came behind its `after_seq` is void. It must not know how
an auction is decided.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from tokenauction.server.wire import AuctionCancel, AuctionCreate, Subscribe, encode

FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0  # seconds between two tries to connect
GIVE_UP_SECONDS = 60.0  # without a connection
TOO_MANY = 429  # HTTP's status for whoever should come again later
MAX_MESSAGE = 8 * 2**20  # bytes that a server's message may have

LOST = (OSError, TimeoutError, WebSocketException)  # what is worth another try
SUBPROTOCOL = Subprotocol("tokenauction.v1")

Event = dict[str, Any]


class ServerError(Exception):
    """The server refused what was asked for; `code` is stable."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Unreachable(Exception):
    """No connection came about for too long."""


class Client:
    """One server, and who one is to it."""

    def __init__(
        self, url: str = "http://127.0.0.1:8400", token: str | None = None, *, give_up: float = GIVE_UP_SECONDS
    ):
        """`url` is the server's, http or https; `token` goes in a header and nowhere else."""
        self.url = url.rstrip("/")
        self.token = token
        self.give_up = give_up

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[ClientConnection]:
        """An open WebSocket; raises ServerError where the handshake is refused, OSError where nobody listens."""
        address = "ws" + self.url.removeprefix("http") + "/v1/stream"
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        try:
            async with connect(
                address, additional_headers=headers, compression=None, max_size=MAX_MESSAGE, subprotocols=[SUBPROTOCOL]
            ) as socket:
                yield socket
        except InvalidStatus as refused:
            raise _refusal(refused) from None

    async def create(self, spec: Mapping[str, Any]) -> AsyncIterator[Event]:
        """Begin an auction and yield its events, the `auction.accepted` in front; asking again begins no second one."""
        accepted = await self.begin(spec)
        yield accepted
        async for event in self.watch(accepted["auction_id"]):
            yield event

    async def begin(self, spec: Mapping[str, Any], idempotency_key: str | None = None) -> Event:
        """Begin an auction; the server's `auction.accepted`. Raises ServerError where it is refused."""
        request = AuctionCreate(spec=dict(spec), idempotency_key=idempotency_key or uuid.uuid4().hex)
        return await self._ask(request, "auction.accepted")

    async def cancel(self, auction_id: str) -> Event:
        """Stop an auction at its next token."""
        return await self._ask(AuctionCancel(auction_id=auction_id), "auction.accepted")

    async def watch(
        self, auction_id: str, after_seq: int = -1, epoch: int | None = None, agent_id: str | None = None
    ) -> AsyncIterator[Event]:
        """Every event behind `after_seq` to the last, over as many connections as it takes.

        `agent_id` is as whom, where the token may act for more than one agent.
        """
        delays = Delays(self.give_up)
        while True:
            try:
                async with self.connection() as socket:
                    request = Subscribe(auction_id=auction_id, after_seq=after_seq, epoch=epoch, agent_id=agent_id)
                    await socket.send(encode(request).decode())
                    async for text in socket:
                        event = _read(text)
                        if event.get("auction_id", auction_id) != auction_id or event["type"] == "session.created":
                            continue
                        delays.restart()
                        if event["type"] == "error" and "seq" not in event:
                            raise ServerError(event["code"], event["message"])
                        if "seq" in event:
                            after_seq, epoch = event["seq"], event.get("epoch")
                        yield event
                        if event["type"] == "auction.settled":
                            return
                reason: Exception = ConnectionError("the server closed the connection")
            except LOST as lost:
                reason = lost
            await delays.wait(reason)

    async def _ask(self, request: msgspec.Struct, answer: str) -> Event:
        delays = Delays(self.give_up)
        text = encode(request).decode()
        while True:
            try:
                async with self.connection() as socket:
                    await socket.send(text)
                    async for message in socket:
                        event = _read(message)
                        if event["type"] == answer:
                            return event
                        if event["type"] == "error":
                            raise ServerError(event["code"], event["message"])
                reason: Exception = ConnectionError("the server closed the connection")
            except LOST as lost:
                reason = lost
            await delays.wait(reason)


class Delays:
    """How long to wait before the next try: twice as long every time, and some of it by chance, so that not everybody
    comes back at once."""

    def __init__(self, give_up: float) -> None:
        self.give_up = give_up
        self.restart()

    def restart(self) -> None:
        """A connection has come about."""
        self._next = FIRST_DELAY
        self._since = time.monotonic()

    async def wait(self, reason: Exception) -> None:
        """Wait; raises Unreachable, for `reason`, after too long without a connection."""
        if time.monotonic() - self._since > self.give_up:
            raise Unreachable(f"no connection for {self.give_up:g} s: {reason}") from reason
        await asyncio.sleep(self._next * random.uniform(0.5, 1.0))
        self._next = min(LONGEST_DELAY, 2 * self._next)


def _read(message: str | bytes) -> Event:
    event = json.loads(message)
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        raise ServerError("invalid_message", "the server sent what is no event")
    return event


def _refusal(refused: InvalidStatus) -> Exception:
    """Why a handshake was refused: ServerError, or ConnectionError where it is worth another try."""
    status, body = refused.response.status_code, refused.response.body
    try:
        error = json.loads(body or b"")["error"]
        code, message = str(error["code"]), str(error["message"])
    except (ValueError, TypeError, KeyError):
        code, message = "http", f"the server answered the handshake with {status}"
    return ConnectionError(message) if status >= 500 or status == TOO_MANY else ServerError(code, message)

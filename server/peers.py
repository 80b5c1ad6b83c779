"""Who is connected: how many there may be, in all and from one address, and who must go because its token is gone.

A token that was revoked, by REST or by a command beside the server, or that has expired, closes the connections it
opened within TOKEN_SECONDS. It must not know what a connection says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenauction.server.auth import Doorkeeper
from tokenauction.server.connection import Connection
from tokenauction.server.open_streams import OpenStreams
from tokenauction.server.refusal import Refused

MAX_CONNECTIONS = 2_000  # WebSockets at a time
MAX_PER_ADDRESS = 1_000  # of them, from one address
TOKEN_SECONDS = 1.0  # between two looks at the tokens of those who are connected


class Peers:
    """The open WebSockets of one server."""

    def __init__(
        self,
        doorkeeper: Doorkeeper,
        streams: OpenStreams,
        max_connections: int = MAX_CONNECTIONS,
        max_per_address: int = MAX_PER_ADDRESS,
    ) -> None:
        """`streams` are those who read by HTTP, whose tokens are looked at too."""
        self.doorkeeper = doorkeeper
        self.streams = streams
        self.max_connections = max_connections
        self.max_per_address = max_per_address
        self.connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._num_from: Counter[str] = Counter()

    def check_room(self, address: str) -> None:
        """Refused (capacity) where one more connection from this address would be too many."""
        if len(self.connections) >= self.max_connections:
            raise Refused("capacity", f"{self.max_connections} connections are open, which is the limit")
        if self._num_from[address] >= self.max_per_address:
            raise Refused("capacity", f"{self.max_per_address} connections of your address are open: close some first")

    @contextmanager
    def present(self, connection: Connection, address: str) -> Iterator[None]:
        """A connection is open, and run by the task that calls this, until the block ends."""
        task = asyncio.current_task()
        assert task is not None, "a connection is run by a task"
        self.connections.add(connection)
        self._tasks.add(task)
        self._num_from[address] += 1
        try:
            yield
        finally:
            self.connections.discard(connection)
            self._tasks.discard(task)
            self._num_from[address] -= 1
            if not self._num_from[address]:
                del self._num_from[address]

    async def watch_tokens(self) -> None:
        """Close whoever's token is gone, for as long as the server runs."""
        while True:
            await asyncio.sleep(TOKEN_SECONDS)
            await self.close_gone()

    async def close_gone(self) -> None:
        """Close every connection whose token has expired or was revoked."""
        present = {connection.requests.identity for connection in self.connections} | self.streams.identities
        gone = await self.doorkeeper.gone(present)
        self.streams.cut_off(gone)
        for connection in self.connections:
            if connection.requests.identity in gone:
                connection.expel()

    async def say_goodbye(self, seconds: float) -> None:
        """Close every connection once it has what it waits for; those that do not read are cut off."""
        for connection in self.connections:
            connection.leave()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for connection in list(self.connections):
            connection.abort()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

"""A proxy in front of PostgreSQL that cuts a connection at the worst moment: around a commit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class WireCutter:
    """Passes everything on, until it is told to cut."""

    def __init__(self, target: int) -> None:
        self.target = target  # port
        self.cut_at: str | None = None  # "commit": it never arrives; "answer": nobody hears of it. Once.
        self.is_down = False  # no connection is taken
        self.num_cuts = 0
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Cut what is connected."""
        for writer in self._open:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        if self.is_down:
            writer.transport.abort()
            return
        upstream, downstream = await asyncio.open_connection("127.0.0.1", self.target)
        ends = {writer, downstream}
        self._open |= ends
        with suppress(OSError, asyncio.IncompleteReadError):
            async with asyncio.TaskGroup() as tasks:
                answers = tasks.create_task(self._pass_on(upstream, writer))
                await self._ask(reader, downstream, upstream, answers)
        for end in ends:
            end.transport.abort()
        self._open -= ends

    async def _ask(
        self,
        reader: asyncio.StreamReader,
        downstream: asyncio.StreamWriter,
        upstream: asyncio.StreamReader,
        answers: asyncio.Task[None],
    ) -> None:
        while asked := await reader.read(65_536):
            at = self.cut_at if b"COMMIT" in asked else None
            if at is not None:
                self.cut_at = None
                self.num_cuts += 1
                answers.cancel()
                await asyncio.wait([answers])
            if at == "commit":
                return
            downstream.write(asked)
            await downstream.drain()
            if at == "answer":
                await upstream.readuntil(b"COMMIT\0")
                return
        answers.cancel()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while found := await reader.read(65_536):
            writer.write(found)
            await writer.drain()
        writer.transport.abort()


@asynccontextmanager
async def wire_cutter(target: int) -> AsyncIterator[tuple[WireCutter, int]]:
    """A proxy in front of a port, and its own port."""
    cutter = WireCutter(target)
    server = await asyncio.start_server(cutter.serve, "127.0.0.1", 0)
    try:
        yield cutter, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        cutter.cut()

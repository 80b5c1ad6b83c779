"""Readers of a WebSocket that do as little as can be: note when bytes came, and take them apart when all is over.

So what is measured is the server, not what a client's library makes of its messages.
"""

from __future__ import annotations

import asyncio
import base64
import os
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
SMALL_BUFFER = 4_096  # bytes, of one who does not read


class RawReader(asyncio.Protocol):
    """Sends some messages behind the handshake, and keeps what comes until `last` stands in it."""

    def __init__(self, address: str, messages: list[bytes], last: bytes) -> None:
        self.chunks: list[tuple[float, bytes]] = []  # seconds since 1970, bytes
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._address = urlsplit(address)
        self._messages = messages
        self._last = last
        self._end = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a socket gives one"
        key = base64.b64encode(os.urandom(16)).decode()
        head = HANDSHAKE.format(path=self._address.path or "/", host=self._address.netloc, key=key)
        transport.write(head.encode())
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if not self.chunks:  # the messages must not come before the answer to the handshake
            self.transport.write(b"".join(map(_masked, self._messages)))
        self.chunks.append((time.time(), data))
        self._end = (self._end + data)[-len(self._last) - len(data) :]
        if self._last in self._end and not self.done.done():
            self.done.set_result(None)
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server closed the connection"))

    def messages(self) -> Iterator[tuple[float, bytes]]:
        """Every text message, and when its last byte came."""
        whole = b"".join(data for _, data in self.chunks)
        place = whole.index(b"\r\n\r\n") + 4
        arrived, chunks = 0, iter(self.chunks)
        at = 0.0
        while place + 2 <= len(whole):
            length, start = whole[place + 1] & 0x7F, place + 2
            if length == 126:
                length, start = struct.unpack_from("!H", whole, start)[0], start + 2
            elif length == 127:
                length, start = struct.unpack_from("!Q", whole, start)[0], start + 8
            end = start + length
            if end > len(whole):
                return
            while arrived < end:
                at, data = next(chunks)
                arrived += len(data)
            if whole[place] & 0x0F == 1:
                yield at, whole[start:end]
            place = end


async def read(address: str, messages: list[bytes], last: bytes) -> RawReader:
    """Read from a server until `last` has come."""
    parts = urlsplit(address)
    loop = asyncio.get_running_loop()
    _, reader = await loop.create_connection(
        lambda: RawReader(address, messages, last), parts.hostname or "", parts.port or 80
    )
    await reader.done
    return reader


def stick(address: str, messages: list[bytes]) -> socket.socket:
    """Somebody who asks for the same and then never reads; close the socket to let it go."""
    parts = urlsplit(address)
    stuck = socket.socket()
    stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    stuck.connect((parts.hostname or "", parts.port or 80))
    key = base64.b64encode(os.urandom(16)).decode()
    stuck.sendall(HANDSHAKE.format(path=parts.path or "/", host=parts.netloc, key=key).encode())
    stuck.recv(1_024)
    stuck.sendall(b"".join(map(_masked, messages)))
    return stuck


def _masked(text: bytes) -> bytes:
    """A client's text message; a mask of zeros changes nothing."""
    length = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + struct.pack("!H", len(text))
    return b"\x81" + length + bytes(4) + text

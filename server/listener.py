"""The socket that the server listens on, and uvicorn's protocols with the limits that it leaves to others.

A reader that does not read keeps megabytes in the kernel and in Python for as long as it answers pings, so accepted
sockets have small send buffers and a time after which unread bytes end the connection (Linux: TCP_USER_TIMEOUT). Who
opens a connection and does not finish its request is cut off. It must not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

SEND_BUFFER = 64 * 1024  # bytes in the kernel, for one connection
WRITE_BUFFER = 64 * 1024  # bytes in Python above which a sender waits
UNREAD_SECONDS = 10.0  # a peer that acknowledges nothing for so long is gone
REQUEST_SECONDS = 10.0  # from the connection to the end of the first request's headers
BACKLOG = 512


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket whose accepted sockets inherit the limits above; OSError where it cannot be had."""
    [(family, kind, protocol, _, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(AttributeError, OSError):  # not on every system; send time-outs still hold
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP with a time limit on a connection's first request; `scope["state"]["abort"]` cuts it off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self.app_state = {**self.app_state, "abort": transport.abort}
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._deadline.cancel()
        super().handle_websocket_upgrade(event)

    def _give_up(self) -> None:
        """The time is over: fine, if a request has been read."""
        has_request: bool = self.cycle is not None
        if not has_request:
            self.transport.abort()


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket whose application may cut the connection off without waiting for its peer."""

    def handle_connect(self, event: Any) -> None:
        """Give the application `scope["state"]["abort"]`."""
        self.app_state = {**self.app_state, "abort": self.abort}
        super().handle_connect(event)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.writable.set()  # whoever waits to send learns that it cannot

    async def send(self, message: Any) -> None:
        """As uvicorn's, which would take a handshake that was refused with a body for one that was forgotten."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def abort(self) -> None:
        """End the connection now; what was not sent is dropped."""
        self.transport.abort()

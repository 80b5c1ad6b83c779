"""The socket that the server listens on, and uvicorn's protocols with the limits that it leaves to others.

A reader that does not read keeps megabytes in the kernel and in Python for as long as it answers pings, so accepted
sockets have small send buffers and a time after which unread bytes end the connection (Linux: TCP_USER_TIMEOUT). Who
opens a connection and does not finish its request is cut off. It must not know what is served.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections import Counter
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from tokenauction.server.rate import address_key

SEND_BUFFER = 64 * 1024  # bytes in the kernel, for one connection
WRITE_BUFFER = 64 * 1024  # bytes in Python above which a sender waits
UNREAD_SECONDS = 10.0  # a peer that acknowledges nothing for so long is gone
REQUEST_SECONDS = 10.0  # from a request's first byte, and from the connection, to the end of its headers
BACKLOG = 512
MAX_SOCKETS = 4_000  # open connections of any kind
MAX_SOCKETS_PER_ADDRESS = 2_000  # of them, from one address that is no proxy on this machine
MAX_PINGS = 200  # of a WebSocket's peer within PINGS_SECONDS
PINGS_SECONDS = 10.0
MAX_FRAGMENTS = 1_000  # of one message
BROKEN = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
PROXIES = ("127.0.0.1", "::/64")  # what stands before the server on its own machine speaks for many
FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


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


def allow_many_files() -> None:
    """Let the process have as many open files as it may: every connection is one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a limit that cannot be used stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class HttpProtocol(H11Protocol):
    """uvicorn's HTTP with limits on how many connections there are, and on how long one may take for a request.

    `scope["state"]["abort"]` cuts it off.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        _count(self.app_state, self.client, 1)
        self.app_state = {**self.app_state, "abort": transport.abort}
        if len(self.connections) > MAX_SOCKETS or _has_too_many(self.app_state, self.client):
            transport.write(FULL)
            transport.close()
            return
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        _count(self.app_state, self.client, -1)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._has_request:
            self._await_request()
        super().data_received(data)
        if self._has_request:
            self._stop_waiting()

    def handle_websocket_upgrade(self, event: Any) -> None:
        """As uvicorn's, which drops what a hasty client sent behind its handshake."""
        self._stop_waiting()
        hasty, _ = self.conn.trailing_data
        super().handle_websocket_upgrade(event)
        protocol = self.transport.get_protocol()
        if hasty and isinstance(protocol, WebSocketProtocol):
            protocol.data_received(hasty)

    @property
    def _has_request(self) -> bool:
        """Whether a request has been read that is not answered yet."""
        return self.cycle is not None and not self.cycle.response_complete

    def _await_request(self) -> None:
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket whose application may cut the connection off without waiting for its peer."""

    _num_pings = 0
    _pings_since = 0.0

    def data_received(self, data: bytes) -> None:
        """As uvicorn's, which would keep a broken handshake open for ever."""
        super().data_received(data)
        if (
            not self.handshake_initiated and not self.transport.is_closing()
        ):  # the whole of its headers has come at once
            self.transport.write(BROKEN)
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """As uvicorn's, which puts an error into the log for every text of a stranger that is not UTF-8."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(self.frames):
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    def handle_connect(self, event: Any) -> None:
        """Give the application `scope["state"]`'s abort and offer."""
        self.app_state = {**self.app_state, "abort": self.abort, "offer": self.offer}
        super().handle_connect(event)

    def connection_lost(self, exc: Exception | None) -> None:
        _count(self.app_state, self.client, -1)
        super().connection_lost(exc)
        self.writable.set()  # whoever waits to send learns that it cannot

    async def send(self, message: Any) -> None:
        """As uvicorn's, which would take a handshake that was refused with a body for one that was forgotten.

        A peer that does not answer a close is cut off, whatever of what was sent it has not read.
        """
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True
        if message["type"] == "websocket.close" and self.close_timer is not None:
            self.close_timer.cancel()
            self.close_timer = self.loop.call_later(self.close_timeout, self.abort)

    def keepalive_timeout(self) -> None:
        """As uvicorn's, which would wait for ever for a peer that reads nothing."""
        super().keepalive_timeout()
        self.abort()

    def handle_ping(self) -> None:
        """As uvicorn's, unless there are too many, or their answers are not read."""
        if self.loop.time() - self._pings_since > PINGS_SECONDS:
            self._num_pings, self._pings_since = 0, self.loop.time()
        self._num_pings += 1
        super().handle_ping()
        if self._num_pings > MAX_PINGS or self.transport.get_write_buffer_size() > 2 * WRITE_BUFFER:
            self.abort()

    def handle_cont(self, event: Any) -> None:
        """As uvicorn's, which would take any number of empty fragments."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self.abort()
        else:
            super().handle_cont(event)

    def handle_parser_exception(self) -> None:
        """As uvicorn's, which takes a broken handshake for a broken frame."""
        if self.conn.close_sent is None:
            self.abort()
        else:
            super().handle_parser_exception()

    def offer(self, frame: bytes) -> bool:
        """Send a whole frame now, past the queue of `send`; False, and nothing is sent, where the peer is not ready."""
        is_open = self.handshake_complete and not self.close_sent and not self.disconnected
        if (
            not is_open
            or not self.writable.is_set()
            or self.conn.state is not State.OPEN
            or self.transport.is_closing()
        ):
            return False
        self.transport.write(frame)
        return True

    def abort(self) -> None:
        """End the connection now; what was not sent is dropped."""
        self.transport.abort()


def _is_utf8(frames: list[bytes]) -> bool:
    try:
        b"".join(frames).decode()
    except UnicodeDecodeError:
        return False
    return True


def _count(app_state: dict[str, Any], client: tuple[str, int] | None, change: int) -> None:
    """Keep the number of connections of an address, which the protocols of one server share."""
    numbers: Counter[str] = app_state.setdefault("num_sockets", Counter())
    key = address_key(client[0] if client else "")
    numbers[key] += change
    if not numbers[key]:
        del numbers[key]


def _has_too_many(app_state: dict[str, Any], client: tuple[str, int] | None) -> bool:
    key = address_key(client[0] if client else "")
    return key not in PROXIES and app_state["num_sockets"][key] > MAX_SOCKETS_PER_ADDRESS

"""The server's life: recover, listen, serve, drain, leave. The order of the end is the point.

    SIGTERM → no new auctions (503, Retry-After), /readyz says so → running ones settle → watchers get everything →
    connections close (1001) → the listener closes → the ledger closes → exit code 0

uvicorn alone would close the connections first. A failure of the ledger or the decoder ends the process with an error:
what is durable is taken up when it starts again. It must not know what a message says.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import uvicorn

from tokenauction import __version__
from tokenauction.server.app import App
from tokenauction.server.house import House
from tokenauction.server.listener import HttpProtocol, WebSocketProtocol, allow_many_files
from tokenauction.server.log import logger
from tokenauction.server.recovery import recover
from tokenauction.server.request_head import MAX_HEADER_BYTES
from tokenauction.server.wire import MAX_FRAME_BYTES

DRAIN_SECONDS = 60.0  # for running auctions; what is left then is cancelled, which settles it
GOODBYE_SECONDS = 10.0  # for watchers to take their last events
KEEP_ALIVE_SECONDS = 15
PING_SECONDS, PONG_SECONDS = 5.0, 9.5  # between pings, and for their answers: a peer that is gone is noticed in 15 s

log = logger()


@dataclass(frozen=True)
class Limits:
    """How long the end may take."""

    drain_seconds: float = DRAIN_SECONDS
    goodbye_seconds: float = GOODBYE_SECONDS


class Companion(Protocol):
    """What runs beside the server: started behind the recovery, stopped between the drain and the ledger's end."""

    async def start(self) -> None:
        """Begin; must not wait for anybody."""

    async def stop(self) -> None:
        """End, in bounded time."""


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: ours drain first."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    house: House,
    app: App,
    listener: socket.socket,
    *,
    limits: Limits,
    on_ready: Callable[[str], None] = lambda url: None,
    stopping: asyncio.Event | None = None,
    companions: Sequence[Companion] = (),
) -> None:
    """Serve until SIGTERM, SIGINT or `stopping`, then drain; raises what ended the house where it failed."""
    allow_many_files()
    stop = stopping or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(ValueError, RuntimeError):  # only the main thread may
            loop.add_signal_handler(number, stop.set)
    server = _Server(_config(app))
    serving: asyncio.Task[None] | None = None
    try:
        num_recovered = await recover(house)
        if num_recovered:
            log.warning("auctions were open when the server stopped: they go on, or are settled", number=num_recovered)
        for companion in companions:
            await companion.start()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        house.spawn(app.peers.watch_tokens())
        app.is_ready = True
        log.info("serving", url=url_of(listener), version=__version__, needs_token=not app.context.doorkeeper.is_open)
        on_ready(url_of(listener))
        await _first(serving, house.failure, asyncio.create_task(stop.wait()))
        app.is_ready = False
        log.info("draining", num_auctions=len(house.live), num_connections=len(app.connections))
        if not house.failure.done():
            await _first(asyncio.create_task(house.drain(limits.drain_seconds)), house.failure)
            await app.peers.say_goodbye(limits.goodbye_seconds)
    finally:
        server.should_exit = True
        if serving is not None:
            await serving
        listener.close()
        for companion in companions:
            await companion.stop()
        await house.stop()
        await house.ledger.close()
    if house.failure.done():
        log.error("the server ends with an error: what is durable is taken up when it starts again")
        house.failure.result()
    log.info("stopped")


async def _first(*ends: asyncio.Future[None] | asyncio.Task[bool] | asyncio.Task[None]) -> None:
    """Wait until one of these has come; tasks among the others are cancelled, but for the first in line."""
    waiting: list[asyncio.Future[Any]] = list(ends)
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for end in waiting[1:]:
        if isinstance(end, asyncio.Task):
            end.cancel()


def _config(app: App) -> uvicorn.Config:
    return uvicorn.Config(
        app.asgi,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=MAX_FRAME_BYTES,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PONG_SECONDS,
        ws_per_message_deflate=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=5,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
    )


def url_of(listener: socket.socket) -> str:
    """Where the server can be reached, as http://host:port."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

"""What the server's tests share: a house on the toy model with a ledger in a folder of its own, and a real socket."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tokenauction.clients.client import Client
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.toy import ToyModel, ToyWorld
from tokenauction.server.app import App, AppSettings
from tokenauction.server.auth import Doorkeeper
from tokenauction.server.house import House
from tokenauction.server.ledger import Ledger
from tokenauction.server.listener import listen
from tokenauction.server.serving import Limits, serve, url_of

SYMBOLS = "abcdefghij ."


class Pace:
    """Holds the decoder before chosen steps, so that a test decides what happens in mid-text."""

    def __init__(self) -> None:
        self.gates: dict[int, asyncio.Event] = {}


class ToyServer:
    """One server, as its tests see it."""

    def __init__(self, house: House, app: App, url: str, stopping: asyncio.Event, task: asyncio.Task[None]) -> None:
        self.house = house
        self.app = app
        self.url = url
        self.stopping = stopping
        self.task = task

    @property
    def ledger(self) -> Ledger:
        return self.house.ledger

    def client(self, **options: Any) -> Client:
        return Client(self.url, **options)


def spec_of(*bids: str, max_tokens: int = 12, seed: int | None = 7, **changes: Any) -> dict[str, Any]:
    """A spec of agents agent0, agent1, … with these bids, as it goes on the wire."""
    agents = [{"id": f"agent{i}", "name": f"Name{i}", "offer": "offer", "bid": bid} for i, bid in enumerate(bids)]
    return {"query": "query", "agents": agents, "max_tokens": max_tokens, "seed": seed, **changes}


@asynccontextmanager
async def toy_server(
    folder: Path,
    *,
    is_open: bool = True,
    funds: int = 10_000_000,
    settings: AppSettings | None = None,
    **options: Any,
) -> AsyncIterator[ToyServer]:
    """A server on 127.0.0.1 and a free port; at the end it drains."""
    ledger = await Ledger.open(f"sqlite+aiosqlite:///{folder / 'ledger.db'}")
    for number in range(4):
        await ledger.deposit(f"agent{number}", funds, f"funds of agent{number}")
    model = ToyModel(ToyWorld(3, SYMBOLS, **options.pop("world", {})), max_rows=256, max_length=4096)
    count = itertools.count()
    decoder = Decoder(model, stamp=lambda: (f"evt_{next(count)}", 0.0), entropy=os.urandom)

    def prepare(spec: AuctionSpec) -> tuple[list[list[int]], Policy]:
        return [model.tokenizer.encode_prompt(f"{spec.query} for {row}") for row in spec.row_ids], Policy()

    house = House(decoder, prepare, ledger, **options)
    app = App(
        house, Doorkeeper(ledger, is_open=is_open, entropy=os.urandom, clock=lambda: 0.0), settings or AppSettings()
    )
    listener = listen("127.0.0.1", 0)
    stopping = asyncio.Event()
    ready = asyncio.Event()
    task = asyncio.create_task(
        serve(house, app, listener, limits=Limits(20, 5), on_ready=lambda _: ready.set(), stopping=stopping)
    )
    server = ToyServer(house, app, url_of(listener), stopping, task)
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield server
    finally:
        stopping.set()
        await task


StartServer = Callable[..., Any]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ToyServer]:
    """An open server for one test."""
    async with toy_server(tmp_path) as running:
        yield running


@pytest.fixture
def start(tmp_path: Path) -> StartServer:
    """Starts servers with other options, on one ledger."""
    return lambda **options: toy_server(tmp_path, **options)


async def collect(stream: Any, until: Callable[[dict[str, Any]], bool] = lambda event: False) -> list[dict[str, Any]]:
    """The events of a stream, to its end or to one that `until` accepts."""
    events = []
    async for event in stream:
        events.append(event)
        if until(event):
            break
    return events


Waiting = Awaitable[None]

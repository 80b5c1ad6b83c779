"""A server on the toy model: a house, a ledger in a folder of its own, a real socket on 127.0.0.1 and a free port.

Its texts end at `max_tokens` and not before; its model waits for a test's leave before each step, where a test asks.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

from tokenauction.clients.cli.serve import PAGE_FOLDERS
from tokenauction.clients.client import Client, Event
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models import base
from tokenauction.models.toy import ToyModel, ToyTokenizer, ToyWorld
from tokenauction.server.app import App, AppSettings
from tokenauction.server.auth import Doorkeeper
from tokenauction.server.house import House
from tokenauction.server.ledger import Ledger
from tokenauction.server.listener import listen
from tokenauction.server.pages import Pages
from tokenauction.server.serving import Companion, Limits, serve, url_of

SYMBOLS = "abcdefghij ."
PROMPT_LENGTH = 18  # tokens, as a toy tokenizer of these symbols writes it
NUM_AGENTS = 8  # accounts agent0, agent1, … that have money
LONGEST_SECONDS = 60  # that a test waits for anything
FUNDS = 1_000_000_000  # micros in each


T = TypeVar("T")


class EndlessTokenizer(ToyTokenizer):
    """No token ends a text."""

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset()


class PacedModel(ToyModel):
    """A toy model that takes a step when it has leave to."""

    def __init__(self, world: ToyWorld, *, is_paced: bool = False, delay: float = 0.0) -> None:
        super().__init__(world, max_rows=256, max_length=8192)
        self.leave = threading.Semaphore(0)
        self.is_paced = is_paced
        self.delay = delay  # seconds that a step takes
        self._endless = EndlessTokenizer(world.symbols)

    @property
    def tokenizer(self) -> ToyTokenizer:
        return self._endless

    def allow(self, num_steps: int = 1) -> None:
        """Leave for so many steps."""
        self.leave.release(num_steps)

    def free(self) -> None:
        """Leave for all steps from now on."""
        self.is_paced = False
        self.leave.release(10_000)

    def admit(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> base.Gang:
        """What stands behind a prompt is text: an auction that is taken up goes on with the agents it began with."""
        gang = super().admit(prompts, max_new_tokens)
        self._tables[gang] = torch.stack([self.world.table(prompt[:PROMPT_LENGTH]) for prompt in gang.prompts])
        self._texts[gang] = list(gang.prompts[0][PROMPT_LENGTH:])
        return gang

    def step(self, gangs: Sequence[base.Gang], tokens: Any) -> Any:
        if self.is_paced:
            self.leave.acquire()
        elif self.delay:
            threading.Event().wait(self.delay)
        return super().step(gangs, tokens)

    def launch(self, gangs: Sequence[base.Gang], tokens: Any) -> Callable[[], Any]:
        """In two parts, so that the step before is told of while this one waits."""
        return lambda: self.step(gangs, tokens)


@dataclass
class ToyServer:
    """One server, as its tests see it."""

    house: House
    app: App
    model: PacedModel
    url: str
    stopping: asyncio.Event
    serving: asyncio.Task[None]

    @property
    def ledger(self) -> Ledger:
        return self.house.ledger

    def client(self, token: str | None = None) -> Client:
        return Client(self.url, token, give_up=10.0)

    async def receipt(self, auction_id: str) -> list[dict[str, Any]]:
        return await self.app.context.catalogue.receipt(auction_id)


def spec_of(*bids: str, max_tokens: int = 12, seed: int | None = 7, **changes: Any) -> dict[str, Any]:
    """A spec of agents agent0, agent1, … with these bids in currency, as it goes on the wire."""
    agents = [{"id": f"agent{i}", "name": f"Name{i}", "offer": "offer", "bid": bid} for i, bid in enumerate(bids)]
    return {"query": "query", "agents": agents, "max_tokens": max_tokens, "seed": seed, **changes}


@asynccontextmanager
async def toy_server(
    folder: Path,
    *,
    ledger_url: str | None = None,
    is_open: bool = True,
    is_paced: bool = False,
    delay: float = 0.0,
    world: int = 3,
    model: type[PacedModel] = PacedModel,
    settings: AppSettings | None = None,
    clock: Callable[[], float] = lambda: 0.0,
    port: int = 0,
    companions: Callable[[App], Sequence[Companion]] = lambda app: (),
    **options: Any,
) -> AsyncIterator[ToyServer]:
    """A running server; at the end it drains."""
    ledger = await Ledger.open(ledger_url or str(folder / "ledger.db"))
    for number in range(NUM_AGENTS):
        await ledger.deposit(f"agent{number}", FUNDS, f"funds of agent{number}")
    toy = model(ToyWorld(world, SYMBOLS), is_paced=is_paced, delay=delay)
    count = itertools.count()
    decoder = Decoder(toy, stamp=lambda: (f"evt_{next(count)}", clock()), entropy=os.urandom)

    def prepare(spec: AuctionSpec) -> tuple[list[list[int]], Policy]:
        return [toy.tokenizer.encode_prompt(f"{spec.query} for {row}") for row in spec.hosted_ids], Policy()

    house = House(decoder, prepare, ledger, takes_seeds=True, **options)
    doorkeeper = Doorkeeper(ledger, is_open=is_open, entropy=os.urandom, clock=clock)
    app = App(house, doorkeeper, settings or AppSettings(), Pages.of(PAGE_FOLDERS))
    listener = listen("127.0.0.1", port)
    stopping, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(
        serve(
            house,
            app,
            listener,
            limits=Limits(20, 5),
            on_ready=lambda _: ready.set(),
            stopping=stopping,
            companions=companions(app),
        )
    )
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait([waiting, serving], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    try:
        yield ToyServer(house, app, toy, url_of(listener), stopping, serving)
    finally:
        toy.free()
        stopping.set()
        await serving


async def collect(stream: AsyncIterator[Event], until: Callable[[Event], bool] = lambda event: False) -> list[Event]:
    """The events of a stream, to its end or to one that `until` accepts."""
    events = []
    async with asyncio.timeout(LONGEST_SECONDS):
        async for event in stream:
            events.append(event)
            if until(event):
                break
    return events


async def step_until(model: PacedModel, work: Coroutine[Any, Any, T]) -> T:
    """Allow one step after the other until something that waits for the decoder is done."""
    waiting = asyncio.create_task(work)
    async with asyncio.timeout(LONGEST_SECONDS):
        while not waiting.done():
            model.allow(1)
            await asyncio.wait([waiting], timeout=0.05)
    return await waiting


def in_stream(events: list[Event]) -> list[Event]:
    """Those that carry a `seq`."""
    return [event for event in events if "seq" in event]

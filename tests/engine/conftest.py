"""What the engine's tests share: auctions on the toy world, run to their end."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tokenauction.engine.auction import Auction
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.events import Event
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.toy import ToyModel, ToyWorld

SYMBOLS = "abcdefghij ."


def spec_of(*bids: int, seed: int | None = 7, max_tokens: int = 12, **changes: Any) -> AuctionSpec:
    """An auction of agents agent0, agent1, … with these bids in micros."""
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", bid) for i, bid in enumerate(bids))
    return AuctionSpec("query", agents, seed=seed, max_tokens=max_tokens, **changes)


class World:
    """A decoder on a toy model, and what tests do with it."""

    symbols = SYMBOLS

    def __init__(self, max_rows: int = 256, store_distributions: bool = False, clearing: Any = "auto") -> None:
        count = itertools.count()
        self.decoder = Decoder(
            ToyModel(ToyWorld(3, SYMBOLS), max_rows=max_rows),
            stamp=lambda: (f"evt_{next(count)}", 0.0),
            entropy=lambda n: bytes(range(n)),
            store_distributions=store_distributions,
            clearing=clearing,
        )

    def prompts(self, spec: AuctionSpec) -> list[list[int]]:
        return [self.decoder.model.tokenizer.encode_prompt(f"{spec.query} for {row_id}") for row_id in spec.hosted_ids]

    def submit(self, spec: AuctionSpec, auction_id: str = "auction", policy: Policy | None = None) -> Auction:
        return self.decoder.submit(spec, self.prompts(spec), policy or Policy(), auction_id)

    def finish(self) -> list[Event]:
        events: list[Event] = []
        while self.decoder.has_work:
            events += self.decoder.step()
        return events

    @staticmethod
    def run(spec: AuctionSpec, **options: Any) -> list[Event]:
        """One auction alone."""
        world = World(**options)
        world.submit(spec)
        return world.finish()


@pytest.fixture
def world() -> type[World]:
    """The class itself: a test makes as many worlds as it needs."""
    return World


@pytest.fixture(name="spec_of")
def spec_of_fixture() -> Callable[..., AuctionSpec]:
    """Makes a spec from bids in micros."""
    return spec_of

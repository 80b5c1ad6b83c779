"""The agents that joined on one connection, by auction, and hearing when their auctions are over.

Of auctions that are over the last ones are kept, so that who took part may still look at them as its agent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from tokenauction.server.hub import Channel
from tokenauction.server.legality import MAX_AGENTS


class Live(Protocol):
    """An auction that is not over."""

    @property
    def channel(self) -> Channel: ...


class OwnAgents:
    """Those of one connection."""

    def __init__(self, live: Mapping[str, Live], on_over: Callable[[str], None]) -> None:
        """`live` are the auctions that are not over, by id; `on_over` is told of the end of those that are attended."""
        self.by_auction: dict[str, list[str]] = {}
        self._live = live
        self._on_over = on_over

    def add(self, auction_id: str, agent_id: str) -> None:
        """An agent has joined."""
        agents = self.by_auction.pop(auction_id, [])
        self.by_auction[auction_id] = agents if agent_id in agents else [*agents, agent_id]
        if len(self.by_auction) > MAX_AGENTS:
            del self.by_auction[next(known for known in self.by_auction if known not in self._live)]

    def of(self, auction_id: str) -> list[str]:
        """The agents in an auction, the first one first."""
        return self.by_auction.get(auction_id, [])

    def attend(self, auction_id: str) -> None:
        """Hear when an auction is over; at once where it is."""
        if auction_id in self._live:
            self._live[auction_id].channel.at_end.add(self._on_over)
        else:
            self._on_over(auction_id)

    def close(self) -> None:
        """Hear of nothing any more."""
        for live in self._live.values():
            live.channel.at_end.discard(self._on_over)

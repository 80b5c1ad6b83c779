"""What requests of every kind are answered with: the house and those who stand around it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from tokenauction.server.auth import LOCAL, Doorkeeper, Identity
from tokenauction.server.bidding import Bidding
from tokenauction.server.catalogue import Catalogue
from tokenauction.server.house import House
from tokenauction.server.open_streams import OpenStreams
from tokenauction.server.peers import Peers
from tokenauction.server.presets import Presets
from tokenauction.server.rate import Rates
from tokenauction.server.studies import Studies


@dataclass(frozen=True)
class Context:
    """The parts of one server."""

    house: House
    bidding: Bidding
    catalogue: Catalogue
    doorkeeper: Doorkeeper
    peers: Peers
    rates: Rates
    studies: Studies
    presets: Presets = field(default_factory=Presets)
    streams: OpenStreams = field(default_factory=OpenStreams)

    def count_request(self, identity: Identity) -> None:
        """Take a request from its token's allowance; Refused (rate_limited) where none is left."""
        if identity != LOCAL:
            self.rates.check(f"token {identity.id}", asyncio.get_running_loop().time())

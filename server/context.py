"""What requests of every kind are answered with: the house and those who stand around it."""

from __future__ import annotations

from dataclasses import dataclass

from tokenauction.server.auth import Doorkeeper
from tokenauction.server.bidding import Bidding
from tokenauction.server.catalogue import Catalogue
from tokenauction.server.house import House


@dataclass(frozen=True)
class Context:
    """The parts of one server."""

    house: House
    bidding: Bidding
    catalogue: Catalogue
    doorkeeper: Doorkeeper

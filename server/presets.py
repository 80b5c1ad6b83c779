"""Named auctions that a server offers: everything of a spec but the query, which whoever asks brings along.

They are checked when the server starts, so that nobody meets a broken one. It must not know files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from tokenauction.server.auction_request import AuctionRequest


@dataclass(frozen=True)
class Preset:
    """One auction that can be asked for by name."""

    name: str
    title: str  # its own query, which says what it is about
    spec: Mapping[str, Any]  # as `POST /v1/auctions` takes it

    @classmethod
    def of(cls, name: str, spec: Mapping[str, Any]) -> Preset:
        """A checked preset; raises InvalidSpec, InvalidBid or UnsafeCombination, which name the field."""
        request = AuctionRequest.from_mapping(spec)
        return cls(name, request.template.query, MappingProxyType(dict(spec)))


@dataclass(frozen=True)
class Presets:
    """All of a server, in order."""

    by_name: Mapping[str, Preset] = field(default_factory=dict)

    @classmethod
    def of(cls, specs: Mapping[str, Mapping[str, Any]]) -> Presets:
        """Checked presets by name; raises as `Preset.of`."""
        return cls(MappingProxyType({name: Preset.of(name, spec) for name, spec in specs.items()}))

    def find(self, name: str) -> Preset | None:
        """The one with this name."""
        return self.by_name.get(name)

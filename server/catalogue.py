"""Reading: what auctions there are and were, their streams and their receipts; live ones from memory, others from the
ledger. Nothing here changes anything. It must not know sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tokenauction.engine.recorder import Stamp
from tokenauction.server.auction_request import TERMS
from tokenauction.server.auth import Identity
from tokenauction.server.house import House
from tokenauction.server.hub import Channel, Reader, Viewpoint, encode_view, payments
from tokenauction.server.refusal import Refused
from tokenauction.server.wire import ServerMessage, StreamGap, StreamSnapshot

MAX_LISTED = 100


class Catalogue:
    """Everything that a house has or had."""

    def __init__(self, house: House) -> None:
        self.house = house

    async def describe(self, auction_id: str) -> dict[str, Any]:
        """What anybody may know of an auction; Refused (not_found)."""
        live = self.house.live.get(auction_id)
        if live is not None:
            return live.summary()
        record = await self._record(auction_id)
        last = await self._last(auction_id)
        request = record.spec["request"]
        agents = last.get("disclosure", {}).get("by", [])
        return {
            "auction_id": auction_id,
            "state": record.state,
            "created_at": record.spec["created_at"],
            "query": request["query"],
            "tmax_join_ms": request["tmax_join_ms"],
            **{name: request[name] for name in TERMS},
            "agents": agents,
            "num_tokens": last.get("num_tokens", 0),
            "text": last.get("text", ""),
            "last_seq": last.get("seq", -1),
            "durable_seq": last.get("seq", -1),
            "epoch": last.get("epoch", 1),
        }

    async def page(self, after: str | None, limit: int, *, newest: bool = False) -> list[dict[str, Any]]:
        """The auctions behind `after` in the order of their creation, or the newest first, at most `limit`."""
        records = await self.house.ledger.auctions(min(limit, MAX_LISTED), after, newest=newest)
        return [await self.describe(record.auction_id) for record in records]

    async def owner(self, auction_id: str) -> str:
        """Who created it; Refused (not_found)."""
        live = self.house.live.get(auction_id)
        owner: str = live.owner if live is not None else (await self._record(auction_id)).spec["owner"]
        return owner

    async def viewpoint(self, auction_id: str, identity: Identity, agent_id: str | None) -> Viewpoint:
        """How somebody may look at an auction; `agent_id` is whom they have joined it as, if anybody.

        Raises Refused (not_found).
        """
        owner = await self.owner(auction_id)
        if agent_id is not None:
            return Viewpoint("bidder", agent_id)
        if identity.may("admin"):
            return Viewpoint("admin")
        if owner == identity.id:
            return Viewpoint("owner")
        return Viewpoint("bidder", identity.agent_id) if identity.agent_id else Viewpoint("public")

    async def reader(
        self, auction_id: str, viewpoint: Viewpoint, after_seq: int, epoch: int | None, wake: Callable[[], None]
    ) -> Reader:
        """A place in an auction's stream behind `after_seq`, which was seen in `epoch`.

        Where the epoch has ended since, and what was seen lies behind the point from which its successor goes on, the
        reader stands in front of the `stream.reset` that says so. Raises Refused (not_found, after_seq).
        """
        live = self.house.live.get(auction_id)
        resets = await self._resets(auction_id)
        live = self.house.live.get(auction_id)
        if live is not None:
            channel = live.channel
        else:
            last = await self._last(auction_id)
            channel = Channel(auction_id, last.get("seq", -1), is_over=True)
        later = [seq for of_epoch, seq in resets if epoch is None or of_epoch > epoch]
        is_stale = bool(later) and after_seq >= later[0] and (epoch is not None or after_seq > channel.last_seq)
        if is_stale:
            after_seq = later[0] - 1
        if after_seq > channel.last_seq:
            raise Refused("after_seq", f"{auction_id} has events up to {channel.last_seq}; after_seq is {after_seq}")
        reader = Reader(channel, viewpoint, after_seq, wake)
        channel.readers.add(reader)
        return reader

    async def replay(self, reader: Reader, most: int) -> list[str]:
        """The next texts of a reader that stands in front of the live window; it moves on."""
        texts: list[str] = []
        channel = reader.channel
        async for event in self.house.ledger.events(channel.auction_id, reader.after_seq):
            if event["seq"] > channel.last_seq:  # it is durable, and told when the money is posted
                break
            shown = {**event, "durable_seq": event["seq"]}
            if event["type"] == "auction.settled":
                texts += payments(event, reader.viewpoint)
            texts.append(encode_view(shown, reader.viewpoint, is_settled=channel.is_over))
            reader.after_seq = event["seq"]
            if len(texts) >= most:
                break
        return texts

    def gap(self, reader: Reader, stamp: Stamp) -> list[ServerMessage]:
        """What a reader that has overflowed is told: what it misses, and where the auction stands."""
        channel = reader.channel
        live = self.house.live.get(channel.auction_id)
        event_id, time = stamp()
        auction_id, last_seq = channel.auction_id, channel.last_seq
        missed = StreamGap(
            event_id=event_id, time=time, auction_id=auction_id, after_seq=reader.after_seq, last_seq=last_seq
        )
        if live is None:
            return [missed]
        snapshot = StreamSnapshot(
            event_id=f"{event_id}/snapshot",
            time=time,
            auction_id=auction_id,
            last_seq=last_seq,
            epoch=live.epoch,
            state=str(live.phase),
            num_tokens=live.num_tokens,
            text=live.text,
        )
        return [missed, snapshot]

    async def receipt(self, auction_id: str) -> list[dict[str, Any]]:
        """The lines of the receipt, as far as they are durable; Refused (not_found, not_begun)."""
        await self.owner(auction_id)
        lines = [event["line"] async for event in self.house.ledger.events(auction_id, -1) if "line" in event]
        if not lines:
            raise Refused("not_begun", f"{auction_id} has no receipt: its text has not begun")
        return lines

    async def _record(self, auction_id: str) -> Any:
        record = await self.house.ledger.auction(auction_id)
        if record is None:
            raise Refused("not_found", f"there is no auction {auction_id}")
        return record

    async def _last(self, auction_id: str) -> Mapping[str, Any]:
        await self._record(auction_id)
        return await self.house.ledger.last_event(auction_id) or {}

    async def _resets(self, auction_id: str) -> list[tuple[int, int]]:
        """Epoch and seq of every `stream.reset`, in order."""
        live = self.house.live.get(auction_id)
        if live is not None:
            return live.resets
        await self._record(auction_id)
        events = self.house.ledger.events(auction_id, kind="stream.reset")
        return [(event["epoch"], event["seq"]) async for event in events]

"""Fan-out: the live events of an auction, and where each reader of them stands.

A channel holds the last events of one auction, each encoded once for every audience that asked for it. A reader is a
place in that sequence: it is pushed an event where it stands right in front of it and its peer takes it at once;
otherwise it is woken, and pulls. Nothing waits for it. Whoever falls further behind than MAX_LAG has overflowed:
its connection says so and ends. What stands before the window is the ledger's to tell. It must not know sockets.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from tokenauction.engine.spec import REFERENCE_ID
from tokenauction.server.text_frame import text_frame
from tokenauction.server.visibility import Audience, view
from tokenauction.server.wire import PaymentPosted, encode

MAX_LAG = 256  # events that a reader may be behind the auction once it has caught up
WINDOW = 1_024  # events that a channel keeps; more than can be undurable, so that the ledger has whatever is older


@dataclass(frozen=True)
class Viewpoint:
    """Who looks: a class of readers, and which agent where the class is the bidders'."""

    audience: Audience
    agent_id: str | None = None


@dataclass(frozen=True)
class Published:
    """One event, and its text for every viewpoint that asked for it."""

    event: Mapping[str, Any]
    texts: dict[Viewpoint, str] = field(default_factory=dict)
    frames: dict[Viewpoint, bytes] = field(default_factory=dict)
    bills: dict[Viewpoint, list[str]] = field(default_factory=dict)

    @property
    def seq(self) -> int:
        seq: int = self.event["seq"]
        return seq

    def text(self, viewpoint: Viewpoint) -> str:
        """The JSON that this viewpoint may see; encoded the first time."""
        if viewpoint not in self.texts:
            self.texts[viewpoint] = encode_view(self.event, viewpoint, is_settled=False)
        return self.texts[viewpoint]

    def frame(self, viewpoint: Viewpoint) -> bytes:
        """The same as a WebSocket message, behind the bills that come with it."""
        if viewpoint not in self.frames:
            texts = (*self.bill(viewpoint), self.text(viewpoint))
            self.frames[viewpoint] = b"".join(text_frame(text.encode()) for text in texts)
        return self.frames[viewpoint]

    def bill(self, viewpoint: Viewpoint) -> list[str]:
        """The `payment.posted` that this viewpoint gets in front of the event."""
        if self.event["type"] != "auction.settled":
            return []
        if viewpoint not in self.bills:
            self.bills[viewpoint] = payments(self.event, viewpoint)
        return self.bills[viewpoint]


def encode_view(event: Mapping[str, Any], viewpoint: Viewpoint, *, is_settled: bool) -> str:
    """What a viewpoint may see of an event, as JSON."""
    return msgspec.json.encode(view(event, viewpoint.audience, viewpoint.agent_id, is_settled)).decode()


def payments(settled: Mapping[str, Any], viewpoint: Viewpoint) -> list[str]:
    """The `payment.posted` that a viewpoint gets with an `auction.settled`: its own agent's, or everybody's.

    They follow from the settlement, ids included, so that a replay repeats them and bills nothing twice.
    """
    if not settled["posted"] or viewpoint.audience == "public":
        return []
    shown = []
    for agent in settled["agents"]:
        if agent["id"] == REFERENCE_ID or (viewpoint.audience == "bidder" and agent["id"] != viewpoint.agent_id):
            continue
        posted = PaymentPosted(
            event_id=f"{settled['event_id']}/{agent['id']}",
            time=settled["time"],
            auction_id=settled["auction_id"],
            agent_id=agent["id"],
            total_micros=agent["total_micros"],
            total=agent["total"],
            currency=settled["currency"],
            receipt_head=settled["receipt_head"],
        )
        shown.append(encode(posted).decode())
    return shown


def _is_never_pushed(_reader: Reader, _published: Published) -> bool:
    return False


@dataclass(eq=False)
class Reader:
    """One reader's place in one channel."""

    channel: Channel
    viewpoint: Viewpoint
    after_seq: int  # the last event that it has taken
    wake: Callable[[], None]  # tells its connection that there is something to take
    push: Callable[[Reader, Published], bool] = _is_never_pushed  # whether its peer has been sent this event
    is_live: bool = False  # it has caught up once: from then on it must keep up

    def is_next(self, published: Published) -> bool:
        """Whether it has caught up and has everything before this event."""
        return self.is_live and self.after_seq == published.seq - 1

    @property
    def has_overflowed(self) -> bool:
        return self.is_live and self.channel.last_seq - self.after_seq > MAX_LAG

    @property
    def is_behind(self) -> bool:
        return self.after_seq < self.channel.last_seq

    @property
    def is_at_end(self) -> bool:
        return self.channel.is_over and self.after_seq >= self.channel.last_seq

    def take(self, most: int) -> list[str] | None:
        """The next texts, at most so many; empty where it has caught up, None where the ledger must be asked."""
        found = self.channel.after(self.after_seq, most)
        if found is None:
            return None
        if found:
            self.after_seq = found[-1].seq
        self.is_live = self.is_live or self.after_seq >= self.channel.last_seq
        viewpoint = self.viewpoint
        return [text for published in found for text in (*published.bill(viewpoint), published.text(viewpoint))]


@dataclass(eq=False)
class Channel:
    """The live events of one auction, and who reads them."""

    auction_id: str
    last_seq: int = -1
    is_over: bool = False  # its last event is published
    window: deque[Published] = field(default_factory=lambda: deque(maxlen=WINDOW))
    readers: set[Reader] = field(default_factory=set)
    at_end: set[Callable[[str], None]] = field(default_factory=set)  # who else is told that it is over

    def publish(self, event: Mapping[str, Any]) -> None:
        """Show one more event to everybody who reads, `seq` being the next one."""
        assert event["seq"] == self.last_seq + 1, "the events of an auction are dense"
        self.last_seq += 1
        published = Published(event)
        self.window.append(published)
        for reader in self.readers:
            if reader.is_next(published) and reader.push(reader, published):
                reader.after_seq = published.seq
            else:
                reader.wake()

    def close(self) -> None:
        """Nothing follows the last event."""
        self.is_over = True
        for reader in self.readers:
            reader.wake()
        for tell in tuple(self.at_end):
            tell(self.auction_id)

    def after(self, seq: int, most: int) -> list[Published] | None:
        """Up to `most` events behind `seq`; None where the first of them is no longer in the window."""
        if seq >= self.last_seq:
            return []
        start = len(self.window) - (self.last_seq - seq)
        if start < 0:
            return None
        return [self.window[place] for place in range(start, min(start + most, len(self.window)))]

"""The tables of docs/protocol.md, made from the tables and structs that the server runs on.

    python -m tokenauction.server.protocol_tables < docs/protocol.md > protocol.md

fills what stands between `<!-- table NAME -->` and `<!-- end -->`; a test fails where the page says something else.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import msgspec

from tokenauction.engine.money import MAX_MICROS
from tokenauction.server import client_messages, dense_frame, legality, listener, session, wire
from tokenauction.server.visibility import AUDIENCES, FIELDS
from tokenauction.server.wire_error import DECODER_CODES

ANSWERED_BY = MappingProxyType(
    {
        "auction.create": "`auction.accepted`",
        "auction.cancel": "`auction.accepted`, then the stream's `auction.settled`",
        "subscribe": "the stream",
        "unsubscribe": "silence: what was on its way may still come",
        "agent.join": "`agent.joined`",
        "bid.update": "`bid.accepted` or `bid.rejected`",
        "agent.leave": "`bid.accepted` with a bid of 0",
        "distribution.submit": "silence, or an `error`",
        "ping": "`pong`",
    }
)
SEEN = MappingProxyType({"++": "yes", "--": "no", "oo": "own", "-+": "once settled", "o+": "own; all once settled"})


def clients() -> list[str]:
    """What a client may send."""
    rows = []
    for kind in wire.JSON_MESSAGES:
        name = str(kind.__struct_config__.tag)
        rows.append((f"`{name}`", legality.LEGAL[name].scope or "none", _fields(kind), _about(kind), ANSWERED_BY[name]))
    return _table(("type", "scope", "fields (`?`: may be left out)", "what it does", "answered by"), rows)


def legal() -> list[str]:
    """What is legal in which state of an agent; what else a message is told."""
    states = [name for name in legality.NOT_NOW if name not in ("away", "watching")]
    rows = []
    for name, row in legality.LEGAL.items():
        if row.subject == "agent":
            cells = [row.moves.get(state) for state in states]
            told = [f"`{legality.NOT_NOW[state]}`" for state in states]
            rows.append((f"`{name}`", *(f"→ {c}" if c else t for c, t in zip(cells, told, strict=True))))
    return _table(("type", *states), rows)


def server(kinds: Iterable[type[msgspec.Struct]], common: type[msgspec.Struct]) -> list[str]:
    """What the server sends."""
    shared = {field.encode_name for field in msgspec.structs.fields(common)}
    rows = [(f"`{kind.__struct_config__.tag}`", _fields(kind, shared) or "none", _about(kind)) for kind in kinds]
    return _table(("type", "fields beside the common ones", "what it says"), rows)


def visibility() -> list[str]:
    """Who sees what."""
    rows = []
    for row in FIELDS:
        names = " ".join(f"`{name}`" for name in row.fields.split())
        rows.append((row.event.replace("*", "every event"), names, *(SEEN[cell] for cell in row[2:])))
    return _table(("event", "fields", *AUDIENCES), rows)


def codes(meanings: Mapping[str, str]) -> list[str]:
    """Codes of refusals."""
    return _table(("code", "meaning"), [(f"`{code}`", meaning) for code, meaning in meanings.items()])


def close_codes() -> list[str]:
    """Why a connection closes."""
    return _table(("code", "meaning"), [(str(code), meaning) for code, meaning in legality.CLOSE_CODES.items()])


def limits() -> list[str]:
    """Every number that a client can run into."""
    rows = (
        ("bytes of a text message", wire.MAX_MESSAGE_BYTES, "`message_too_large`"),
        ("bytes of a binary message", wire.MAX_FRAME_BYTES, "`message_too_large`; close 1009"),
        ("objects and lists inside each other", wire.MAX_DEPTH, "`too_deep`"),
        ("digits of one number", wire.MAX_DIGITS, "`number_too_long`"),
        ("micros of one amount", MAX_MICROS, "`invalid_field`"),
        ("characters of an id", client_messages.MAX_ID, "`invalid_field`"),
        ("characters of a name or offer", client_messages.MAX_TEXT, "`invalid_field`"),
        ("tokens of a sparse distribution", client_messages.MAX_SPARSE_TOKENS, "`invalid_field`"),
        ("tokens of a dense distribution", dense_frame.MAX_VOCABULARY, "`invalid_frame`"),
        ("messages a second, for long", int(session.MESSAGES_PER_SECOND), "`rate_limited`"),
        ("messages at once", int(session.BURST), "`rate_limited`"),
        ("messages that a refused one counts as", int(1 + session.REFUSAL_COST), "`rate_limited`"),
        ("messages in a row beyond the rate", session.MAX_IGNORED, "close 4029"),
        ("pings within 10 s", listener.MAX_PINGS, "cut off"),
        ("fragments of one message", listener.MAX_FRAGMENTS, "cut off"),
        ("auctions that one connection watches", legality.MAX_SUBSCRIPTIONS, "`too_many_subscriptions`"),
        ("agents that one connection acts for", legality.MAX_AGENTS, "`too_many_agents`"),
    )
    return _table(("limit", "at most", "beyond it"), [(what, f"{most:,}", then) for what, most, then in rows])


TABLES: Mapping[str, Callable[[], list[str]]] = MappingProxyType(
    {
        "clients": clients,
        "legal": legal,
        "events": lambda: server(wire.STREAM_EVENTS, wire.StreamEvent),
        "answers": lambda: server(wire.ANSWERS, wire.ServerEnvelope),
        "visibility": visibility,
        "decoder codes": lambda: codes(DECODER_CODES),
        "session codes": lambda: codes(legality.SESSION_CODES),
        "close codes": close_codes,
        "limits": limits,
    }
)


def filled(page: str) -> str:
    """The page with its tables as they must be; KeyError where it names a table that is none."""

    def fill(found: re.Match[str]) -> str:
        return "\n".join((f"<!-- table {found[1]} -->", *TABLES[found[1]](), "<!-- end -->"))

    return re.sub(r"<!-- table ([a-z ]+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def _fields(kind: type[msgspec.Struct], without: Iterable[str] = ()) -> str:
    fields = [field for field in msgspec.structs.fields(kind) if field.encode_name not in {*without, "request_id"}]
    return " ".join(f"`{field.encode_name}`" + ("" if field.required else "?") for field in fields)


def _about(kind: type[msgspec.Struct]) -> str:
    return " ".join(inspect.cleandoc(kind.__doc__ or "").split())


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


if __name__ == "__main__":
    sys.stdout.write(filled(sys.stdin.read()))

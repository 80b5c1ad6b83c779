"""What is where on an MQTT broker, and how a broker is named; the same for the server and its clients. Pure.

    PREFIX/server/state                          {"state": "online" | "offline"}, retained; the server's Last Will
    PREFIX/auctions/ID/events/TYPE               one event, as the stream says it
    PREFIX/auctions/ID/state                     where it stands, retained
    PREFIX/agents/ID/bids                        what an agent says
    PREFIX/agents/ID/replies[/…]                 what it is answered
    PREFIX/agents/ID/payments                    its payment.posted, where the server is told to

An id stands in a topic percent-encoded, so that no id can be two levels or a wildcard.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

DEFAULT_PREFIX = "tokenauction/v1"
PORTS = {"mqtt": 1883, "mqtts": 8883}
TOKEN_PROPERTY = "authorization"  # MQTT 5 user property of a bid: "Bearer TOKEN"


class InvalidAddress(ValueError):
    """A broker is not named so; the message says how."""


@dataclass(frozen=True)
class Address:
    """One broker and who one is to it."""

    host: str
    port: int
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    prefix: str = DEFAULT_PREFIX

    @classmethod
    def parse(
        cls,
        url: str,
        password: str | None = None,
        *,
        ca: Path | None = None,
        certificate: Path | None = None,
    ) -> Address:
        """mqtt[s]://[USER@]HOST[:PORT][/PREFIX]; `ca` alone is trusted, `certificate` and its key (one PEM file) are
        shown.

        Raises InvalidAddress; a password in the URL is one, since others could read it.
        """
        try:
            parts = urlsplit(url)
            port = parts.port or PORTS[parts.scheme]
        except (ValueError, KeyError):
            raise InvalidAddress(f"{url!r:.200} is no broker; give mqtt://HOST[:PORT] or mqtts://…") from None
        if not parts.hostname or parts.query or "#" in url:
            raise InvalidAddress(f"{url!r:.200} is no broker; give mqtt://HOST[:PORT] or mqtts://…")
        if parts.password is not None:
            raise InvalidAddress("a password in a URL can be read by others; put it into TOKENAUCTION_MQTT_PASSWORD")
        prefix = parts.path.strip("/") or DEFAULT_PREFIX
        if any(sign in prefix for sign in "+#\0") or prefix.startswith("$"):
            raise InvalidAddress(f"{prefix!r:.200} cannot begin a topic: no +, no #, no $ in front")
        if parts.scheme == "mqtt" and (ca is not None or certificate is not None):
            raise InvalidAddress("certificates are for mqtts://")
        username = None if parts.username is None else unquote(parts.username)
        tls = _context(ca, certificate) if parts.scheme == "mqtts" else None
        return cls(parts.hostname, port, username, password, tls, prefix)

    def __str__(self) -> str:
        return f"{'mqtt' if self.tls is None else 'mqtts'}://{self.host}:{self.port}"


def _context(ca: Path | None, certificate: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
        if certificate is not None:
            context.load_cert_chain(certificate)
    except OSError as error:  # ssl.SSLError is one
        raise InvalidAddress(f"the certificates cannot be used: {error.strerror or error}") from None
    return context


def server_state(prefix: str) -> str:
    """Whether the server is there."""
    return f"{prefix}/server/state"


def auction_state(prefix: str, auction_id: str) -> str:
    """Where an auction stands; retained."""
    return f"{prefix}/auctions/{quote(auction_id, safe='')}/state"


def events(prefix: str, auction_id: str, kind: str) -> str:
    """One kind of an auction's events; "#" for all."""
    return f"{prefix}/auctions/{quote(auction_id, safe='')}/events/{kind}"


def bids(prefix: str, agent_id: str) -> str:
    """Where an agent says what it wants."""
    return f"{prefix}/agents/{quote(agent_id, safe='')}/bids"


def replies(prefix: str, agent_id: str) -> str:
    """Where it is answered, unless it asks for a level below."""
    return f"{prefix}/agents/{quote(agent_id, safe='')}/replies"


def payments(prefix: str, agent_id: str) -> str:
    """Where it is told what it pays."""
    return f"{prefix}/agents/{quote(agent_id, safe='')}/payments"


def all_bids(prefix: str) -> str:
    """What the server listens to."""
    return f"{prefix}/agents/+/bids"


def agent_of(prefix: str, topic: str) -> str:
    """Whose bids a topic of `all_bids` has."""
    return unquote(topic.removeprefix(f"{prefix}/agents/").removesuffix("/bids"))


def is_reply_topic(prefix: str, agent_id: str, topic: str) -> bool:
    """Whether an agent may be answered there: its own replies, or below."""
    own = replies(prefix, agent_id)
    return (topic == own or topic.startswith(own + "/")) and not any(sign in topic for sign in "+#\0")

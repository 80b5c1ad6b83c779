"""Who somebody is and what that allows: bearer tokens with scopes, single-use tickets for browsers, nobody on loopback.

    watch   read every public stream
    chat    begin auctions from the server's presets (chat.py), and nothing else
    bid     the same, and act for one agent, or for any where the token names none
    metrics read the server's own numbers (/metrics), and nothing else
    admin   everything: create auctions, read every number, accounts, tokens

A token goes in `Authorization: Bearer …`. A browser cannot send that header with a WebSocket: it gets a ticket by POST
with its token and offers it as a subprotocol, once, within a minute. Nothing secret is ever in a URL. Secrets are known
to the ledger as hashes only. It must not know sockets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from tokenauction.server.legality import ALLOWED_BY
from tokenauction.server.refusal import Refused

SCOPES = frozenset({"watch", "chat", "bid", "metrics", "admin"})
SUBPROTOCOL = "tokenauction.v1"
TICKET_PREFIX = "ticket."
TICKET_SECONDS = 60.0
MAX_TICKETS = 10_000  # that are out at a time
MAX_SECRET = 256  # characters


@dataclass(frozen=True)
class Identity:
    """Who is on the other side of a connection or request."""

    id: str
    scopes: frozenset[str]
    agent_id: str | None = None  # the one agent it may act for; None for any
    expires: float | None = None  # seconds since 1970

    def may(self, scope: str) -> bool:
        """Whether a scope contains this one: admin every one, bid that of watching."""
        return bool({scope, "admin", *ALLOWED_BY.get(scope, ())} & self.scopes)

    def acts_for(self, agent_id: str) -> bool:
        """Whether it may join, bid and leave as this agent."""
        return self.may("bid") and self.agent_id in (None, agent_id)


LOCAL = Identity("local", SCOPES)  # everybody, where no token is asked for


class KnownToken(Protocol):
    """What the ledger says of a token."""

    @property
    def token_id(self) -> str: ...

    @property
    def scopes(self) -> Iterable[str]: ...

    @property
    def agent_id(self) -> str | None: ...

    @property
    def expires(self) -> float | None: ...


class TokenStore(Protocol):
    """The ledger, as this file sees it."""

    async def check_token(self, secret: str) -> KnownToken | None:
        """The token, unless it is unknown, revoked or expired."""

    async def good_tokens(self, token_ids: Iterable[str]) -> set[str]:
        """Those of some tokens, by id, that were neither revoked nor have expired."""


class Doorkeeper:
    """Turns what a request carries into an identity."""

    def __init__(
        self, store: TokenStore, *, is_open: bool, entropy: Callable[[int], bytes], clock: Callable[[], float]
    ) -> None:
        """`is_open` lets everybody do everything, which is for loopback."""
        self.store = store
        self.is_open = is_open
        self.entropy = entropy
        self.clock = clock
        self._tickets: dict[str, tuple[Identity, float]] = {}  # by hash

    async def identify(self, authorization: str | None, subprotocols: Iterable[str] = ()) -> Identity:
        """Who sends this `Authorization` header or offers this ticket; Refused (unauthorized) where it is nobody."""
        tickets = [offer for offer in subprotocols if offer.startswith(TICKET_PREFIX)]
        if authorization is None and tickets:
            return await self._redeem(tickets[0].removeprefix(TICKET_PREFIX))
        if authorization is None:
            if self.is_open:
                return LOCAL
            raise Refused("unauthorized", "send Authorization: Bearer TOKEN, or a ticket as a subprotocol")
        kind, _, secret = authorization.partition(" ")
        if kind.lower() != "bearer" or not 0 < len(secret) <= MAX_SECRET:
            raise Refused("unauthorized", "the Authorization header must be: Bearer TOKEN")
        token = await self.store.check_token(secret)
        if token is None:
            raise Refused("unauthorized", "the token is unknown, expired or revoked")
        return Identity(token.token_id, frozenset(token.scopes), token.agent_id, token.expires)

    def ticket(self, identity: Identity) -> str:
        """A secret that stands for this identity once, for a minute; Refused (capacity) where too many are out."""
        now = self.clock()
        self._tickets = {key: entry for key, entry in self._tickets.items() if entry[1] > now}
        if len(self._tickets) >= MAX_TICKETS:
            raise Refused("capacity", f"{MAX_TICKETS} tickets are out, which is the limit; try again in a minute")
        secret = self.entropy(32).hex()
        self._tickets[_digest(secret)] = (identity, now + TICKET_SECONDS)
        return secret

    async def gone(self, identities: Iterable[Identity]) -> set[Identity]:
        """Those whose token was revoked or has expired."""
        asked = {identity for identity in identities if identity != LOCAL}
        late = {identity for identity in asked if identity.expires is not None and identity.expires <= self.clock()}
        if not asked - late:
            return late
        good = await self.store.good_tokens({identity.id for identity in asked - late})
        return late | {identity for identity in asked if identity.id not in good}

    async def _redeem(self, secret: str) -> Identity:
        identity, until = self._tickets.pop(_digest(secret), (None, 0.0))
        if identity is None or until <= self.clock():
            raise Refused("unauthorized", "the ticket is unknown, used or expired")
        if await self.gone([identity]):
            raise Refused("unauthorized", "the token that this ticket stands for is expired or revoked")
        return identity


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def bearer(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The `Authorization` header of an ASGI scope."""
    return next((value.decode("latin-1") for name, value in headers if name == b"authorization"), None)

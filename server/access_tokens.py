"""Access tokens: who may do what, until when. Of a secret only its SHA-256 is kept; it is shown once.

A secret is 256 random bits, so that a plain hash is enough: there is nothing to guess. Each function works in the
transaction of its caller.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from tokenauction.server.accounts import check_id
from tokenauction.server.ledger_error import LedgerError
from tokenauction.server.tables import access_tokens

SECRET_PREFIX = "ta_"  # so that scanners of repositories can find one that was committed


@dataclass(frozen=True)
class Token:
    """What an access token allows; times are seconds since 1970."""

    token_id: str
    scopes: tuple[str, ...]
    agent_id: str | None  # the one agent it may act for
    created_at: float
    expires: float | None
    revoked_at: float | None


@dataclass(frozen=True)
class Grant:
    """What a new token is to allow."""

    scopes: tuple[str, ...]
    agent_id: str | None
    expires: float | None

    @classmethod
    def of(cls, scopes: Iterable[str], agent_id: str | None, expires: float | None) -> Grant:
        """Checked: LedgerError (invalid_id) where a scope is no word, or there is none."""
        words = tuple(sorted(set(scopes)))
        if not words or not all(re.fullmatch(r"[a-z_.:]{1,32}", word) for word in words):
            raise LedgerError("invalid_id", f"scopes are one or more words in small letters, not {words!r:.100}")
        if agent_id is not None:
            check_id(agent_id, "agent_id")
        return cls(words, agent_id, expires)


def create(connection: Connection, grant: Grant, entropy: Callable[[int], bytes], now: float) -> tuple[str, str]:
    """A new token's id and secret."""
    token_id = f"tok_{entropy(8).hex()}"
    secret = SECRET_PREFIX + base64.urlsafe_b64encode(entropy(32)).decode().rstrip("=")
    row: dict[str, Any] = {"token_id": token_id, "secret_hash": _digest(secret), "scopes": " ".join(grant.scopes)}
    row |= {"agent_id": grant.agent_id, "created_at": now, "expires_at": grant.expires}
    connection.execute(insert(access_tokens), row)
    return token_id, secret


def revoke(connection: Connection, token_id: str, now: float) -> None:
    """From now on the token is nobody's; LedgerError (no_token) where there is none. Once is enough."""
    token = _find(connection, token_id)
    if token.revoked_at is None:
        connection.execute(update(access_tokens).where(access_tokens.c.token_id == token_id).values(revoked_at=now))


def rotate(connection: Connection, token_id: str, entropy: Callable[[int], bytes], now: float) -> tuple[str, str]:
    """A new token that allows the same, in the place of an old one; its id and secret.

    Raises LedgerError (invalid_id, no_token), the latter also where the old one was revoked or has expired.
    """
    token = _find(connection, token_id)
    if not _is_good(token, now):
        raise LedgerError("no_token", f"token {token_id!r} was revoked or has expired: create another")
    revoke(connection, token_id, now)
    return create(connection, Grant(token.scopes, token.agent_id, token.expires), entropy, now)


def check(connection: Connection, secret: str, now: float) -> Token | None:
    """The token with this secret, unless it was revoked or has expired."""
    row = connection.execute(_select().where(access_tokens.c.secret_hash == _digest(secret))).first()
    return _token(row) if row is not None and _is_good(_token(row), now) else None


def read_good(connection: Connection, token_ids: Iterable[str], now: float) -> set[str]:
    """Those of some tokens that were neither revoked nor have expired."""
    known = _select().where(access_tokens.c.token_id.in_(list(token_ids)))
    return {token.token_id for token in map(_token, connection.execute(known)) if _is_good(token, now)}


def read_all(connection: Connection, limit: int) -> list[Token]:
    """Tokens, the newest first."""
    query = _select().order_by(access_tokens.c.created_at.desc(), access_tokens.c.token_id).limit(limit)
    return [_token(row) for row in connection.execute(query)]


def _find(connection: Connection, token_id: str) -> Token:
    check_id(token_id, "token_id")
    row = connection.execute(_select().where(access_tokens.c.token_id == token_id)).first()
    if row is None:
        raise LedgerError("no_token", f"there is no token {token_id!r}")
    return _token(row)


def _select() -> Any:
    known = access_tokens.c
    return select(known.token_id, known.scopes, known.agent_id, known.created_at, known.expires_at, known.revoked_at)


def _token(row: Row[Any]) -> Token:
    return Token(row.token_id, tuple(row.scopes.split()), row.agent_id, row.created_at, row.expires_at, row.revoked_at)


def _is_good(token: Token, now: float) -> bool:
    return token.revoked_at is None and (token.expires is None or now < token.expires)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()

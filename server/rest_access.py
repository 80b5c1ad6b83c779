"""The REST half of access: tickets for browsers, and tokens, which an admin makes, lists, replaces and revokes.

A token that is revoked or replaced closes what it had opened before the answer is sent.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, Field

from tokenauction.server.auth import SCOPES, SUBPROTOCOL, TICKET_PREFIX, TICKET_SECONDS
from tokenauction.server.client_messages import MAX_ID
from tokenauction.server.log import logger
from tokenauction.server.refusal import Refused
from tokenauction.server.rest import ERRORS, Body, Id, Who, context_of, need

MAX_TOKENS = 1_000  # in one answer

TokenId = Annotated[str, Path(max_length=MAX_ID)]
router = APIRouter(prefix="/v1", responses=ERRORS)
log = logger()


class Ticket(BaseModel):
    """Offer `subprotocols` when opening a WebSocket from a browser: good once, for a minute."""

    subprotocols: list[str]
    expires_in: float


class NewToken(Body):
    """A token to create."""

    scopes: list[str] = Field(min_length=1, max_length=len(SCOPES))
    agent_id: Id | None = None
    expires_in: Annotated[float, Field(gt=0, le=10 * 365 * 86_400)] | None = None


class Secret(BaseModel):
    """The only time that the secret is shown."""

    token_id: str
    secret: str


class KnownToken(BaseModel):
    """A token without its secret; times are seconds since 1970."""

    token_id: str
    scopes: list[str]
    agent_id: str | None
    created_at: float
    expires: float | None
    revoked_at: float | None


class Tokens(BaseModel):
    """Tokens that there are or were, the newest first."""

    tokens: list[KnownToken]


@router.post("/tickets", status_code=201)
async def create_ticket(request: Request, who: Who) -> Ticket:
    """A single-use stand-in for the token that came with this request, for a browser's WebSocket."""
    secret = context_of(request).doorkeeper.ticket(who)
    return Ticket(subprotocols=[SUBPROTOCOL, f"{TICKET_PREFIX}{secret}"], expires_in=TICKET_SECONDS)


@router.post("/tokens", status_code=201)
async def create_token(request: Request, body: NewToken, who: Who) -> Secret:
    """A new access token; its secret is shown once and kept nowhere."""
    need(who, "admin")
    context = context_of(request)
    if unknown := sorted(set(body.scopes) - SCOPES):
        raise Refused("invalid_scope", f"{unknown[0]!r:.40} is no scope; the scopes are {', '.join(sorted(SCOPES))}")
    expires = None if body.expires_in is None else context.doorkeeper.clock() + body.expires_in
    token_id, secret = await context.house.ledger.create_token(sorted(set(body.scopes)), body.agent_id, expires)
    log.info("token made", token_id=token_id, scopes=sorted(set(body.scopes)), agent_id=body.agent_id, by=who.id)
    return Secret(token_id=token_id, secret=secret)


@router.get("/tokens")
async def list_tokens(
    request: Request, who: Who, limit: Annotated[int, Query(ge=1, le=MAX_TOKENS)] = MAX_TOKENS
) -> Tokens:
    """Tokens that there are or were, the newest first; never a secret."""
    need(who, "admin")
    known = await context_of(request).house.ledger.tokens(limit)
    return Tokens(tokens=[KnownToken(**{**vars(token), "scopes": list(token.scopes)}) for token in known])


@router.post("/tokens/{token_id}/rotate", status_code=201)
async def rotate_token(request: Request, token_id: TokenId, who: Who) -> Secret:
    """Another token that allows the same; the old one is revoked."""
    need(who, "admin")
    context = context_of(request)
    new_id, secret = await context.house.ledger.rotate_token(token_id)
    log.info("token replaced", token_id=token_id, new_token_id=new_id, by=who.id)
    await context.peers.close_gone()
    return Secret(token_id=new_id, secret=secret)


@router.delete("/tokens/{token_id}", status_code=204)
async def revoke_token(request: Request, token_id: TokenId, who: Who) -> None:
    """From now on the token opens nothing, and what it had opened closes."""
    need(who, "admin")
    context = context_of(request)
    await context.house.ledger.revoke_token(token_id)
    log.info("token revoked", token_id=token_id, by=who.id)
    await context.peers.close_gone()

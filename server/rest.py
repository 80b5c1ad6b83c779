"""The REST half: auctions, receipts, accounts (access: rest_access.py); every error is {"error": {"code", "message"}}.

It turns requests into calls of the house and the ledger, and what they say into statuses. What a body may be is said
by the models below, from which the OpenAPI document follows. It must not know how a stream is sent.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tokenauction.engine.money import MAX_MICROS
from tokenauction.server.auth import Identity
from tokenauction.server.catalogue import MAX_LISTED
from tokenauction.server.client_messages import MAX_ID
from tokenauction.server.context import Context
from tokenauction.server.refusal import Refused

Id = Annotated[str, Field(min_length=1, max_length=MAX_ID)]
AuctionId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]
AccountId = Annotated[str, Path(min_length=1, max_length=MAX_ID)]
Micros = Annotated[int, Field(ge=1, le=MAX_MICROS, strict=True)]


class Body(BaseModel):
    """What a request says; fields that nobody knows are refused."""

    model_config = ConfigDict(extra="forbid")


class Fault(BaseModel):
    """What went wrong: a code that stays the same, and one line for people."""

    code: str
    message: str


class Problem(BaseModel):
    """The body of every answer that is an error."""

    error: Fault


class NewAuction(Body):
    """An auction to begin: the engine's spec (amounts are decimal strings), `tmax_join_ms`, `token_ms` beside it."""

    spec: dict[str, Any]


class Acceptance(BaseModel):
    """The auction is on the ledger."""

    auction_id: str
    replayed: bool


class Sponsor(BaseModel):
    """Who takes part."""

    id: str
    name: str


class Summary(BaseModel):
    """What anybody may know of an auction."""

    auction_id: str
    state: str
    created_at: float
    query: str
    tmax_join_ms: int
    max_tokens: int
    currency: str
    rule: str
    pricing: str
    agents: list[Sponsor]
    num_tokens: int
    text: str
    last_seq: int
    durable_seq: int
    epoch: int


class Page(BaseModel):
    """Auctions in the order of their creation."""

    auctions: list[Summary]


class AccountState(BaseModel):
    """What an account has, and what open auctions hold of it besides."""

    account_id: str
    balance_micros: int
    held_micros: int


class Balances(BaseModel):
    """What every account has; the sum is zero."""

    balances: dict[str, int]


class Deposit(Body):
    """Money that came in; the same reference counts once."""

    micros: Micros
    reference: Id


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 431, 503)
}


async def identity_of(request: Request) -> Identity:
    """Who sends a request."""
    context: Context = request.app.state.context
    identity = await context.doorkeeper.identify(request.headers.get("authorization"))
    context.count_request(identity)
    return identity


Who = Annotated[Identity, Depends(identity_of)]
router = APIRouter(prefix="/v1", responses=ERRORS)


def context_of(request: Request) -> Context:
    """The server's parts."""
    context: Context = request.app.state.context
    return context


def need(identity: Identity, scope: str) -> None:
    """Refused (forbidden) unless the token has this scope."""
    if not identity.may(scope):
        raise Refused("forbidden", f"this takes a token with the scope {scope}")


@router.post("/auctions", status_code=201)
async def create_auction(
    request: Request,
    body: NewAuction,
    who: Who,
    response: Response,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=MAX_ID)] = None,
) -> Acceptance:
    """Begin an auction; the same `Idempotency-Key` with the same body begins nothing twice."""
    need(who, "admin")
    accepted = await context_of(request).house.create(body.spec, who.id, idempotency_key)
    response.headers["Location"] = f"/v1/auctions/{accepted.auction_id}"
    return Acceptance(auction_id=accepted.auction_id, replayed=accepted.is_replay)


@router.get("/auctions")
async def list_auctions(
    request: Request,
    who: Who,
    after: Annotated[str | None, Query(max_length=MAX_ID)] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = MAX_LISTED,
    newest: bool = False,
) -> Page:
    """Auctions behind `after`, in the order of their creation, or with `newest` the last ones first."""
    need(who, "watch")
    found = await context_of(request).catalogue.page(after, limit, newest=newest)
    return Page(auctions=[Summary(**summary) for summary in found])


@router.get("/auctions/{auction_id}")
async def read_auction(request: Request, auction_id: AuctionId, who: Who) -> Summary:
    """Where an auction stands."""
    need(who, "watch")
    return Summary(**await context_of(request).catalogue.describe(auction_id))


@router.post("/auctions/{auction_id}/cancel", status_code=202)
async def cancel_auction(request: Request, auction_id: AuctionId, who: Who) -> Summary:
    """Stop an auction at its next token; what was written is charged."""
    context = context_of(request)
    owner = await context.catalogue.owner(auction_id)
    if owner != who.id:
        need(who, "admin")
    await context.house.cancel(auction_id)
    return Summary(**await context.catalogue.describe(auction_id))


@router.get(
    "/auctions/{auction_id}/receipt",
    response_class=Response,
    responses={200: {"content": {"application/x-ndjson": {"schema": {"type": "string"}}}}},
)
async def read_receipt(request: Request, auction_id: AuctionId, who: Who) -> Response:
    """The receipt so far, as JSON lines for `tokenauction verify`: every bid is in it, so owner and admin alone."""
    context = context_of(request)
    if await context.catalogue.owner(auction_id) != who.id:
        need(who, "admin")
    lines = await context.catalogue.receipt(auction_id)

    async def body() -> AsyncIterator[str]:
        for line in lines:
            yield json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"

    return StreamingResponse(body(), media_type="application/x-ndjson")


@router.get("/accounts")
async def list_accounts(request: Request, who: Who) -> Balances:
    """What every account has, the ledger's own (@…) among them."""
    need(who, "admin")
    return Balances(balances=dict(await context_of(request).house.ledger.balances()))


@router.get("/accounts/{account_id}")
async def read_account(request: Request, account_id: AccountId, who: Who) -> AccountState:
    """What one account has: for its agent and the admin."""
    if who.agent_id != account_id:
        need(who, "admin")
    account = await context_of(request).house.ledger.account(account_id)
    if account is None:
        raise Refused("not_found", f"there is no account {account_id!r}: it begins with its first deposit")
    return AccountState(
        account_id=account.account_id, balance_micros=account.balance_micros, held_micros=account.held_micros
    )


@router.post("/accounts/{account_id}/deposits", status_code=201)
async def deposit(request: Request, account_id: AccountId, body: Deposit, who: Who) -> AccountState:
    """Money came in for an account."""
    need(who, "admin")
    await context_of(request).house.ledger.deposit(account_id, body.micros, body.reference)
    return await read_account(request, account_id, who)


STATUSES: Mapping[str, int] = {
    "unauthorized": 401,
    "insufficient_funds": 402,
    "forbidden": 403,
    "foreign_origin": 403,
    "not_found": 404,
    "model_not_found": 404,
    "no_token": 404,
    "no_auction": 404,
    "idempotency_conflict": 409,
    "not_live": 409,
    "not_open": 409,
    "not_begun": 409,
    "not_settled": 409,
    "bad_request": 400,
    "rate_limited": 429,
    "headers_too_large": 431,
    "draining": 503,
    "capacity": 503,
    "closed": 503,
    "failed": 503,
}


def status_of(code: str) -> int:
    """The HTTP status of an error's code; what is wrong with a request is 422."""
    return STATUSES.get(code, 422)

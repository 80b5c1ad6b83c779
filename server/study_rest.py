"""REST for whoever looks back at an auction, or wants to know what it depends on: presets, history, studies.

Studies cost computing: they are for owners and admins, a few at a time, and a sweep's rows come as they are ready.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from tokenauction.engine.guarantees import Rule
from tokenauction.engine.spec import AuctionSpec
from tokenauction.server.auction_request import AuctionRequest
from tokenauction.server.auth import Identity
from tokenauction.server.context import Context
from tokenauction.server.hub import encode_view
from tokenauction.server.refusal import Refused
from tokenauction.server.requests import EXPECTED
from tokenauction.server.rest import ERRORS, AuctionId, Body, Id, Who, context_of, need
from tokenauction.server.studies import MAX_POINTS, MAX_SEEDS, Studies, check_sweepable

MAX_HISTORY = 500  # events of one answer
NDJSON = "application/x-ndjson"

router = APIRouter(prefix="/v1", responses=ERRORS)


class PresetCard(BaseModel):
    """An auction that the server offers by name."""

    name: str
    title: str
    spec: dict[str, Any]


class PresetList(BaseModel):
    """All of them, in order."""

    presets: list[PresetCard]


class History(BaseModel):
    """Durable events of an auction as the reader may see them, and how far they go."""

    events: list[dict[str, Any]]
    last_seq: int
    is_over: bool


class PlainText(BaseModel):
    """What the reference alone writes with an auction's seed."""

    text: str
    num_tokens: int
    finish_reason: str


class LandscapePoint(BaseModel):
    """One bid, and what it comes to over the whole text."""

    bid_micros: int
    spend_micros: float
    influence: float


class Landscape(BaseModel):
    """An agent's spending and influence against its own bid; where they are not exact, why, and no points.

    In a softmax auction bids are values per nat, and influence is how far the choice moved: TV(π, π_-i).
    """

    agent_id: str
    currency: str
    per: Literal["token", "nat"]  # what a bid is for
    own_bid_micros: int
    exact: bool
    reason: str
    points: list[LandscapePoint]


class SweepRequest(Body):
    """Whom do texts mention as weight moves to one agent (the first, if none is named)?"""

    spec: dict[str, Any]
    agent_id: Id | None = None
    points: Annotated[int, Field(ge=2, le=MAX_POINTS, strict=True)] = 5
    seeds: Annotated[int, Field(ge=1, le=MAX_SEEDS, strict=True)] = 8
    rules: list[Rule] = Field(default=["linear"], min_length=1, max_length=2)


@router.get("/presets")
async def list_presets(request: Request, who: Who) -> PresetList:
    """The auctions that the server offers, to begin as they are or to change."""
    need(who, "watch")
    found = context_of(request).presets.by_name.values()
    return PresetList(presets=[PresetCard(name=each.name, title=each.title, spec=dict(each.spec)) for each in found])


@router.get("/auctions/{auction_id}/history")
async def read_history(
    request: Request,
    auction_id: AuctionId,
    who: Who,
    after_seq: Annotated[int, Query(ge=-1, le=2**53 - 1)] = -1,
    limit: Annotated[int, Query(ge=1, le=MAX_HISTORY)] = MAX_HISTORY,
) -> History:
    """Events from the ledger behind `after_seq`, as the stream has them: what a replay shows."""
    catalogue = context_of(request).catalogue
    if await catalogue.owner(auction_id) != who.id:
        need(who, "watch")
    viewpoint = await catalogue.viewpoint(auction_id, who, None)
    summary = await catalogue.describe(auction_id)
    is_over = auction_id not in context_of(request).house.live
    found: list[dict[str, Any]] = []
    async for event in context_of(request).house.ledger.events(auction_id, after_seq):
        shown = {**event, "durable_seq": event["seq"]}
        found.append(json.loads(encode_view(shown, viewpoint, is_settled=is_over)))
        if len(found) >= limit:
            break
    return History(events=found, last_seq=summary["durable_seq"], is_over=is_over)


@router.post("/auctions/{auction_id}/without-ads")
async def write_without_ads(request: Request, auction_id: AuctionId, who: Who) -> PlainText:
    """The text of a settled auction's own seed with every bid 0, which the reference writes alone. Nobody pays."""
    context = context_of(request)
    await _check_owner(context, auction_id, who)
    settled = await context.studies.without_ads(auction_id)
    return PlainText(text=settled["text"], num_tokens=settled["num_tokens"], finish_reason=settled["finish_reason"])


@router.get("/auctions/{auction_id}/landscape")
async def read_landscape(
    request: Request,
    auction_id: AuctionId,
    who: Who,
    agent_id: Annotated[str, Query(min_length=1, max_length=128)],
    points: Annotated[int, Query(ge=2, le=101)] = 25,
) -> Landscape:
    """An agent's mean spending and influence at other bids along the text that was written, from what is on record."""
    context = context_of(request)
    await _check_owner(context, auction_id, who)
    spec, reason, found = await context.studies.landscape(auction_id, agent_id, points)
    agent = next(agent for agent in spec.agents if agent.id == agent_id)
    is_softmax = spec.finalizer is not None
    return Landscape(
        agent_id=agent_id,
        currency=spec.currency,
        per="nat" if is_softmax else "token",
        own_bid_micros=agent.value_per_nat_micros if is_softmax else agent.bid_micros,
        exact=not reason,
        reason=reason,
        points=[LandscapePoint(**asdict(point)) for point in found],
    )


@router.post(
    "/sweeps",
    response_class=Response,
    responses={200: {"content": {NDJSON: {"schema": {"type": "string"}}}}},
)
async def sweep(request: Request, body: SweepRequest, who: Who) -> Response:
    """A line of JSON for each rule and weight as its texts are written; the last says "done", or what failed."""
    need(who, "admin")
    context = context_of(request)
    spec = AuctionRequest.from_mapping(body.spec).template
    check_sweepable(spec)
    ids = [agent.id for agent in spec.agents]
    if body.agent_id is not None and body.agent_id not in ids:
        raise Refused("unknown_agent", f"the spec has no agent {body.agent_id!r}")
    row = 0 if body.agent_id is None else ids.index(body.agent_id)
    return StreamingResponse(_rows(context.studies, spec, row, body), media_type=NDJSON)


async def _rows(studies: Studies, spec: AuctionSpec, row: int, body: SweepRequest) -> AsyncGenerator[str]:
    rules = list(dict.fromkeys(body.rules))
    try:
        async with aclosing(studies.sweep(spec, row, rules, body.points, body.seeds)) as rows:
            async for found in rows:
                yield json.dumps(found) + "\n"
    except* EXPECTED as errors:
        error = errors.exceptions[0]
        yield json.dumps({"error": {"code": getattr(error, "code", "error"), "message": str(error)}}) + "\n"
    else:
        yield json.dumps({"done": True}) + "\n"


async def _check_owner(context: Context, auction_id: str, who: Identity) -> None:
    if await context.catalogue.owner(auction_id) != who.id:
        need(who, "admin")

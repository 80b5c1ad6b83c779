"""The OpenAI-compatible door: `POST /v1/chat/completions` and `GET /v1/models`, for any chat front end.

A completion is an auction that the client owns. Where the client goes away before the end, the auction is cancelled at
its next token, and what was written is charged; with an `Idempotency-Key` it goes on instead, and the same request
reads it again from the start. Errors have OpenAI's shape. It must not know how an auction is decided.
"""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from tokenauction.engine.errors import TokenAuctionError
from tokenauction.server.auth import LOCAL, Identity
from tokenauction.server.chat_answer import AuctionBroke, ChatAnswer
from tokenauction.server.chat_request import MODEL_PREFIX, ChatRequest, wish_of
from tokenauction.server.client_messages import MAX_ID
from tokenauction.server.context import Context
from tokenauction.server.event_stream import MEDIA_TYPE, STILL_HERE, EventStream
from tokenauction.server.following import Following, unless_gone
from tokenauction.server.house import RETRY_SECONDS
from tokenauction.server.hub import Viewpoint
from tokenauction.server.refusal import Refused
from tokenauction.server.requests import EXPECTED
from tokenauction.server.rest import status_of

DONE = "data: [DONE]\n\n"
KINDS = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
CODES = {400: "bad_request", 404: "not_found", 408: "too_slow", 413: "too_large"}  # of errors that HTTP gives rise to


class ChatFault(BaseModel):
    """What went wrong, as OpenAI says it."""

    message: str
    type: str = ""
    param: str | None = None
    code: str | None = None


class ChatProblem(BaseModel):
    """The body of every answer that is an error."""

    error: ChatFault


class ModelCard(BaseModel):
    """One preset."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str = "tokenauction"


class ModelList(BaseModel):
    """The presets."""

    object: str = "list"
    data: list[ModelCard]


class _Route(APIRoute):
    """A route whose errors have OpenAI's shape."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle: Callable[[Request], Awaitable[Response]] = super().get_route_handler()

        async def with_errors(request: Request) -> Response:
            try:
                return await handle(request)
            except EXPECTED as error:
                wait = getattr(error, "retry_seconds", None)
                return _refusal(status_of(error.code), error.code, str(error), wait=wait)
            except RequestValidationError as error:
                first = error.errors()[0]
                where = ".".join(map(str, first["loc"][1:]))
                return _refusal(400, "invalid_request", f"{where}: {first['msg']}", where or None)
            except HTTPException as error:
                return _refusal(error.status_code, CODES.get(error.status_code, "error"), str(error.detail))

        return with_errors


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ChatProblem} for status in (400, 401, 402, 403, 404, 408, 409, 413, 429, 502, 503)
}
router = APIRouter(prefix="/v1", route_class=_Route, responses=_ERRORS, tags=["OpenAI-compatible"])


@router.get("/models")
async def list_models(request: Request) -> ModelList:
    """The auctions that can be asked for by name."""
    context, _ = await _enter(request, "chat", "watch", "bid")
    return ModelList(data=[ModelCard(id=MODEL_PREFIX + name) for name in context.presets.by_name])


@router.get("/models/{model:path}")
async def read_model(request: Request, model: str) -> ModelCard:
    """One of them."""
    context, _ = await _enter(request, "chat", "watch", "bid")
    if context.presets.find(model.removeprefix(MODEL_PREFIX)) is None:
        raise Refused("model_not_found", f"there is no model {model!r:.140}; GET /v1/models lists them")
    return ModelCard(id=model)


@router.post(
    "/chat/completions",
    response_class=Response,
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}, MEDIA_TYPE: {}}}},
)
async def complete(
    request: Request,
    body: ChatRequest,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=MAX_ID)] = None,
) -> Response:
    """A text written by an auction, at once or as a stream of chunks; the last chunk has the bill."""
    context, who = await _enter(request, "chat")
    wish = wish_of(body, context.presets)
    if wish.is_own and not who.may("admin"):
        raise Refused("forbidden", "an auction of one's own takes a token with the scope admin; name a preset")
    if body.stream:
        context.streams.check()
    house = context.house
    accepted = await house.create(wish.spec, who.id, idempotency_key)
    auction_id = accepted.auction_id
    summary = await context.catalogue.describe(auction_id)
    has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
    answer = ChatAnswer(auction_id, body.model, int(summary["created_at"]), has_usage)
    following = await Following.open(context.catalogue, auction_id, Viewpoint("owner"))

    def on_gone() -> None:
        if idempotency_key is None:
            house.spawn(_cancel(context, auction_id))

    if body.stream:
        return EventStream(context.streams, who, following, _frames(following, answer), on_gone)
    try:
        is_whole = await unless_gone(request.receive, _read(following, answer))
    except AuctionBroke as broke:
        return _refusal(502, broke.code, str(broke))
    finally:
        following.close()
    if is_whole is None:
        on_gone()
        return Response(status_code=204)  # nobody is there to read it
    return JSONResponse(answer.whole())


async def _read(following: Following, answer: ChatAnswer) -> None:
    """Take in the whole auction."""
    async for texts in following.texts():
        for text in texts:
            for _ in answer.chunks(json.loads(text)):
                pass


async def _frames(following: Following, answer: ChatAnswer) -> AsyncIterator[str]:
    """The chunks of a stream; an auction that fails ends it with an error."""
    try:
        async for texts in following.texts():
            chunks = (chunk for text in texts for chunk in answer.chunks(json.loads(text)))
            for chunk in chunks:
                yield f"data: {json.dumps(chunk)}\n\n"
            if not texts:
                yield STILL_HERE
    except AuctionBroke as broke:
        yield f"data: {json.dumps({'error': _fault(502, broke.code, str(broke))})}\n\n"
    else:
        yield DONE


async def _cancel(context: Context, auction_id: str) -> None:
    try:
        await context.house.cancel(auction_id)
    except TokenAuctionError as error:  # it has ended meanwhile
        assert error.code in ("not_live", "illegal_transition"), error


async def _enter(request: Request, *scopes: str) -> tuple[Context, Identity]:
    """Who asks, who must have one of the scopes; where no token is asked for, front ends send whatever they like."""
    context: Context = request.app.state.context
    try:
        who = await context.doorkeeper.identify(request.headers.get("authorization"))
    except Refused:
        if not context.doorkeeper.is_open:
            raise
        who = LOCAL
    context.count_request(who)
    if not any(map(who.may, scopes)):
        raise Refused("forbidden", f"this takes a token with the scope {scopes[0]}")
    return context, who


def _fault(status: int, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"message": message, "type": kind, "param": param, "code": code}


def _refusal(status: int, code: str, message: str, param: str | None = None, *, wait: float | None = None) -> Response:
    status = 400 if status == 422 else status
    seconds = RETRY_SECONDS if status == 503 and wait is None else wait
    headers = None if seconds is None else {"Retry-After": str(max(1, math.ceil(seconds)))}
    return JSONResponse({"error": _fault(status, code, message, param)}, status, headers)

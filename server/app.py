"""One port's application: REST (rest.py), the stream's handshake, health; what every request must be, and what it gets.

    /v1/stream    WebSocket: Origin → room → who is it → accept → connection.py
    /v1/chat/…    chat.py: OpenAI's words
    /v1/…         REST            /healthz  alive            /readyz  takes new auctions
    /, /page/…    the page        /client/… its client (pages.py)
    /openapi.json, /docs          the document of the REST half
    /metrics      for Prometheus (rest_metrics.py)

A handshake that is refused gets a status and the same body as any error. It must not know uvicorn.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from tokenauction import __version__
from tokenauction.server import chat, event_stream
from tokenauction.server.auth import SUBPROTOCOL, Doorkeeper, Identity, bearer
from tokenauction.server.bidding import Bidding
from tokenauction.server.catalogue import Catalogue
from tokenauction.server.connection import Connection
from tokenauction.server.context import Context
from tokenauction.server.gauges import Gauges
from tokenauction.server.house import RETRY_SECONDS, House
from tokenauction.server.open_streams import OpenStreams
from tokenauction.server.pages import Pages
from tokenauction.server.peers import MAX_CONNECTIONS, MAX_PER_ADDRESS, Peers
from tokenauction.server.presets import Presets
from tokenauction.server.rate import (
    BURST,
    HANDSHAKE_BURST,
    HANDSHAKES_PER_SECOND,
    REQUESTS_PER_SECOND,
    Rates,
    address_key,
)
from tokenauction.server.refusal import Refused
from tokenauction.server.request_body import MAX_BODY, MAX_CHAT_BODY, RequestBody
from tokenauction.server.request_head import check_head
from tokenauction.server.requests import EXPECTED, Requests
from tokenauction.server.rest import router, status_of
from tokenauction.server.rest_access import router as access_router
from tokenauction.server.rest_metrics import router as metrics_router
from tokenauction.server.session import Session
from tokenauction.server.studies import Studies
from tokenauction.server.study_rest import router as study_router

STREAM_PATH = "/v1/stream"
HEALTH = ("/healthz", "/readyz")
OWN_NAMES = ("127.0.0.1", "localhost", "::1")  # of this machine

STATUS_CODES = MappingProxyType(  # codes of errors that HTTP itself gives rise to
    {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 408: "too_slow", 413: "too_large"}
)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


@dataclass(frozen=True)
class AppSettings:
    """What a server's owner may choose."""

    origins: tuple[str, ...] = ()  # whose pages may open streams and post, besides the server's own on loopback
    max_connections: int = MAX_CONNECTIONS
    presets: Presets = field(default_factory=Presets)
    max_per_address: int = MAX_PER_ADDRESS
    requests_per_second: float = REQUESTS_PER_SECOND  # by REST, from one address and with one token
    request_burst: float = BURST
    handshakes_per_second: float = HANDSHAKES_PER_SECOND  # from one address
    handshake_burst: float = HANDSHAKE_BURST


class App:
    """The application of one server."""

    def __init__(self, house: House, doorkeeper: Doorkeeper, settings: AppSettings, pages: Pages | None = None) -> None:
        self.settings = settings
        self.pages = pages or Pages()
        streams = OpenStreams()
        self.peers = Peers(doorkeeper, streams, settings.max_connections, settings.max_per_address)
        rates = Rates(settings.requests_per_second, settings.request_burst)
        parts = (Bidding(house), Catalogue(house), doorkeeper, self.peers, rates, Studies(house))
        self.context = Context(house, *parts, settings.presets, streams)
        house.telemetry.metrics.registry.register(Gauges(self.context))
        self.is_ready = False
        self._handshakes = Rates(settings.handshakes_per_second, settings.handshake_burst)
        self._rest = _rest(self)
        self._http = CORSMiddleware(
            self._answer,
            allow_origins=settings.origins,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=("authorization", "content-type", "idempotency-key", "last-event-id"),
            expose_headers=("location", "retry-after"),
        )

    @property
    def connections(self) -> Collection[Connection]:
        """The open WebSockets."""
        return self.peers.connections

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] == "websocket":
            await self._stream(scope, receive, send)
        else:
            await self._http(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What HTTP asks for; pages of allowed origins may read it."""
        if (refusal := self._refusal_of(scope)) is not None:
            await refusal(scope, receive, send)
        elif (page := self.pages.answer(scope)) is not None:
            await page(scope, receive, send)
        else:
            limit = MAX_CHAT_BODY if scope["path"].startswith("/v1/chat/") else MAX_BODY
            await self._rest(scope, RequestBody(receive, limit).receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The handshake, then the connection."""
        assert (await receive())["type"] == "websocket.connect"
        offers: list[str] = scope["subprotocols"]
        try:
            identity = await self._admit(scope, offers)
        except EXPECTED as error:
            await _deny(send, error)
            return
        chosen = SUBPROTOCOL if SUBPROTOCOL in offers else None
        await send({"type": "websocket.accept", "subprotocol": chosen})
        stamp = self.context.house.decoder.stamp
        requests = Requests(self.context.house, self.context.bidding, identity, stamp)
        session = Session(identity.scopes, identity.agent_id, identity.expires, stamp)
        socket = _Socket(receive, send, scope["state"]["offer"])
        connection = Connection(
            socket, scope["state"]["abort"], session, requests, self.context.catalogue, self.context.doorkeeper.clock
        )
        with self.peers.present(connection, _address(scope)):
            await connection.run()

    async def _admit(self, scope: Scope, offers: Iterable[str]) -> Identity:
        check_head(scope)
        if scope["path"] != STREAM_PATH:
            raise Refused("not_found", f"streams are at {STREAM_PATH}")
        if not self._is_welcome(scope):
            raise Refused("foreign_origin", "pages of this origin may not open a stream")
        self._handshakes.check(_address(scope), asyncio.get_running_loop().time())
        self.peers.check_room(_address(scope))
        return await self.context.doorkeeper.identify(bearer(scope["headers"]), offers)

    def _refusal_of(self, scope: Scope) -> JSONResponse | None:
        """Why a request is not looked at any further; the server's health may be asked for at any time."""
        try:
            check_head(scope)
            if not self._is_welcome(scope):
                raise Refused("foreign_origin", "pages of this origin may not use the server")
            if scope["path"] not in HEALTH and not self.pages.has(scope["path"]):
                self.context.rates.check(f"address {_address(scope)}", asyncio.get_running_loop().time())
        except Refused as error:
            return _refusal(error)
        return None

    def _is_welcome(self, scope: Scope) -> bool:
        """Whether the page that sent this, if it was a page, may: browsers name their origin, programs do not.

        Where nobody is asked for a token, the server must have been called by a name of this machine besides: another
        name that leads here makes a foreign page look like an own one, to which a browser lets it read every answer.
        """
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        names = {*OWN_NAMES, *map(_name_of, self.settings.origins)}
        if self.context.doorkeeper.is_open and host is not None and _name_of(f"//{host}") not in names:
            return False
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return True
        port = (scope.get("server") or ("", 0))[1]
        own = {f"http://{f'[{name}]' if ':' in name else name}:{port}" for name in OWN_NAMES}
        same = {f"http://{host}", f"https://{host}"}  # the page came by the name that is called now, or from a tunnel
        return origin is None or origin in own | same | set(self.settings.origins)


def _name_of(url: str) -> str | None:
    """The host that a URL names; None where it names none."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _header(scope: Scope, name: bytes) -> str | None:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


class _Socket:
    """An accepted WebSocket."""

    def __init__(self, receive: Receive, send: Send, offer: Callable[[bytes], bool]) -> None:
        self._receive = receive
        self._send = send
        self.offer = offer

    async def receive(self) -> Mapping[str, Any]:
        return await self._receive()

    async def send(self, message: Mapping[str, Any]) -> None:
        await self._send(dict(message))


def _rest(app: App) -> FastAPI:
    """The REST half."""
    rest = FastAPI(
        title="tokenauction",
        version=__version__,
        description="Several advertisers' language models write one text, and pay for it. Amounts are integer micros.",
    )
    rest.state.context = app.context
    rest.include_router(router)
    rest.include_router(access_router)
    rest.include_router(study_router)
    rest.include_router(metrics_router)
    rest.include_router(chat.router)
    rest.include_router(event_stream.router)

    @rest.get("/healthz")
    async def healthz() -> dict[str, Any]:
        """Alive, and how busy."""
        house = app.context.house
        return {"status": "ok", "auctions": len(house.live), "connections": len(app.connections)}

    @rest.get("/readyz", responses={503: {"description": "Takes no new auctions."}})
    async def readyz() -> Response:
        """Whether new auctions are taken."""
        is_ready = app.is_ready and not app.context.house.is_draining
        return JSONResponse({"ready": is_ready}, 200 if is_ready else 503, _retry(not is_ready))

    async def refuse(_: Request, error: Exception) -> Response:
        return _refusal(error)

    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _json(422, "invalid_request", f"{where}: {first['msg']}")

    async def by_status(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = STATUS_CODES.get(error.status_code, "error")
        answer = _json(error.status_code, code, str(error.detail))
        answer.headers.update(error.headers or {})
        return answer

    for kind in EXPECTED:
        rest.add_exception_handler(kind, refuse)
    rest.add_exception_handler(RequestValidationError, invalid)
    rest.add_exception_handler(HTTPException, by_status)
    return rest


def _refusal(error: Exception) -> JSONResponse:
    """What was refused, as a status and a body."""
    code, wait = str(getattr(error, "code", "error")), getattr(error, "retry_seconds", None)
    answer = _json(status_of(code), code, str(error))
    if code == "bad_request":  # what follows on this connection is in doubt too
        answer.headers["Connection"] = "close"
    if wait is not None:
        answer.headers["Retry-After"] = str(max(1, math.ceil(wait)))
    return answer


def _address(scope: Scope) -> str:
    """Where a request comes from, as far as its limits go."""
    return address_key((scope.get("client") or ("",))[0])


def _json(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse({"error": {"code": code, "message": message}}, status, _retry(status == 503))


def _retry(is_later: bool) -> dict[str, str]:
    return {"Retry-After": str(RETRY_SECONDS)} if is_later else {}


async def _deny(send: Send, error: Exception) -> None:
    """Refuse a handshake with a status and a body, as any request."""
    answer = _refusal(error)
    await send({"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "websocket.http.response.body", "body": answer.body})

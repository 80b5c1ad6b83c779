"""Server-sent events: an auction's stream over plain HTTP, resumed by `Last-Event-ID`; the response that sends them.

    id: EPOCH-SEQ        of what carries a seq; to resume, a seq alone will do where the server has not crashed since
    event: TYPE
    data: JSON           the same text as on the WebSocket

A reader that does not take what is sent within SEND_SECONDS is cut off; it resumes where it was. It must not know chat.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Request, Response

from tokenauction.server.auth import Identity
from tokenauction.server.context import Context
from tokenauction.server.following import Following, unless_gone, until_gone
from tokenauction.server.open_streams import OpenStreams
from tokenauction.server.refusal import Refused
from tokenauction.server.rest import ERRORS, AuctionId, Who

SEND_SECONDS = 10.0  # for the peer to take what is sent to it
MEDIA_TYPE = "text/event-stream"
STILL_HERE = ": nothing new\n\n"
MAX_EVENT_ID = 64  # characters

router = APIRouter(prefix="/v1", responses=ERRORS)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class EventStream(Response):
    """A response whose frames are sent as they come, until they end or the client goes away."""

    def __init__(
        self,
        streams: OpenStreams,
        who: Identity,
        following: Following,
        frames: AsyncIterator[str],
        on_gone: Callable[[], None] = lambda: None,
    ) -> None:
        """`frames` are made of what is followed; `on_gone` is called where the client went away before the end."""
        self.status_code = 200
        self.background = None
        self.media_type = MEDIA_TYPE
        self.body = b""
        self.init_headers({"cache-control": "no-cache, no-transform", "x-accel-buffering": "no"})
        self._streams = streams
        self._who = who
        self._following = following
        self._frames = frames
        self._on_gone = on_gone

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._streams.one(self._who, scope["state"]["abort"]):
            try:
                is_whole = await unless_gone(receive, self._send(send))
            except TimeoutError:
                is_whole = None
                scope["state"]["abort"]()
                await until_gone(receive)
            finally:
                self._following.close()
            if is_whole is None:
                self._on_gone()

    async def _send(self, send: Send) -> None:
        headers = [pair for pair in self.raw_headers if pair[0] != b"content-length"]
        await _in_time(send, {"type": "http.response.start", "status": self.status_code, "headers": headers})
        async for frame in self._frames:
            await _in_time(send, {"type": "http.response.body", "body": frame.encode(), "more_body": True})
        await _in_time(send, {"type": "http.response.body", "body": b"", "more_body": False})


async def _in_time(send: Send, message: MutableMapping[str, Any]) -> None:
    async with asyncio.timeout(SEND_SECONDS):
        await send(message)


@router.get(
    "/auctions/{auction_id}/events",
    response_class=Response,
    responses={200: {"content": {MEDIA_TYPE: {}}}, 204: {"description": "The end was seen: nothing will come."}},
)
async def read_events(
    request: Request,
    auction_id: AuctionId,
    who: Who,
    last_event_id: Annotated[str | None, Header(max_length=MAX_EVENT_ID)] = None,
) -> Response:
    """An auction's events as they come, as server-sent events, behind the one that `Last-Event-ID` names."""
    context: Context = request.app.state.context
    return await event_stream(context, auction_id, who, last_event_id)


async def event_stream(context: Context, auction_id: str, who: Identity, last_event_id: str | None) -> Response:
    """An auction's events behind the one that was seen last; 204 where the end was, so that a browser stops asking.

    Raises Refused (not_found, forbidden, after_seq, invalid_request, capacity).
    """
    if not who.may("watch") and await context.catalogue.owner(auction_id) != who.id:
        raise Refused("forbidden", "this takes a token with the scope watch")
    epoch, after_seq = read_event_id(last_event_id)
    context.streams.check()
    viewpoint = await context.catalogue.viewpoint(auction_id, who, None)
    following = await Following.open(context.catalogue, auction_id, viewpoint, after_seq, epoch)
    if following.is_at_end:
        following.close()
        return Response(status_code=204)
    return EventStream(context.streams, who, following, _frames(following))


async def _frames(following: Following) -> AsyncIterator[str]:
    async for texts in following.texts():
        yield "".join(map(frame_of, texts)) or STILL_HERE


def frame_of(text: str) -> str:
    """One event, as it was encoded for a WebSocket, as a frame."""
    event = msgspec.json.decode(text)
    place = f"id: {event['epoch']}-{event['seq']}\n" if "seq" in event else ""
    return f"{place}event: {event['type']}\ndata: {text}\n\n"


def read_event_id(last: str | None) -> tuple[int | None, int]:
    """Epoch, where it is given, and seq; (None, -1) for a reader that begins. Refused (invalid_request) otherwise."""
    if not last:
        return None, -1
    found = re.fullmatch(r"(?:([0-9]{1,15})-)?([0-9]{1,15})", last, re.ASCII)
    if found is None:
        raise Refused("invalid_request", "Last-Event-ID is the id of an event of this stream: EPOCH-SEQ")
    epoch, seq = found.groups()
    return None if epoch is None else int(epoch), int(seq)

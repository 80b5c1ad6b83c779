"""A request's body as ASGI brings it: of limited size, all of it within limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from fastapi import HTTPException  # which FastAPI lets through while it reads a body

MAX_BODY = 64 * 1024  # bytes of one request
MAX_CHAT_BODY = 1024 * 1024  # bytes of a conversation, of which the last user message counts
BODY_SECONDS = 10.0  # from the end of its headers to that of its body

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class RequestBody:
    """The body of one request."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._size = 0
        self._is_whole = False
        self._until = asyncio.get_running_loop().time() + BODY_SECONDS

    async def receive(self) -> MutableMapping[str, Any]:
        """The next ASGI message; raises HTTPException (408, 413) for a body that takes too long or is too large."""
        if self._is_whole:
            return await self._receive()  # only the disconnect follows
        try:
            async with asyncio.timeout_at(self._until):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body did not arrive within {BODY_SECONDS:g} s") from None
        self._size += len(message.get("body", b""))
        if self._size > self._limit:
            raise HTTPException(413, f"a request has at most {self._limit} bytes")
        self._is_whole = message["type"] != "http.request" or not message.get("more_body", False)
        return message

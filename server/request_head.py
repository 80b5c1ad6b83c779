"""What a request's headers must be, whoever sends them: not too long, and clear about where its body ends."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from tokenauction.server.refusal import Refused

MAX_HEADER_BYTES = 16 * 1024  # of all headers and the target; what comes in pieces is bounded by uvicorn before


def check_head(scope: MutableMapping[str, Any]) -> None:
    """Raises Refused (headers_too_large, bad_request) for an ASGI scope whose request is not to be answered."""
    headers = scope["headers"]
    size = len(scope["raw_path"]) + len(scope["query_string"]) + sum(len(name) + len(value) for name, value in headers)
    if size > MAX_HEADER_BYTES:
        raise Refused("headers_too_large", f"a request's headers have at most {MAX_HEADER_BYTES} bytes, not {size}")
    if {b"content-length", b"transfer-encoding"} <= {name for name, _ in headers}:
        raise Refused("bad_request", "Content-Length and Transfer-Encoding together leave a request's end in doubt")

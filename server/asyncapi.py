"""The AsyncAPI 3 document of the stream, made from the structs: `python -m tokenauction.server.asyncapi` prints it.

docs/asyncapi.json is what it prints; a test fails where the two differ. Descriptions are the structs' own docstrings.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import msgspec

from tokenauction.server import dense_frame
from tokenauction.server.legality import LEGAL
from tokenauction.server.wire import ANSWERS, JSON_MESSAGES, MAX_FRAME_BYTES, MAX_MESSAGE_BYTES, STREAM_EVENTS

ADDRESS = "/v1/stream"
SUBPROTOCOL = "tokenauction.v1"
PROTOCOL_VERSION = "1.0.0"
FRAME = "DenseDistribution"

ABOUT = f"""The stream of a tokenauction server: watch auctions of texts, and bid in them while they are written.

One JSON object a text message, at most {MAX_MESSAGE_BYTES} bytes; a binary message is one {FRAME}, at most
{MAX_FRAME_BYTES} bytes. Money is whole micros. docs/protocol.md says who may send and see what, and when."""


def document() -> dict[str, Any]:
    """The whole document, as a mapping that JSON can hold."""
    kinds = (*JSON_MESSAGES, *STREAM_EVENTS, *ANSWERS)
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    messages = {kind.__name__: _message(kind) for kind in kinds} | {FRAME: _frame()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "tokenauction",
            "version": PROTOCOL_VERSION,
            "description": ABOUT,
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {
            "local": {
                "host": "127.0.0.1:8000",
                "protocol": "ws",
                "description": "A server on this machine.",
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        },
        "channels": {
            "stream": {
                "address": ADDRESS,
                "description": f"One WebSocket; the subprotocol is {SUBPROTOCOL}, which may be left out.",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": {name: _operation(name) for name in messages},
        "components": {
            "messages": messages,
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An access token with scopes."}
            },
        },
    }


def as_json() -> str:
    """The document as it is checked in."""
    return json.dumps(document(), indent=2, ensure_ascii=False) + "\n"


def _message(kind: type[msgspec.Struct]) -> dict[str, Any]:
    name = str(kind.__struct_config__.tag)
    text = inspect.cleandoc(kind.__doc__ or "")
    message = {
        "name": name,
        "title": kind.__name__,
        "summary": text.partition("\n\n")[0].replace("\n", " "),
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{kind.__name__}"},
    }
    scope = LEGAL[name].scope if kind in JSON_MESSAGES else None
    return {**message, "description": f"Needs the scope {scope}."} if scope else message


def _frame() -> dict[str, Any]:
    return {
        "name": "distribution.submit (binary)",
        "title": FRAME,
        "summary": "The same as distribution.submit with every token listed, as one binary message.",
        "description": inspect.cleandoc(dense_frame.__doc__ or ""),
        "contentType": "application/octet-stream",
        "payload": {"type": "string", "format": "binary", "maxLength": MAX_FRAME_BYTES},
    }


def _operation(name: str) -> dict[str, Any]:
    """What the server does with a message: it receives a client's, it sends its own."""
    from_client = {kind.__name__ for kind in JSON_MESSAGES} | {FRAME}
    return {
        "action": "receive" if name in from_client else "send",
        "channel": {"$ref": "#/channels/stream"},
        "messages": [{"$ref": f"#/channels/stream/messages/{name}"}],
    }


if __name__ == "__main__":
    sys.stdout.write(as_json())

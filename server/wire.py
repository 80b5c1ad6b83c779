"""The wire: bytes from a stranger become a message or a WireError, messages become bytes. Pure; the same for both ends.

    text    → size → nesting, digits → JSON → type → fields → what goes together → a struct of client_messages.py
    binary  → dense_frame.py
    struct  → JSON

What a peer can make the decoder do is bounded by the limits below. Clients need this module alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from tokenauction.engine.report import SPARSE_TOLERANCE
from tokenauction.server.answers import (
    ANSWERS,
    AgentJoined,
    AuctionAccepted,
    BidAccepted,
    BidRejected,
    Error,
    PaymentPosted,
    Pong,
    SessionCreated,
    StepMissed,
    StepOpened,
    StreamGap,
    StreamSnapshot,
)
from tokenauction.server.client_messages import (
    JSON_MESSAGES,
    MAX_ID,
    AgentJoin,
    AgentLeave,
    AuctionCancel,
    AuctionCreate,
    BidUpdate,
    Brief,
    DistributionSubmit,
    JsonMessage,
    Ping,
    Subscribe,
    Unsubscribe,
)
from tokenauction.server.dense_frame import MAX_FRAME_BYTES, DenseDistribution, check_log_probs, read_frame, write_frame
from tokenauction.server.envelope import ServerEnvelope
from tokenauction.server.stream_events import (
    STREAM_EVENTS,
    AgentLeft,
    AuctionCreated,
    AuctionFinalized,
    AuctionSettled,
    AuctionToken,
    CandidateCompleted,
    CandidatesProgress,
    DistributionsCommitted,
    StreamError,
    StreamEvent,
    StreamReset,
)
from tokenauction.server.wire_error import WireError

__all__ = [
    "ANSWERS",
    "JSON_MESSAGES",
    "LIMITS",
    "MAX_FRAME_BYTES",
    "MAX_MESSAGE_BYTES",
    "STREAM_EVENTS",
    "AgentJoin",
    "AgentJoined",
    "AgentLeave",
    "AgentLeft",
    "AuctionAccepted",
    "AuctionCancel",
    "AuctionCreate",
    "AuctionCreated",
    "AuctionFinalized",
    "AuctionSettled",
    "AuctionToken",
    "BidAccepted",
    "BidRejected",
    "BidUpdate",
    "Brief",
    "CandidateCompleted",
    "CandidatesProgress",
    "ClientMessage",
    "DenseDistribution",
    "DistributionSubmit",
    "DistributionsCommitted",
    "Error",
    "Limits",
    "PaymentPosted",
    "Ping",
    "Pong",
    "ServerEnvelope",
    "ServerMessage",
    "SessionCreated",
    "StepMissed",
    "StepOpened",
    "StreamError",
    "StreamEvent",
    "StreamGap",
    "StreamReset",
    "StreamSnapshot",
    "Subscribe",
    "Unsubscribe",
    "WireError",
    "decode",
    "decode_server",
    "encode",
    "write_frame",
]

MAX_MESSAGE_BYTES = 64 * 1024  # of one text message; a binary one may have MAX_FRAME_BYTES
MAX_DEPTH = 8  # objects and lists inside each other; the deepest message, auction.create, needs 4
MAX_DIGITS = 80  # of one number; a seed of 256 bits has 78

ClientMessage = JsonMessage | DenseDistribution
ServerMessage = (
    AuctionCreated
    | AuctionToken
    | CandidatesProgress
    | CandidateCompleted
    | AuctionFinalized
    | AgentLeft
    | PaymentPosted
    | StreamReset
    | StreamError
    | AuctionSettled
    | SessionCreated
    | AuctionAccepted
    | AgentJoined
    | BidAccepted
    | BidRejected
    | StepOpened
    | StepMissed
    | DistributionsCommitted
    | StreamGap
    | StreamSnapshot
    | Error
    | Pong
)

# Each is linear in what a stranger sends: a text that never ends is taken whole, a run of digits is looked at once.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_DIGITS = re.compile(rb"[0-9]++")
_INNERMOST = re.compile(rb"[\[{][^\[\]{}]*+[\]}]")
_HUGE = re.compile(rb"[eE]\+?[0-9]{3}|NaN|Infinity")  # an exponent of three digits, or what JSON does not have
_TYPES = MappingProxyType({str(kind.__struct_config__.tag): kind for kind in JSON_MESSAGES})
_REQUIRED = MappingProxyType(  # of every type, its fields, and which of them must be there
    {kind: {field.encode_name: field.required for field in msgspec.structs.fields(kind)} for kind in JSON_MESSAGES}
)


@dataclass(frozen=True)
class Limits:
    """What one text message may be."""

    message_bytes: int = MAX_MESSAGE_BYTES
    depth: int = MAX_DEPTH
    digits: int = MAX_DIGITS


LIMITS = Limits()


def decode(data: str | bytes, limits: Limits = LIMITS) -> ClientMessage:
    """The message in a text (str) or binary (bytes) WebSocket message; raises WireError, and nothing else."""
    return read_frame(data) if isinstance(data, bytes) else _decode_text(data, limits)


def encode(message: msgspec.Struct) -> bytes:
    """The JSON of a message, client's or server's."""
    return msgspec.json.encode(message)


def decode_server(data: str | bytes) -> ServerMessage | None:
    """A server's message as its client reads it; None for a type that this version does not know.

    Fields that this version does not know are left out. Raises WireError for what is no server's message at all.
    """
    try:
        fields = msgspec.json.decode(data)
        kind = _server_type(fields)
        message: ServerMessage | None = None if kind is None else msgspec.convert(fields, kind)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise WireError("invalid_json", f"the server sent what is no message: {error}") from None
    return message


def _decode_text(text: str, limits: Limits) -> JsonMessage:
    fields = _parse(_checked(text, limits))
    if "type" not in fields:
        raise WireError("missing_field", "the message has no type")
    name, request_id = fields["type"], fields.get("request_id")
    if not isinstance(name, str):
        raise WireError("invalid_field", "type is the name of a message, as text")
    if name not in _TYPES:
        raise WireError("unknown_type", f"no message has the type {name!r}; the types are {', '.join(_TYPES)}")
    try:
        message: JsonMessage = _convert(fields, _TYPES[name])
    except WireError as error:
        known_id = request_id if isinstance(request_id, str) and len(request_id) <= MAX_ID else None
        raise WireError(error.code, error.message, request=name, request_id=known_id) from None
    return message


def _checked(text: str, limits: Limits) -> bytes:
    """The text as bytes that are safe to parse."""
    if len(text) > limits.message_bytes:
        raise WireError("message_too_large", f"a text message has at most {limits.message_bytes} bytes")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise WireError("invalid_utf8", "the text holds half a UTF-16 pair") from None
    if len(data) > limits.message_bytes:
        raise WireError("message_too_large", f"a text message has at most {limits.message_bytes} bytes")
    bare = _STRING.sub(b'""', data)
    if _is_deeper(bare, limits.depth):
        raise WireError("too_deep", f"objects and lists are nested more than {limits.depth} deep")
    if max(map(len, _DIGITS.findall(bare)), default=0) > limits.digits:
        raise WireError("number_too_long", f"a number has more than {limits.digits} digits")
    if _HUGE.search(bare):
        raise WireError("invalid_number", "NaN, Infinity and numbers beyond float64 are not JSON")
    return data


def _is_deeper(bare: bytes, depth: int) -> bool:
    """Whether brackets are nested deeper: take the innermost pairs away so many times and look at what is left."""
    for _ in range(depth):
        bare, num_pairs = _INNERMOST.subn(b"", bare)
        if not num_pairs:
            break
    return _INNERMOST.search(bare) is not None or bare.count(b"[") + bare.count(b"{") > depth


def _parse(data: bytes) -> dict[str, Any]:
    """The JSON object; no object in it gives a field twice."""
    try:
        value = msgspec.json.decode(data)
    except msgspec.MsgspecError as error:
        raise WireError("invalid_json", f"the message is not one JSON value: {error}") from None
    if not isinstance(value, dict):
        raise WireError("not_an_object", "a message is a JSON object with a type")
    num_given = _STRING.sub(b"", data).count(b":")  # outside of texts a colon stands behind a field's name
    if num_given != len(value) and num_given != _count_fields(value):
        raise WireError("duplicate_field", "an object gives a field twice; which one would count?")
    return value


def _count_fields(value: dict[str, Any] | list[Any]) -> int:
    """How many fields all objects in a value have together; nesting is bounded by the limits."""
    own, inside = (len(value), value.values()) if isinstance(value, dict) else (0, value)
    return own + sum(_count_fields(inner) for inner in inside if isinstance(inner, dict | list))


def _convert(fields: dict[str, Any], kind: type[Any]) -> Any:
    """The struct of one object whose type is known."""
    known = _REQUIRED[kind]
    for name in fields:
        if name != "type" and name not in known:
            raise WireError("unknown_field", f"{name!r} is no field; the fields are {', '.join(sorted(known))}")
    for name, is_required in known.items():
        if is_required and name not in fields:
            raise WireError("missing_field", f"the field {name} is missing")
    try:
        message = msgspec.convert(fields, kind)
    except msgspec.ValidationError as error:
        raise WireError("invalid_field", str(error)) from None
    if isinstance(message, DistributionSubmit):
        _check_sparse(message)
    return message


def _check_sparse(message: DistributionSubmit) -> None:
    if len(message.ids) != len(message.log_probs):
        counts = f"{len(message.ids)} ids and {len(message.log_probs)} log_probs"
        raise WireError("invalid_distribution", f"there are {counts}; every id has one")
    if len(set(message.ids)) != len(message.ids):
        raise WireError("invalid_distribution", "an id is listed twice")
    check_log_probs(np.array(message.log_probs, np.float64), message.tail_mass, SPARSE_TOLERANCE)


def _server_type(fields: Any) -> type[Any] | None:
    """The struct for a server's message: an `error` with a `seq` belongs to a stream."""
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise msgspec.ValidationError("it is no object with a type")
    if fields["type"] == "error":
        return StreamError if "seq" in fields else Error
    return next((kind for kind in (*STREAM_EVENTS, *ANSWERS) if kind.__struct_config__.tag == fields["type"]), None)

"""A whole distribution as one binary frame: what an agent with an own model sends for one token.

    offset  bytes  field
    0       4      magic, "TADF"
    4       1      version, 1
    5       1      number format: 1 float16, 2 float32
    6       2      reserved, 0
    8       2      A, bytes of the auction's id
    10      2      B, bytes of the agent's id
    12      4      step
    16      4      V, entries of the vocabulary
    20      8      first 8 bytes of the vocabulary's hash (SHA-256)
    28      A      auction id, UTF-8
    28+A    B      agent id, UTF-8
    28+A+B  V·w    natural logarithms of the probabilities, token id 0 first; w is 2 or 4

Little endian throughout. Every number is finite and at most 0: a token that cannot come has the format's lowest number.
The probabilities sum to 1 within 10⁻³ (float32) or 10⁻² (float16, whose logarithms are that coarse). It must not know
which vocabulary is right, nor which step is awaited.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from tokenauction.engine.report import DENSE_TOLERANCE, fault_of
from tokenauction.server.client_messages import MAX_ID, MAX_TOKENS
from tokenauction.server.wire_error import WireError

MAGIC = b"TADF"
VERSION = 1
HEADER = struct.Struct("<4sBBHHHII8s")
FORMATS: Mapping[int, np.dtype[np.floating]] = MappingProxyType({1: np.dtype("<f2"), 2: np.dtype("<f4")})
MAX_VOCABULARY = 2**18
MAX_FRAME_BYTES = HEADER.size + 8 * MAX_ID + 4 * MAX_VOCABULARY  # an id's character has up to 4 bytes


@dataclass(frozen=True, eq=False)
class DenseDistribution:
    """One frame, read: the same as a `distribution.submit` with every token listed."""

    auction_id: str
    agent_id: str
    step: int
    vocabulary_hash_prefix: str  # the first 16 hexadecimal digits
    log_probs: np.ndarray[tuple[int], np.dtype[np.floating]]  # [vocab], as it came
    request_id: None = None  # a frame has none


def read_frame(data: bytes) -> DenseDistribution:
    """The distribution in a frame; WireError for anything else."""
    if len(data) > MAX_FRAME_BYTES:
        raise WireError("message_too_large", f"a frame has at most {MAX_FRAME_BYTES} bytes, not {len(data)}")
    if len(data) < HEADER.size or data[:4] != MAGIC:
        raise WireError(
            "invalid_frame", f"a binary message is a frame of at least {HEADER.size} bytes that begins TADF"
        )
    _, version, number_format, reserved, num_auction, num_agent, step, vocabulary, prefix = HEADER.unpack_from(data)
    if version != VERSION or number_format not in FORMATS or reserved:
        raise _wrong(
            "unsupported_frame",
            f"version {version}, format {number_format}, reserved {reserved}; known is version 1, format 1 or 2, 0",
        )
    if step >= MAX_TOKENS or not 0 < vocabulary <= MAX_VOCABULARY:
        raise _wrong("invalid_frame", f"step {step} or vocabulary {vocabulary} is out of range")
    start = HEADER.size + num_auction + num_agent
    awaited = start + vocabulary * FORMATS[number_format].itemsize
    if len(data) != awaited:
        raise _wrong("invalid_frame", f"the header speaks of {awaited} bytes; the frame has {len(data)}")
    auction_id = _name(data[HEADER.size : HEADER.size + num_auction], "auction id")
    agent_id = _name(data[HEADER.size + num_auction : start], "agent id")
    log_probs = np.frombuffer(data, FORMATS[number_format], vocabulary, start)
    check_log_probs(log_probs, 0.0, DENSE_TOLERANCE[log_probs.dtype.name])
    return DenseDistribution(auction_id, agent_id, step, prefix.hex(), log_probs)


def write_frame(
    auction_id: str,
    agent_id: str,
    step: int,
    vocabulary_hash: str,
    log_probs: np.ndarray[tuple[int], np.dtype[np.floating]],
) -> bytes:
    """The frame of a float16 or float32 vector of log-probabilities; ValueError for another dtype."""
    formats = [number for number, dtype in FORMATS.items() if dtype == log_probs.dtype]
    if not formats:
        raise ValueError(f"log_probs are {log_probs.dtype}; convert them to float16 or float32")
    names = (auction_id.encode(), agent_id.encode())
    prefix = bytes.fromhex(vocabulary_hash)[:8]
    header = HEADER.pack(MAGIC, VERSION, formats[0], 0, *map(len, names), step, len(log_probs), prefix)
    return b"".join((header, *names, log_probs.astype(FORMATS[formats[0]]).tobytes()))


def check_log_probs(
    log_probs: np.ndarray[tuple[int], np.dtype[np.floating]], tail_mass: float, tolerance: float
) -> None:
    """Raise WireError unless these are finite, at most 0, and sum to 1 with the tail."""
    fault = fault_of(log_probs, tail_mass, tolerance)
    if fault:
        raise _wrong(*fault)


def _name(raw: bytes, what: str) -> str:
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise _wrong("invalid_frame", f"the {what} is not UTF-8") from None
    if not 0 < len(name) <= MAX_ID or not name.isprintable():
        raise _wrong("invalid_frame", f"the {what} has 1 to {MAX_ID} printable characters")
    return name


def _wrong(code: str, message: str) -> WireError:
    return WireError(code, message, request="distribution.submit")

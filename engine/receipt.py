"""A receipt: what an auction recorded, as hash-chained JSON lines that a stranger can verify without the model.

    line 1       {"kind": "auction", …}      the spec, the seed's commitment, model, numerics and prompt hashes
    line 2 …     {"kind": "step", …}         what one token's price follows from; columns in the order of `rows`
    last line    {"kind": "settlement", …}   the text, the totals, the seed and its nonce

A softmax auction has, instead of steps, a line for each candidate and one for the choice among them:

    line 2 …     {"kind": "candidate", …}    one text and the draws that made it, in the order of their numbers
    then         {"kind": "choice", …}       what every candidate is worth to whom, who won, what each agent pays

Every line but the first names the hash of the line before it (`previous`), and every line its own (`hash`: SHA-256 of
the line without it, as canonical JSON). Times, ids of events and latencies stay out: one seed gives one receipt.
Amounts are micros; floats are written in full, so that reading them back gives the same float64.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.randomness import seed_bytes
from tokenauction.engine.spec import AuctionSpec

VERSION = 1
MAX_LINE = 64 * 2**20  # characters; a step with stored distributions is long
MAX_LINES = 2**20
KINDS = ("auction", "step", "candidate", "choice", "settlement")
Line = dict[str, Any]
_NOT_HASHED = frozenset({"hash", "distributions", "reports"})


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces, UTF-8, floats in their shortest exact form; NaN and infinities are
    refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def content_hash(line: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a line without its own `hash`; of stored distributions and reports only their hashes count."""
    return hashlib.sha256(canonical({k: v for k, v in line.items() if k not in _NOT_HASHED})).hexdigest()


def commitment(seed: int, nonce: bytes, header: Mapping[str, Any]) -> str:
    """Hex SHA-256 that binds seed, nonce and everything the header says, before the first token.

    sha256("tokenauction/commitment/v1" ‖ seed, 32 bytes big endian ‖ nonce, 32 bytes ‖ canonical header), the header
    without `commitment` and `hash`.
    """
    content = {k: v for k, v in header.items() if k not in ("commitment", "hash")}
    return hashlib.sha256(b"tokenauction/commitment/v1" + seed_bytes(seed) + nonce + canonical(content)).hexdigest()


def caller_nonce(seed: int) -> bytes:
    """The nonce of an auction whose seed the caller gave: a function of the seed, so that a run can be repeated."""
    return hashlib.sha256(b"tokenauction/nonce/v1" + seed_bytes(seed)).digest()


def header_line(content: Mapping[str, Any], seed: int, nonce: bytes) -> Line:
    """The first line: `content` (spec, rows, model, …) with the seed's commitment."""
    line: Line = {"kind": "auction", "version": VERSION, **content}
    line["commitment"] = commitment(seed, nonce, line)
    line["hash"] = content_hash(line)
    return line


def next_line(kind: str, content: Mapping[str, Any], previous: Line) -> Line:
    """A step or settlement line, chained to the one before it."""
    line: Line = {"kind": kind, **content, "previous": previous["hash"]}
    line["hash"] = content_hash(line)
    return line


def voided_by(spec: AuctionSpec, line: Mapping[str, Any]) -> set[str]:
    """What in one line behind the first takes the auction out of its guarantee; see `guarantees.LIMITS`."""
    if spec.finalizer is not None:
        return {"a payment was clipped to a budget"} if any(line.get("clipped", ())) else set()
    num_agents = len(spec.agents)
    first = [agent.bid_micros for agent in spec.agents]
    found = {
        "a bid changed in mid-text": line["bids"][:num_agents] != first,
        "an agent was absent": "absent" in line["status"],
        "a budget cut a bid": "budget_spent" in line["status"]
        or any(
            effective < bid
            for bid, effective, status in zip(line["bids"], line["effective"], line["status"], strict=True)
            if status == "bid"
        ),
        "a payment was clipped to a budget": any(line["clipped"]),
        "an agent reported its own distribution": any(line.get("report_hashes", ())),
    }
    return {says for says, is_so in found.items() if is_so}


def pack_distribution(distribution: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[str, str]:
    """A distribution as base64 of its little-endian float64 bytes, and the hex SHA-256 of those bytes."""
    data = np.ascontiguousarray(distribution, dtype="<f8").tobytes()
    return base64.b64encode(data).decode(), hashlib.sha256(data).hexdigest()


def unpack_distribution(packed: str, expected_hash: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The float64 array of `pack_distribution`; ReceiptError if it is not what was hashed."""
    try:
        data = base64.b64decode(packed, validate=True)
    except ValueError:
        raise ReceiptError("a stored distribution is not base64") from None
    if hashlib.sha256(data).hexdigest() != expected_hash or len(data) % 8:
        raise ReceiptError("a stored distribution is not the one that was hashed into its step")
    return np.frombuffer(data, dtype="<f8")


def write_receipt(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write a receipt as JSON lines."""
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")


def read_receipt(path: Path) -> list[Line]:
    """Read JSON lines, never more than the limits allow; ReceiptError names the first line that is none."""
    rows: list[str] = []
    try:
        with path.open(encoding="utf-8", newline="\n") as file:
            while (row := file.readline(MAX_LINE + 1)) and len(rows) < MAX_LINES:
                if len(row) > MAX_LINE:
                    raise ReceiptError(f"line {len(rows) + 1} is longer than the limit of {MAX_LINE} characters")
                rows.append(row.rstrip("\n"))
    except UnicodeDecodeError:
        raise ReceiptError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise ReceiptError(f"{path} cannot be read: {error.strerror}") from None
    if row:
        raise ReceiptError(f"{path} has more than {MAX_LINES} lines, which is the limit")
    return parse_receipt([row for row in rows if row])


def parse_receipt(rows: Sequence[str]) -> list[Line]:
    """The lines of a receipt; ReceiptError names the first that is not a JSON object of a known kind."""
    lines: list[Line] = []
    for number, row in enumerate(rows, start=1):
        if len(row) > MAX_LINE:
            raise ReceiptError(f"line {number} has {len(row)} characters; the limit is {MAX_LINE}")
        try:
            line = json.loads(row, parse_constant=_refuse_constant)
        except (ValueError, RecursionError):
            raise ReceiptError(f"line {number} is not JSON") from None
        if not isinstance(line, dict) or line.get("kind") not in KINDS:
            raise ReceiptError(f"line {number} is not a line of a receipt")
        lines.append(line)
    if not lines:
        raise ReceiptError("the receipt is empty")
    return lines


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number in a receipt")

"""Verification from whole distributions: a step is cleared again, and everything it records must come out the same."""

from __future__ import annotations

import numpy as np
import torch

from tokenauction.engine.errors import ReceiptError
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.receipt import Line, unpack_distribution
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.stepping import clear_rows

TOLERANCE = 1e-9  # of probabilities, and of amounts relative to the bid
COLUMNS = ("p", "r", "critical_bids", "owed", "log_partitions", "divergences", "own_tokens")


def check_distributions(spec: AuctionSpec, line: Line) -> str:
    """The first thing in a step line that its stored distributions do not give, or an empty string.

    Raises ReceiptError where the distributions are not those that were hashed.
    """
    rows = len(spec.row_ids)
    packed, hashes = line["distributions"], line["distribution_hashes"]
    if len(packed) != rows or len(hashes) != rows:
        raise ReceiptError("the stored distributions are not one a row")
    table = [unpack_distribution(data, digest) for data, digest in zip(packed, hashes, strict=True)]
    if len({len(row) for row in table}) != 1:
        raise ReceiptError("the stored distributions differ in length")
    distributions = torch.from_numpy(np.stack(table))
    outcome = clear_rows([spec], [tuple(line["effective"])], [bytes.fromhex(line["key"])], [distributions])[0]
    if not isinstance(outcome, StepOutcome):
        return str(outcome)
    if outcome.token != line["token"]:
        return f"the distributions give token {outcome.token}, {line['token']} is recorded"
    for name, follows, recorded in (("q", outcome.q, line["q"]), ("cdf_below", outcome.cdf_below, line["cdf_below"])):
        if not _close(follows, recorded, 1.0):
            return f"{name} is {recorded}, but the distributions give {follows}"
    for name in COLUMNS:
        scale = max(line["effective"]) if name in ("critical_bids", "owed") else 1.0
        column = line.get(name, [None] * rows)
        for row_id, follows, recorded in zip(spec.row_ids, getattr(outcome, name), column, strict=True):
            if not _close(follows, recorded, scale):
                return f"{name} of {row_id} is {recorded}, but the distributions give {follows}"
    return ""


def _close(follows: float | None, recorded: float | None, scale: float) -> bool:
    if follows is None or recorded is None:
        return follows is recorded
    return abs(follows - recorded) <= TOLERANCE * max(1.0, scale)

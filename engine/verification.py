"""Does a receipt hold? Arithmetic that a stranger can redo from the receipt's own numbers, without a model.

Three levels, each naming the first line that does not hold:

    arithmetic      the chain; the commitment; every step's key and the uniforms that follow from it; the draw's uniform
                    against the recorded cdf; q and r_i from the p_i (linear); every critical bid, payment and charge
    distributions   where the receipt stores them: every step is cleared again from whole distributions
    model           the model is run again (see `tokenauction.engine.replay`)

What the arithmetic level cannot see: whether p_i(t) is what a model said, and (log_linear) whether r_i and q are the
aggregates of whole distributions. The chain proves nothing against somebody who rewrites all of it, unless its head was
published: pass `head` to pin it.
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenauction.engine.arithmetic import StepNumbers, check_step
from tokenauction.engine.auction import Auction
from tokenauction.engine.errors import InvalidInput, TokenAuctionError
from tokenauction.engine.randomness import step_key
from tokenauction.engine.receipt import Line, commitment, content_hash
from tokenauction.engine.redo import check_distributions
from tokenauction.engine.spec import AuctionSpec

FINISH_REASONS = frozenset({"end", "max_tokens", "sentences", "budget_spent", "no_bid", "cancelled", "error"})


@dataclass(frozen=True)
class Verdict:
    """Whether a receipt holds, how deep it was looked into, and the first thing that does not hold."""

    holds: bool
    level: str  # "arithmetic" or "distributions"; "model" after a replay
    num_steps: int
    where: str = ""  # "auction", "step 3", "settlement"
    problem: str = ""

    def __str__(self) -> str:
        if self.holds:
            return f"holds: {self.num_steps} steps, checked at the level of {self.level}"
        return f"does not hold at {self.where}: {self.problem}"


class Fault(Exception):
    """A line that does not hold; carries its name and what is wrong. Only this module and its checks raise it."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(problem)
        self.where = where
        self.problem = problem


def verify(lines: Sequence[Line], *, head: str | None = None) -> Verdict:
    """Check a whole receipt; never raises for what a receipt may hold.

    `head`, where given, is the published hash of the settlement line.
    """
    num_steps = sum(line["kind"] == "step" for line in lines)
    level = "arithmetic"
    where = "auction"
    try:
        _check_chain(lines, head)
        spec = _check_header(lines)
        auction = Auction(spec, "verification")
        auction.start()
        settlement = lines[-1]
        for line in lines[1:-1]:
            where = f"step {line['step']}"
            _check_one_step(spec, auction, line, settlement)
        where = "settlement"
        _check_settlement(auction, settlement)
        where = "auction"
        if num_steps and all("distributions" in line for line in lines[1:-1]):
            level = "distributions"
            for line in lines[1:-1]:
                where = f"step {line['step']}"
                problem = check_distributions(spec, line)
                if problem:
                    raise Fault(where, problem)
    except Fault as fault:
        return Verdict(False, level, num_steps, fault.where, fault.problem)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Verdict(False, level, num_steps, where, f"a field is missing or of the wrong kind ({error})")
    except (TokenAuctionError, ValueError, OverflowError, ZeroDivisionError) as error:
        return Verdict(False, level, num_steps, where, str(error))
    return Verdict(True, level, num_steps)


def _check_chain(lines: Sequence[Line], head: str | None) -> None:
    if lines[0]["kind"] != "auction":
        raise Fault("auction", "the first line is not the auction")
    if lines[-1]["kind"] != "settlement":
        raise Fault("settlement", "the last line is not a settlement: the receipt is cut off")
    for number, line in enumerate(lines):
        kind = line["kind"]
        where = f"step {number - 1}" if kind == "step" else kind
        if kind != ("auction" if number == 0 else "settlement" if number == len(lines) - 1 else "step"):
            raise Fault(where, f"line {number + 1} is out of place")
        if kind == "step" and line["step"] != number - 1:
            raise Fault(where, f"the steps are not dense: {line['step']} stands where {number - 1} belongs")
        if number and line["previous"] != lines[number - 1]["hash"]:
            raise Fault(where, "the chain is broken: the line before it is not the one that was hashed")
        if line["hash"] != content_hash(line):
            raise Fault(where, "its hash is not that of its content: the line was changed")
    if head is not None and lines[-1]["hash"] != head:
        raise Fault("settlement", "the receipt's head is not the published one")


def _check_header(lines: Sequence[Line]) -> AuctionSpec:
    header, settlement = lines[0], lines[-1]
    spec = AuctionSpec.from_mapping(header["spec"])
    if list(spec.row_ids) != header["rows"]:
        raise Fault("auction", "the rows are not those of the spec")
    if header["guarantee"] != spec.guarantee.summary:
        raise Fault("auction", "the guarantee is not the one of this rule, sampler and pricing")
    seed, nonce = int(settlement["seed"], 16), bytes.fromhex(settlement["nonce"])
    if not hmac.compare_digest(commitment(seed, nonce, header), str(header["commitment"])):
        raise Fault("auction", "seed, nonce and spec are not those that were committed to")
    return spec


def _check_one_step(spec: AuctionSpec, auction: Auction, line: Line, settlement: Line) -> None:
    where = f"step {line['step']}"
    key = step_key(int(settlement["seed"], 16), line["step"])
    if line["key"] != key.hex():
        raise Fault(where, "its key does not follow from the seed")
    if settlement["token_ids"][line["step"]] != line["token"]:
        raise Fault(where, "its token is not the one in the settlement")
    if not str(settlement["text"]).startswith(auction.text + line["text"]):
        raise Fault(where, "its text is not the one in the settlement")
    _check_bids(spec, auction, line, where)
    numbers = StepNumbers.from_line(spec, line)
    problem = check_step(numbers, key)
    if problem:
        raise Fault(where, problem)
    charges = auction.record(line["token"], line["text"], tuple(line["owed"]))
    for name, recorded, due in (
        ("payments", line["payments"], charges.payments),
        ("charges", line["charges"], charges.charges),
        ("clipped", line["clipped"], charges.clipped),
    ):
        for row, (mine, theirs) in enumerate(zip(due, recorded, strict=True)):
            if mine != theirs:
                raise Fault(where, f"{name} of {spec.row_ids[row]}: {theirs} is recorded, {mine} follows")


def _check_bids(spec: AuctionSpec, auction: Auction, line: Line, where: str) -> None:
    for row, agent in enumerate(spec.agents):
        auction.set_bid(agent.id, line["bids"][row])
        auction.set_absent(agent.id, is_absent=line["status"][row] == "absent")
    bids = auction.read_bids()
    for name, recorded, follows in (
        ("bids", line["bids"], bids.submitted),
        ("effective", line["effective"], bids.effective),
        ("status", line["status"], bids.status),
    ):
        if recorded != list(follows):
            raise Fault(where, f"{name}: {recorded} is recorded, {list(follows)} follows")


def _check_settlement(auction: Auction, line: Line) -> None:
    finished: dict[str, Any] = {
        "num_tokens": auction.num_tokens,
        "token_ids": auction.token_ids,
        "exact_micros": auction.exact_micros,
        "totals_micros": list(auction.totals_micros) if line["posted"] else [0] * len(auction.exact_micros),
        "posted": line["finish_reason"] != "error",
        "finish_reason": line["finish_reason"]
        if line["finish_reason"] in FINISH_REASONS
        else "one of the known reasons",
    }
    for name, follows in finished.items():
        if line[name] != follows:
            raise Fault("settlement", f"{name}: {line[name]} is recorded, {follows} follows")
    if not math.isfinite(sum(auction.exact_micros)):
        raise InvalidInput("the totals are not finite")

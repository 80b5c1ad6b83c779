"""Does a receipt hold? Arithmetic that a stranger can redo from the receipt's own numbers, without a model.

Three levels, each naming the first line that does not hold:

    arithmetic      the chain; the commitment; every step's key and the uniforms that follow from it; the draw's uniform
                    against the recorded cdf; q and r_i from the p_i (linear); every critical bid and charge; every
                    payment that follows from them, and the bounds of those that follow from whole distributions; totals
    distributions   where the receipt stores them: every step is cleared again from whole distributions
    model           the model is run again, and the text is decoded (see `tokenauction.engine.replay`)

What the arithmetic level cannot see: whether p_i(t) is what a model said; (log_linear) whether r_i and q are the
aggregates of whole distributions; the TV or KL behind an `expected` or `kl_clarke` payment, but for its bounds; whether
a text is that of its tokens. The chain proves nothing against somebody who rewrites all of it, unless its head was
published: pass `head` to pin it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tokenauction.engine.arithmetic import StepNumbers, check_step
from tokenauction.engine.auction import Auction
from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.finalizer_arithmetic import FinalizerCheck
from tokenauction.engine.finish import Fault, check_settlement
from tokenauction.engine.randomness import step_key
from tokenauction.engine.receipt import VERSION, Line, caller_nonce, commitment, content_hash, voided_by
from tokenauction.engine.redo import check_distributions
from tokenauction.engine.report import Report
from tokenauction.engine.spec import AuctionSpec


@dataclass(frozen=True)
class Verdict:
    """Whether a receipt holds, how deep it was looked into, and the first thing that does not hold."""

    holds: bool
    level: str  # "arithmetic" or "distributions"; "model" after a replay
    num_steps: int
    where: str = ""  # "auction", "step 3", "settlement"
    problem: str = ""
    unit: str = "steps"  # what was counted: "candidates" in a softmax auction

    def __str__(self) -> str:
        if self.holds:
            return f"holds: {self.num_steps} {self.unit}, checked at the level of {self.level}"
        return f"does not hold at {self.where}: {self.problem}"


def verify(lines: Sequence[Line], *, head: str | None = None) -> Verdict:
    """Check a whole receipt, line by line; never raises for what a receipt may hold.

    `head`, where given, is the published hash of the settlement line.
    """
    steps = [line for line in lines if line["kind"] in ("step", "candidate")]
    level = "distributions" if steps and all("distributions" in line for line in steps) else "arithmetic"
    unit = "candidates" if any(line["kind"] == "candidate" for line in lines) else "steps"
    where = "auction"
    try:
        if lines[0]["kind"] != "auction":
            raise Fault("auction", "the first line is not the auction")
        if lines[-1]["kind"] != "settlement":
            raise Fault("settlement", "the last line is not a settlement: the receipt is cut off")
        _check_link(lines, 0)
        spec = _check_header(lines)
        auction = Auction(spec, "verification")
        auction.start()
        voids: set[str] = set()
        seed = int(lines[-1]["seed"], 16)
        softmax = None if spec.finalizer is None else FinalizerCheck(spec, spec.finalizer, seed, auction)
        is_as_hashed = lines[-1].get("hash") == content_hash(lines[-1])
        settlement = lines[-1] if is_as_hashed else None  # None: it is what was changed
        for number, line in enumerate(lines[1:-1], start=1):
            where = _where(lines, number)
            _check_link(lines, number)
            if softmax is not None:
                softmax.take(line)
            else:
                _check_step(spec, auction, line, seed)
                if settlement is not None:
                    _check_against(settlement, auction, line, where)
            voids |= voided_by(spec, line)
        where = "settlement"
        _check_link(lines, len(lines) - 1)
        if softmax is not None:
            softmax.settle(lines[-1])
        check_settlement(auction, lines, voids)
        if head is not None and lines[-1]["hash"] != head:
            raise Fault("settlement", "the receipt's head is not the published one")
    except Fault as fault:
        return Verdict(False, level, len(steps), fault.where, fault.problem, unit)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        return Verdict(False, level, len(steps), where, f"a field is missing or of the wrong kind ({error})", unit)
    except RecursionError:
        return Verdict(False, level, len(steps), where, "a field is nested too deeply", unit)
    except (TokenAuctionError, ValueError, OverflowError, ZeroDivisionError) as error:
        return Verdict(False, level, len(steps), where, str(error), unit)
    return Verdict(True, level, len(steps), unit=unit)


def _check_link(lines: Sequence[Line], number: int) -> None:
    """The line stands where it belongs, behind the line before it, and is what was hashed."""
    line, where = lines[number], _where(lines, number)
    is_inside = 0 < number < len(lines) - 1
    inside = ("step",) if lines[0]["spec"].get("mechanism") != "softmax" else ("candidate", "choice")
    kind = "auction" if number == 0 else "settlement" if not is_inside else line["kind"]
    if line["kind"] != kind or (is_inside and kind not in inside):
        raise Fault(where, f"line {number + 1} is out of place")
    if kind == "step" and (type(line["step"]) is not int or line["step"] != number - 1):
        raise Fault(where, f"the steps are not dense: {line['step']} stands where {number - 1} belongs")
    if number and line["previous"] != lines[number - 1]["hash"]:
        raise Fault(where, "the chain is broken: the line before it is not the one that was hashed")
    if line["hash"] != content_hash(line):
        raise Fault(where, "its hash is not that of its content: the line was changed")


def _where(lines: Sequence[Line], number: int) -> str:
    """How a line is named where it does not hold."""
    if number in (0, len(lines) - 1):
        return "settlement" if number else "auction"
    kind = lines[number]["kind"]
    return str(kind) if kind == "choice" else f"{kind if kind == 'candidate' else 'step'} {number - 1}"


def _check_header(lines: Sequence[Line]) -> AuctionSpec:
    header, settlement = lines[0], lines[-1]
    if header["version"] != VERSION:
        raise Fault("auction", f"its version is {header['version']!r}; this is a check of version {VERSION}")
    spec = AuctionSpec.from_mapping(header["spec"])
    if list(spec.listed_ids) != header["rows"]:
        raise Fault("auction", "the rows are not those of the spec")
    if header["guarantee"] != spec.guarantee.summary or header["limits"] != list(spec.limits):
        raise Fault("auction", "the guarantee and its limits are not those of this rule, sampler and pricing")
    for name in ("seed", "nonce"):
        if not isinstance(settlement[name], str) or not re.fullmatch("[0-9a-f]{64}", settlement[name]):
            raise Fault("settlement", f"its {name} is not 32 bytes in hexadecimal")
    seed, nonce = int(settlement["seed"], 16), bytes.fromhex(settlement["nonce"])
    if header["seed_source"] not in ("caller", "drawn") or spec.seed is not None:
        raise Fault("auction", "its seed is neither the caller's nor drawn, or is not withheld")
    if not hmac.compare_digest(commitment(seed, nonce, header), str(header["commitment"])):
        _check_link(lines, len(lines) - 1)  # it may be the settlement that was changed
        raise Fault("auction", "seed, nonce and spec are not those that were committed to")
    if header["seed_source"] == "caller" and nonce != caller_nonce(seed):
        raise Fault("auction", "the nonce is not that of a caller's seed")
    return spec


def _check_against(settlement: Line, auction: Auction, line: Line, where: str) -> None:
    """The settlement, as it was hashed, says the same of this step as the step, which `auction` has taken in."""
    if settlement["token_ids"][line["step"]] != line["token"]:
        raise Fault(where, "its token is not the one in the settlement")
    if not settlement["text"].startswith(auction.text):
        raise Fault(where, "its text is not the one in the settlement")


def _check_step(spec: AuctionSpec, auction: Auction, line: Line, seed: int) -> None:
    where = f"step {line['step']}"
    if auction.limit_reached:
        raise Fault(where, "the text had reached its limit before this step")
    key = step_key(seed, line["step"])
    if line["key"] != key.hex():
        raise Fault(where, "its key does not follow from the seed")
    _check_bids(spec, auction, line, where)
    problem = check_step(StepNumbers.from_line(spec, line), key)
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
    _check_reports(spec, line, where)
    problem = check_distributions(spec, line) if "distributions" in line else ""
    if problem:
        raise Fault(where, problem)


def _check_reports(spec: AuctionSpec, line: Line, where: str) -> None:
    """Every agent with a model of its own that took part has a report, and what is stored of it is what was hashed."""
    if not spec.own_model_ids:
        return
    columns = zip(spec.row_ids, line["status"], line["report_hashes"], line["reports"], strict=True)
    for row_id, status, digest, stored in columns:
        if digest is None and row_id in spec.own_model_ids and status != "absent":
            raise Fault(where, f"{row_id} runs its own model and took part without a report")
        if digest is not None and row_id not in spec.own_model_ids:
            raise Fault(where, f"a report of {row_id} is recorded, whose model is the platform's")
        if stored is not None and Report.from_mapping(stored).hash != digest:
            raise Fault(where, f"the stored report of {row_id} is not the one that was hashed")


def _check_bids(spec: AuctionSpec, auction: Auction, line: Line, where: str) -> None:
    for row, agent in enumerate(spec.agents):
        auction.set_bid(agent.id, line["bids"][row])
        auction.set_absent(agent.id, is_absent=line["status"][row] == "absent")
    bids = auction.read_bids(told=spec.own_model_ids)  # of whom the silent have been set absent
    for name, recorded, follows in (
        ("bids", line["bids"], bids.submitted),
        ("effective", line["effective"], bids.effective),
        ("status", line["status"], bids.status),
    ):
        if recorded != list(follows):
            raise Fault(where, f"{name}: {recorded} is recorded, {list(follows)} follows")

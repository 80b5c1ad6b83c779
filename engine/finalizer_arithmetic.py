"""A softmax auction's numbers checked against each other in plain float64: no tensor, no model.

These are the formulas of docs/mechanism.md written a second time, from the receipt's point of view, on purpose: sums of
logarithms and differences where `finalizer.py` has none, so that both ways of writing must agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tokenauction.engine.auction import Auction
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.finish import Fault
from tokenauction.engine.proposal import candidate_seed
from tokenauction.engine.randomness import step_key, uniform
from tokenauction.engine.receipt import Line
from tokenauction.engine.sentences import count_sentences
from tokenauction.engine.spec import AuctionSpec

TOLERANCE = 1e-9  # of probabilities and uniforms, and of amounts relative to τ and the rewards


class FinalizerCheck:
    """Takes in the lines between the first and the last; raises Fault at the first thing that is wrong."""

    def __init__(self, spec: AuctionSpec, finalizer: FinalizerSpec, seed: int, auction: Auction) -> None:
        self.spec, self.finalizer, self.seed, self.auction = spec, finalizer, seed, auction
        self.candidates: list[Candidate] = []
        self.winner: Candidate | None = None

    def take(self, line: Line) -> None:
        """Check one line."""
        if self.winner is not None:
            raise Fault(line["kind"], "it stands behind the choice")
        if line["kind"] == "candidate":
            self._take_candidate(line)
        else:
            self._take_choice(line)

    def settle(self, line: Line) -> None:
        """Check that the last line ends what the lines before it left."""
        reason = line["finish_reason"]
        if self.winner is None and reason not in ("cancelled", "error"):
            raise Fault("settlement", f"finish_reason is {reason!r}, and no candidate was chosen")
        if self.winner is not None and reason != self.winner.finish_reason:
            raise Fault("settlement", f"finish_reason is {reason!r}, the chosen text ended by another")
        if line["text"] != self.auction.text:
            raise Fault("settlement", "its text is not the one that was chosen")

    def _take_candidate(self, line: Line) -> None:
        candidate, where = Candidate.from_line(line), f"candidate {len(self.candidates)}"
        is_next = type(candidate.index) is int and candidate.index == len(self.candidates)
        if not is_next or candidate.index >= self.finalizer.num_candidates:
            raise Fault(where, f"candidate {candidate.index} is out of place")
        if not isinstance(candidate.text, str):
            raise Fault(where, "its text is no text")
        seed = candidate_seed(self.seed, candidate.index)
        draws = zip(candidate.token_ids, candidate.q, candidate.cdf_below, strict=True)
        for step, (_, q, below) in enumerate(draws):
            u = uniform(step_key(seed, step), "token")
            if not (0 < q <= 1 + TOLERANCE and below - TOLERANCE <= u <= below + q + TOLERANCE):
                raise Fault(where, f"the uniform {u} of token {step} is outside its interval from {below}, {q} long")
        if not math.isclose(line["log_proposal"], candidate.log_proposal, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            raise Fault(where, f"log_proposal is {line['log_proposal']}, its draws give {candidate.log_proposal}")
        self._check_end(candidate, where)
        self.candidates.append(candidate)

    def _check_end(self, candidate: Candidate, where: str) -> None:
        num_tokens, most = len(candidate.token_ids), self.spec.max_sentences
        ends = {
            "end": 0 < num_tokens <= self.spec.max_tokens,
            "max_tokens": num_tokens == self.spec.max_tokens,
            "sentences": num_tokens <= self.spec.max_tokens
            and most is not None
            and count_sentences(candidate.text) >= most,
        }
        if not ends.get(candidate.finish_reason, False):
            raise Fault(where, f"it did not end for the reason that is recorded: {candidate.finish_reason!r}")

    def _take_choice(self, line: Line) -> None:
        if len(self.candidates) != self.finalizer.num_candidates:
            raise Fault("choice", f"it is among {len(self.candidates)} of {self.finalizer.num_candidates} candidates")
        key = step_key(self.seed, 0)
        if line["key"] != key.hex():
            raise Fault("choice", "its key does not follow from the seed")
        self._check_numbers(line)
        self._check_draw(line, uniform(key, "candidate"))
        self.winner = self.candidates[line["chosen"]]
        charges = self.auction.choose(self.winner.token_ids, self.winner.text, tuple(map(float, line["owed"])))
        due: dict[str, Sequence[Any]] = {
            "payments": charges.payments, "charges": charges.charges, "clipped": charges.clipped
        }  # fmt: skip
        for name, follows in due.items():
            if line[name] != list(follows):
                raise Fault("choice", f"{name}: {line[name]} is recorded, {list(follows)} follows")

    def _check_numbers(self, line: Line) -> None:
        """Probabilities, payments and utilities follow from the rewards, the reference and the proposal."""
        tau, num_candidates = float(self.finalizer.tau_micros), len(self.candidates)
        reference = [_number(x) for x in line["log_reference"]]
        if any(x > TOLERANCE for x in reference):
            raise Fault("choice", "the logarithm of a probability is above 0")
        base = [a - c.log_proposal for a, c in zip(reference, self.candidates, strict=True)]
        values = [float(agent.value_per_nat_micros) for agent in self.spec.agents]
        rows = [
            [value * _number(x) / tau if value else 0.0 for x in row]
            for value, row in zip(values, line["rewards"], strict=True)
        ]
        if any(len(row) != num_candidates for row in rows):
            raise Fault("choice", "the rewards are not one a candidate")
        everybody = _log_softmax([math.fsum(column) for column in zip(base, *rows, strict=True)])
        _compare("probabilities", line["probabilities"], [math.exp(x) for x in everybody], TOLERANCE)
        finite = [abs(x) for x in (*base, *(x for row in rows for x in row)) if math.isfinite(x)]
        slack = TOLERANCE * tau * max(1.0, *finite)
        owed, utilities = [], []
        for agent, row in enumerate(rows):
            others = [other for place, other in enumerate(rows) if place != agent]
            without = [math.fsum(column) for column in zip(base, *others, strict=True)]
            log_without = _log_softmax(without)
            owed.append(tau * _divergence(everybody, log_without))
            utilities.append(tau * _log_sum([a + b for a, b in zip(log_without, row, strict=True)]))
        _compare("owed", line["owed"], owed, slack)
        _compare("utilities", line["utilities"], utilities, slack)
        if min(line["owed"]) < 0:
            raise Fault("choice", "a payment is negative")

    def _check_draw(self, line: Line, u: float) -> None:
        chosen, p = line["chosen"], line["probabilities"]
        if type(chosen) is not int or not 0 <= chosen < len(p) or not p[chosen] > 0:
            raise Fault("choice", f"no candidate {chosen!r} can win")
        below, total = math.fsum(p[:chosen]), math.fsum(p)
        if not below - TOLERANCE <= u * total <= below + p[chosen] + TOLERANCE:
            raise Fault("choice", f"the uniform {u} draws another candidate, not {chosen}")


def _number(recorded: float | None) -> float:
    return -math.inf if recorded is None else float(recorded)


def _log_sum(x: Sequence[float]) -> float:
    """ln Σ e^x."""
    top = max(x)
    return top + math.log(math.fsum(math.exp(value - top) for value in x))


def _log_softmax(x: Sequence[float]) -> list[float]:
    total = _log_sum(x)
    return [value - total for value in x]


def _divergence(log_p: Sequence[float], log_q: Sequence[float]) -> float:
    """KL(p ‖ q) in nats, straight from its definition."""
    return math.fsum(math.exp(a) * (a - b) for a, b in zip(log_p, log_q, strict=True) if a > -math.inf)


def _compare(name: str, recorded: Sequence[float], follows: Sequence[float], slack: float) -> None:
    for place, (mine, theirs) in enumerate(zip(follows, recorded, strict=True)):
        if not abs(mine - theirs) <= slack:
            raise Fault("choice", f"{name}[{place}] is {theirs}, but {mine} follows")

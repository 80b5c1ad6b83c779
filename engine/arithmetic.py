"""One step's numbers checked against each other in plain float64: O(n) arithmetic, no tensor, no distribution.

These are the formulas of docs/mechanism.md written a second time, from the receipt's point of view, on purpose: a price
that both ways of writing it give is worth more than one. Tolerances are relative to the bid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tokenauction.engine.randomness import exponential, uniform
from tokenauction.engine.spec import AuctionSpec

TOLERANCE = 1e-9  # of probabilities (absolute and relative) and of payments (relative to the bid)
LOG_TOLERANCE = 1e-7  # of ln q at a log-linear critical bid
BOUND_SLACK = 1e-9  # of the bounds of TV and KL
SERIES_BELOW = 1e-4  # b/B under which f(b, B) is summed as a series


@dataclass(frozen=True)
class StepNumbers:
    """What a step line says, columns in the order of the rows; the reference, if any, is the last row."""

    spec: AuctionSpec
    weights: list[float]  # effective bids, micros
    p: list[float]
    r: list[float]
    cdf_below: float | None  # None under the race sampler
    q: float
    token: int
    critical_bids: list[float | None]  # None under log_linear unless it is the pricing
    owed: list[float]  # micros, before clipping to a budget
    log_partitions: list[float | None]
    divergences: list[float | None]  # TV (expected) or KL (kl_clarke)
    own_tokens: list[int | None]

    @classmethod
    def from_line(cls, spec: AuctionSpec, line: dict[str, Any]) -> StepNumbers:
        """Read a step line; KeyError, TypeError or ValueError where it is not one."""
        rows = len(spec.row_ids)

        def column(name: str) -> list[Any]:
            values = line.get(name, [None] * rows)
            if not isinstance(values, list) or len(values) != rows:
                raise ValueError(f"{name} has not one entry a row")
            return values

        return cls(
            spec=spec,
            weights=[_number(x) for x in column("effective")],
            p=[_number(x) for x in column("p")],
            r=[_number(x) for x in column("r")],
            cdf_below=_optional(line["cdf_below"]),
            q=_number(line["q"]),
            token=_whole(line["token"]),
            critical_bids=[_optional(x) for x in column("critical_bids")],
            owed=[_number(x) for x in column("owed")],
            log_partitions=[_optional(x) for x in column("log_partitions")],
            divergences=[_optional(x) for x in column("divergences")],
            own_tokens=[None if x is None else _whole(x) for x in column("own_tokens")],
        )


def _number(value: Any) -> float:
    """A number as it is written in JSON: float("0.5") would take a text, too."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r:.40} is no number")
    return float(value)


def _optional(value: Any) -> float | None:
    return None if value is None else _number(value)


def _whole(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise TypeError(f"{value!r:.40} is no whole number")
    return value


def check_step(step: StepNumbers, key: bytes) -> str:
    """The first thing in a step that does not follow from the rest, or an empty string."""
    checks = (_check_columns, _check_aggregate, _check_draw, _check_critical_bids, _check_divergences, _check_owed)
    return next((problem for check in checks if (problem := check(step, key))), "")


def interval_weight(bid: float, others: float) -> float:
    """f(b, B) = B (ln(1 + b/B) - b/(b+B)), the expected critical bid per unit of TV; derived, docs/mechanism.md."""
    if others <= 0 or bid <= 0:
        return 0.0
    x = bid / others
    if x < SERIES_BELOW:
        return others * (x * x / 2 - 2 * x**3 / 3 + 3 * x**4 / 4)
    return others * (math.log1p(x) - x / (1 + x))


def _check_columns(step: StepNumbers, key: bytes) -> str:
    """Every number is there exactly where the combination has one, and rows without weight have put nothing in."""
    spec = step.spec
    has_critical_bids = spec.rule == "linear" or spec.pricing == "critical_bid"
    has_divergences = spec.pricing in ("expected", "kl_clarke")
    if (step.cdf_below is None) != (spec.sampler == "race"):
        return "cdf_below is there for the coupled sampler alone"
    for row, row_id in enumerate(spec.row_ids):
        if (step.critical_bids[row] is not None) != has_critical_bids:
            return f"the critical bid of {row_id} is {step.critical_bids[row]}"
        if row >= len(spec.agents) and step.critical_bids[row] not in (None, 0.0):
            return "the reference pays nothing, so its critical bid is 0"
        if (step.divergences[row] is not None) != has_divergences:
            return f"the divergence of {row_id} is {step.divergences[row]}"
        if step.weights[row] == 0 and step.p[row] != 0:
            return f"{row_id} has no weight, so its probability does not count"
    return ""


def _check_divergences(step: StepNumbers, key: bytes) -> str:
    """A TV or KL is at least that of token against rest, since merging never raises one, and it is bounded above."""
    for row, weight in enumerate(step.weights):
        if step.divergences[row] is None:
            continue
        divergence, others = _known(step.divergences[row]), math.fsum(step.weights) - weight
        if weight <= 0 or others <= 0:
            least, most = 0.0, 0.0
        elif step.spec.pricing == "expected":
            least, most = abs(step.p[row] - step.r[row]), 1.0
        elif step.spec.rule == "linear":  # q >= r B_-i/B everywhere, so KL(r ‖ q) <= ln(B/B_-i)
            least, most = _two_point_kl(step.r[row], step.q), math.log1p(weight / others)
        else:
            least, most = _two_point_kl(step.q, step.r[row]), math.inf
        slack = BOUND_SLACK * max(1.0, least)
        if not least - slack <= divergence <= most + slack:
            return f"the divergence of {step.spec.row_ids[row]} is {divergence}, outside {least}…{most}"
    return ""


def _two_point_kl(x: float, y: float) -> float:
    """KL between a token of probability x and the rest, and the same token of probability y and the rest."""
    x, y = min(x, 1.0), min(y, 1.0)
    pairs = ((x, y), (1 - x, 1 - y))
    return math.fsum(a * math.log(a / b) for a, b in pairs if a > 0 and b > 0)


def _check_aggregate(step: StepNumbers, key: bytes) -> str:
    """q and r_i are the bid-weighted means of the p_i (linear)."""
    if not all(0.0 <= x <= 1.0 + TOLERANCE for x in (*step.p, *step.r, step.q, step.cdf_below or 0.0)):
        return "a probability is outside 0…1"
    if step.spec.rule != "linear":
        return ""
    total = math.fsum(step.weights)
    q = math.fsum(w * p for w, p in zip(step.weights, step.p, strict=True)) / total
    if not math.isclose(q, step.q, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-3):
        return f"q is {step.q}, but the agents' distributions give {q}"
    for row, r in enumerate(step.r):
        others = [w for j, w in enumerate(step.weights) if j != row]
        rest = math.fsum(others)
        if rest <= 0 or step.weights[row] <= 0:
            continue
        follows = math.fsum(w * p for j, (w, p) in enumerate(zip(step.weights, step.p, strict=True)) if j != row) / rest
        if not math.isclose(r, follows, rel_tol=TOLERANCE, abs_tol=TOLERANCE * 1e-3):
            return f"r of {step.spec.row_ids[row]} is {r}, but the others' distributions give {follows}"
    return ""


def _check_draw(step: StepNumbers, key: bytes) -> str:
    if step.spec.sampler == "race":  # over a log-linear aggregate it runs between tokens, not agents: see redo.py
        return _check_race(step, key) if step.spec.rule == "linear" else ""
    assert step.cdf_below is not None, "checked with the columns"
    u = uniform(key, "token")
    if not step.cdf_below - TOLERANCE <= u <= step.cdf_below + step.q + TOLERANCE:
        return f"the draw's uniform {u} is outside the token's interval from {step.cdf_below}, {step.q} long"
    return ""


def _race_order(step: StepNumbers, key: bytes) -> list[int]:
    """Rows with weight, the winner first."""
    rows = [row for row, weight in enumerate(step.weights) if weight > 0]
    return sorted(rows, key=lambda row: exponential(key, "agent clock", step.spec.row_ids[row]) / step.weights[row])


def _check_race(step: StepNumbers, key: bytes) -> str:
    winner = _race_order(step, key)[0]
    if step.own_tokens[winner] != step.token:
        return f"the race is won by {step.spec.row_ids[winner]}, whose token is {step.own_tokens[winner]}"
    return ""


def critical_bid(step: StepNumbers, row: int, key: bytes) -> float | None:
    """The critical bid that follows for one row, in micros; None where it takes a log-partition to check one."""
    bid, others = step.weights[row], math.fsum(w for j, w in enumerate(step.weights) if j != row)
    if bid <= 0 or others <= 0:
        return 0.0
    if step.spec.sampler == "race":
        order = _race_order(step, key)
        if row != order[0] or step.own_tokens[order[1]] == step.token:
            return 0.0
        runner_up = order[1]
        clock = [exponential(key, "agent clock", step.spec.row_ids[j]) for j in (row, runner_up)]
        return min(bid, clock[0] * step.weights[runner_up] / clock[1])
    v, p, r = uniform(key, "price") * step.q, step.p[row], step.r[row]
    if v <= r or p <= r or v > p:
        return 0.0
    return min(bid, others * (v - r) / (p - v)) if step.spec.rule == "linear" and p > v else None


def _check_critical_bids(step: StepNumbers, key: bytes) -> str:
    if step.spec.rule == "log_linear" and step.spec.pricing != "critical_bid":
        return ""
    for row in range(len(step.spec.agents)):
        recorded = _known(step.critical_bids[row])
        follows = critical_bid(step, row, key)
        name = step.spec.row_ids[row]
        if follows is None:
            problem = _check_log_linear(step, row, key)
            if problem:
                return f"critical bid of {name}: {problem}"
        elif not math.isclose(recorded, follows, rel_tol=TOLERANCE, abs_tol=_slack(step, row)):
            return f"critical bid of {name} is {recorded}, but {follows} follows"
    return ""


def _slack(step: StepNumbers, row: int) -> float:
    """How far a payment may be off: relative to the bid, and to how steep the crossing is."""
    v_range = abs(step.p[row] - step.r[row])
    return TOLERANCE * step.weights[row] * (1.0 + min(1e6, 1e-6 / max(v_range, 1e-300)))


def _check_log_linear(step: StepNumbers, row: int, key: bytes) -> str:
    """At the critical bid, w ln p + (1-w) ln r - ln Z(w) = ln v, with w = z/(z + B_-i)."""
    z, bid = _known(step.critical_bids[row]), step.weights[row]
    others = math.fsum(w for j, w in enumerate(step.weights) if j != row)
    log_partition = step.log_partitions[row]
    if not 0 <= z <= bid * (1 + TOLERANCE):
        return f"{z} is not between 0 and the bid {bid}"
    if log_partition is None:
        return "its log-partition is missing"
    w = z / (z + others)
    v, p, r = uniform(key, "price") * step.q, step.p[row], step.r[row]
    if p <= 0 or r <= 0:
        return "" if v > 0 else "v is 0"
    gap = w * math.log(p) + (1 - w) * math.log(r) - float(log_partition) - math.log(v)
    return "" if abs(gap) <= LOG_TOLERANCE else f"q at {z} is off from v by a factor of e^{gap:.3g}"


def _check_owed(step: StepNumbers, key: bytes) -> str:
    """Every payment follows from the pricing rule."""
    for row, owed in enumerate(step.owed):
        follows = _owed(step, row)
        if follows is not None and not math.isclose(owed, follows, rel_tol=TOLERANCE, abs_tol=_slack(step, row)):
            return f"payment of {step.spec.row_ids[row]} is {owed}, but {follows} follows"
        most = step.weights[row] if step.spec.guarantee.payment_at_most_bid else math.inf
        if step.spec.pricing == "expected":  # the mean of critical bids, which are due with probability TV at most
            most *= _known(step.divergences[row]) + BOUND_SLACK
        if not 0 <= owed <= most:
            return f"payment of {step.spec.row_ids[row]} is {owed}, outside 0…{most}"
    return ""


def _owed(step: StepNumbers, row: int) -> float | None:
    """What the pricing rule asks of one row, in micros; None where whole distributions are needed."""
    if row >= len(step.spec.agents) or step.weights[row] <= 0:
        return 0.0
    bid, others = step.weights[row], math.fsum(w for j, w in enumerate(step.weights) if j != row)
    divergence = step.divergences[row]
    match step.spec.pricing:
        case "free":
            return 0.0
        case "first_price":
            return bid
        case "critical_bid":
            return _known(step.critical_bids[row])
        case "expected":
            if step.spec.rule == "log_linear":
                return None
            return _known(divergence) * interval_weight(bid, others)
        case "kl_clarke":
            return _known(divergence) * others if others > 0 else 0.0


def _known(number: float | None) -> float:
    if number is None:
        raise ValueError("a critical bid, TV or KL that a payment follows from is missing")
    return number

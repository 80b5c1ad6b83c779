"""`tokenauction clear`: one step of somebody's own distributions, JSON in and JSON out, as docs/protocol.md says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch

from tokenauction.clients.cli.json_request import agent_id_of, fields_of, is_finite, read_request, whole_number
from tokenauction.clients.cli.output import print_json
from tokenauction.engine.aggregation import MAX_WEIGHT, MIN_WEIGHT, SUM_TOLERANCE
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.errors import InvalidBid, InvalidDistribution, InvalidInput
from tokenauction.engine.guarantees import guarantee
from tokenauction.engine.randomness import (
    CoupledRandomness,
    RaceRandomness,
    coupled_randomness,
    race_randomness,
    step_key,
)
from tokenauction.engine.shaping import with_floor
from tokenauction.engine.spec import REFERENCE_ID

FIELDS = {
    "rule", "sampler", "pricing", "seed", "step", "reference", "agents", "uniforms", "allow_unsafe", "floor"
}  # fmt: skip


def clear_file(file: str) -> None:
    """Read a request, clear it, print the answer."""
    print_json(clear_request(read_request(file)))


def clear_request(request: Any) -> dict[str, Any]:
    """The answer to one request; raises a TokenAuctionError that names what is wrong."""
    fields = fields_of(request, "the request", FIELDS)
    rule, sampler, pricing = (
        fields.get("rule", "linear"), fields.get("sampler", "coupled"), fields.get("pricing", "critical_bid")
    )  # fmt: skip
    allow_unsafe = fields.get("allow_unsafe", False)
    if not isinstance(allow_unsafe, bool):
        raise InvalidInput(f"the request: allow_unsafe must be true or false, not {allow_unsafe!r}")
    promise = guarantee(rule, sampler, pricing, allow_unsafe=allow_unsafe)
    ids, bids, rows = _agents(fields)
    num_agents = len(ids)
    if fields.get("reference") is not None:
        reference = fields_of(fields["reference"], "reference", {"weight", "distribution"})
        ids.append(REFERENCE_ID)
        bids.append(_number(reference, "weight", "reference", InvalidBid))
        rows.append(_distribution(reference, "reference", len(rows[0])))
    _check_sums(ids, bids, rows)
    distributions = torch.tensor(rows, dtype=torch.float64)
    if fields.get("floor") is not None:
        floor = _number(fields, "floor", "the request", InvalidInput)
        if floor > 1:
            raise InvalidInput(f"the request: floor must be a share from 0 to 1, not {floor!r}")
        distributions = with_floor(distributions, torch.full((len(rows),), floor, dtype=torch.float64))
    clearing = clear(
        distributions[None],
        torch.tensor([bids], dtype=torch.float64),
        torch.tensor([[row < num_agents for row in range(len(ids))]]),
        _randomness(fields, sampler, ids, len(rows[0])),
        rule=rule,
        sampler=sampler,
        pricing=pricing,
        allow_unsafe=allow_unsafe,
    )
    return _answer(clearing, dict(zip(ids[:num_agents], bids, strict=False)), promise.summary)


def _answer(clearing: Clearing, bids: dict[str, float], promise: str) -> dict[str, Any]:
    """What `clear` prints; NaN and -1 become null, and so does what a dropped agent's distribution would have been."""
    columns = {
        "payment": clearing.payment,
        "critical_bid": clearing.critical_bid,
        "influence": clearing.influence,
        "tv": clearing.tv,
        "probability": clearing.p_token,
        "probability_without": clearing.r_token,
        "kl": clearing.kl,
        "counterfactual_token": clearing.counterfactual_token,
    }
    lists = {name: column[0].tolist() for name, column in columns.items()}
    agents: list[dict[str, Any]] = []
    for row, (agent_id, bid) in enumerate(bids.items()):
        numbers: dict[str, Any] = {name: _known(values[row]) for name, values in lists.items()}
        if bid == 0:
            numbers |= dict.fromkeys(("tv", "probability", "probability_without"))
        agents.append({"id": agent_id, "status": "bid" if bid > 0 else "no_bid", **numbers})
    return {
        "aggregate": clearing.aggregate[0].tolist(),
        "token": int(clearing.token),
        "probability": float(clearing.q_token),
        "guarantee": promise,
        "agents": agents,
    }


def _known(value: float) -> float | None:
    """None where the rule, sampler or pricing has no such number (NaN), or no such token (-1, an int)."""
    return None if value != value or (isinstance(value, int) and value < 0) else value


def _number(fields: Mapping[str, Any], name: str, where: str, error: type[InvalidInput]) -> float:
    value = fields.get(name)
    if not is_finite(value) or value < 0:
        raise error(f"{where}: {name} must be a finite number from 0, not {value!r}")
    if error is InvalidBid and value and not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise error(f"{where}: {name} must be 0 or from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, not {value!r}")
    return float(value)


def _agents(fields: Mapping[str, Any]) -> tuple[list[str], list[float], list[list[float]]]:
    agents = fields.get("agents")
    if not isinstance(agents, list) or not agents:
        raise InvalidInput("agents must be a list of at least one agent")
    ids: list[str] = []
    bids: list[float] = []
    rows: list[list[float]] = []
    for number, source in enumerate(agents):
        where = f"agents[{number}]"
        agent = fields_of(source, where, {"id", "bid", "distribution"})
        ids.append(agent_id_of(agent, where, ids))
        bids.append(_number(agent, "bid", where, InvalidBid))
        rows.append(_distribution(agent, where, len(rows[0]) if rows else None))
    return ids, bids, rows


def _check_sums(ids: list[str], bids: list[float], rows: list[list[float]]) -> None:
    """The mechanism checks this too, but does not know the agents' names."""
    for agent_id, bid, row in zip(ids, bids, rows, strict=True):
        total = math.fsum(row)
        if min(row) < 0 or (bid > 0 and abs(total - 1) > SUM_TOLERANCE):
            says = "holds a negative number" if min(row) < 0 else f"sums to {total!r}, not to 1"
            raise InvalidDistribution(f"the distribution of {agent_id!r} {says}")


def _distribution(fields: Mapping[str, Any], where: str, length: int | None) -> list[float]:
    """Numbers only; whether they are a distribution, the mechanism itself checks."""
    values = fields.get("distribution")
    if not isinstance(values, list) or not values:
        raise InvalidDistribution(f"{where}: distribution must be a list of numbers")
    if length is not None and len(values) != length:
        raise InvalidDistribution(f"{where}: distribution has {len(values)} entries, the first one has {length}")
    for value in values:
        if not is_finite(value):
            raise InvalidDistribution(f"{where}: distribution holds {value!r}, which is no probability")
    return [float(value) for value in values]


def _randomness(
    fields: Mapping[str, Any], sampler: str, ids: list[str], vocab_size: int
) -> CoupledRandomness | RaceRandomness:
    """The seeded draw, or the caller's own uniforms in its place."""
    key = step_key(whole_number(fields, "seed"), whole_number(fields, "step"))
    given = fields.get("uniforms")
    if sampler == "race":
        if given is not None:
            raise InvalidInput(
                "uniforms replace the coupled sampler's draw; the race sampler takes a seed and step only"
            )
        return race_randomness([key], [ids], vocab_size)
    seeded = coupled_randomness([key], [ids])
    uniforms = fields_of({} if given is None else given, "uniforms", {"token", "price", "counterfactual"})
    chosen: dict[str, torch.Tensor] = {}
    for name in uniforms:
        value = _number(uniforms, name, "uniforms", InvalidInput)
        if value >= 1:
            raise InvalidInput(f"uniforms: {name} must be below 1, not {value!r}")
        chosen[name] = torch.full_like(getattr(seeded, name), value)
    return replace(seeded, **chosen)

"""`tokenauction clear`: one step of somebody's own distributions, JSON in and JSON out, as docs/protocol.md says."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeGuard

import torch

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
MAX_BYTES = 2**28  # 64 agents over 150,000 tokens, every float in full, fit


def clear_file(file: str) -> None:
    """Read a request, clear it, print the answer."""
    print_json(clear_request(_read(file)))


def clear_request(request: Any) -> dict[str, Any]:
    """The answer to one request; raises a TokenAuctionError that names what is wrong."""
    fields = _object(request, "the request", FIELDS)
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
        reference = _object(fields["reference"], "reference", {"weight", "distribution"})
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


def _read(file: str) -> Any:
    try:
        content = _read_stdin() if file == "-" else _read_bytes(Path(file))
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_fields_once)
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(f"{file!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file!r} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InvalidInput("standard input is closed; name a file")
    return _within_limit(sys.stdin.buffer.read(MAX_BYTES + 1))


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return _within_limit(file.read(MAX_BYTES + 1))


def _within_limit(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"the request is larger than {MAX_BYTES} bytes")
    return content


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields are given once each: JSON leaves open which of two would count."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidInput(f"the field {next(n for n in names if names.count(n) > 1)!r} is given more than once")
    return fields


def _object(value: Any, where: str, allowed: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} must be a JSON object, not {type(value).__name__}")
    for name in value:
        if name not in allowed:
            raise InvalidInput(f"{where} has no field {name!r}; the fields are {', '.join(sorted(allowed))}")
    return value


def _number(fields: Mapping[str, Any], name: str, where: str, error: type[InvalidInput]) -> float:
    value = fields.get(name)
    if not _is_finite(value) or value < 0:
        raise error(f"{where}: {name} must be a finite number from 0, not {value!r}")
    if error is InvalidBid and value and not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise error(f"{where}: {name} must be 0 or from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}, not {value!r}")
    return float(value)


def _is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _agents(fields: Mapping[str, Any]) -> tuple[list[str], list[float], list[list[float]]]:
    agents = fields.get("agents")
    if not isinstance(agents, list) or not agents:
        raise InvalidInput("agents must be a list of at least one agent")
    ids: list[str] = []
    bids: list[float] = []
    rows: list[list[float]] = []
    for number, source in enumerate(agents):
        where = f"agents[{number}]"
        agent = _object(source, where, {"id", "bid", "distribution"})
        agent_id = agent.get("id")
        if not isinstance(agent_id, str) or not _is_text(agent_id) or agent_id in {*ids, REFERENCE_ID}:
            raise InvalidInput(f"{where}: id must be text, its own, and not {REFERENCE_ID!r}; it is {agent_id!r}")
        ids.append(agent_id)
        bids.append(_number(agent, "bid", where, InvalidBid))
        rows.append(_distribution(agent, where, len(rows[0]) if rows else None))
    return ids, bids, rows


def _is_text(value: str) -> bool:
    """Whether there is any, and none of it a lone surrogate, which no encoding can write."""
    return bool(value) and not any(0xD800 <= ord(character) < 0xE000 for character in value)


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
        if not _is_finite(value):
            raise InvalidDistribution(f"{where}: distribution holds {value!r}, which is no probability")
    return [float(value) for value in values]


def _randomness(
    fields: Mapping[str, Any], sampler: str, ids: list[str], vocab_size: int
) -> CoupledRandomness | RaceRandomness:
    """The seeded draw, or the caller's own uniforms in its place."""
    seed, step = fields.get("seed", 0), fields.get("step", 0)
    for name, value in (("seed", seed), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInput(f"{name} must be a whole number, not {value!r}")
    key = step_key(seed, step)
    given = fields.get("uniforms")
    if sampler == "race":
        if given is not None:
            raise InvalidInput(
                "uniforms replace the coupled sampler's draw; the race sampler takes a seed and step only"
            )
        return race_randomness([key], [ids], vocab_size)
    seeded = coupled_randomness([key], [ids])
    uniforms = _object({} if given is None else given, "uniforms", {"token", "price", "counterfactual"})
    chosen: dict[str, torch.Tensor] = {}
    for name in uniforms:
        value = _number(uniforms, name, "uniforms", InvalidInput)
        if value >= 1:
            raise InvalidInput(f"uniforms: {name} must be below 1, not {value!r}")
        chosen[name] = torch.full_like(getattr(seeded, name), value)
    return replace(seeded, **chosen)

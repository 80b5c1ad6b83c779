"""`tokenauction finalize`: the softmax auction over somebody's own candidates and rewards, JSON in and JSON out.

docs/protocol.md says what the fields mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.clients.cli.json_request import agent_id_of, fields_of, is_finite, read_request, whole_number
from tokenauction.clients.cli.output import print_json
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.finalizer import Finalization, choice_uniform, choose, finalize

FIELDS = {"tau", "seed", "log_reference", "log_proposal", "agents"}
AGENT_FIELDS = {"id", "value_per_nat", "rewards"}
MINUS_INFINITY = "-inf"  # JSON has no number for it


def finalize_file(file: str) -> None:
    """Read a request, finalize it, print the answer."""
    print_json(finalize_request(read_request(file)))


def finalize_request(request: Any) -> dict[str, Any]:
    """The answer to one request; raises a TokenAuctionError that names what is wrong."""
    fields = fields_of(request, "the request", FIELDS)
    tau = fields.get("tau", 1)
    if not is_finite(tau) or tau <= 0:
        raise InvalidInput(f"the request: tau must be a positive number, not {tau!r}")
    uniform = choice_uniform(whole_number(fields, "seed"))
    log_reference = _log_probabilities(fields, "log_reference")
    log_proposal = _log_probabilities(fields, "log_proposal")
    num_candidates = len(log_proposal)
    if len(log_reference) != num_candidates:
        raise InvalidInput(f"log_reference has {len(log_reference)} entries, log_proposal {num_candidates}")
    if -math.inf in log_proposal:
        raise InvalidInput("log_proposal holds -inf: a candidate that was drawn has a probability above 0")
    ids, values, rows = _agents(fields, num_candidates)
    rewards = torch.tensor(rows, dtype=torch.float64)
    log_weight = torch.tensor([log_reference, log_proposal], dtype=torch.float64)
    finalization = finalize(rewards, log_weight[0] - log_weight[1], float(tau))
    return _answer(finalization, dict(zip(ids, values, strict=True)), rewards, uniform)


def _answer(
    finalization: Finalization, values: Mapping[str, float], rewards: Float64[Tensor, "agents candidates"], u: float
) -> dict[str, Any]:
    """What `finalize` prints; `u` draws the winner, and the one there would have been without each agent."""
    uniform = torch.tensor(u, dtype=torch.float64)
    chosen = int(choose(finalization.probabilities, uniform))
    without = finalization.probabilities_without
    columns: dict[str, Any] = {
        "payment": finalization.payment.tolist(),
        "utility": finalization.utility.tolist(),
        "reward": rewards[:, chosen].tolist(),
        "expected_reward": finalization.expected_reward.tolist(),
        "chosen_without": choose(without, uniform.expand(len(values))).tolist(),
        "probabilities_without": without.tolist(),
    }
    return {
        "probabilities": finalization.probabilities.tolist(),
        "chosen": chosen,
        "effective_sample_size": float(finalization.effective_sample_size),
        "log_mean_weight": float(finalization.log_mean_weight),
        "divergence": float(finalization.divergence),
        "agents": [
            {"id": agent_id, "value_per_nat": value, **{name: column[row] for name, column in columns.items()}}
            for row, (agent_id, value) in enumerate(values.items())
        ],
    }


def _agents(fields: Mapping[str, Any], num_candidates: int) -> tuple[list[str], list[float], list[list[float]]]:
    """Every agent's id, value per nat, and rewards in its own unit: value per nat times nats."""
    agents = fields.get("agents")
    if not isinstance(agents, list) or not agents:
        raise InvalidInput("agents must be a list of at least one agent")
    ids: list[str] = []
    values: list[float] = []
    rows: list[list[float]] = []
    for number, source in enumerate(agents):
        where = f"agents[{number}]"
        agent = fields_of(source, where, AGENT_FIELDS)
        ids.append(agent_id_of(agent, where, ids))
        value = agent.get("value_per_nat", 1)
        if not is_finite(value) or value < 0:
            raise InvalidInput(f"{where}: value_per_nat must be a finite number from 0, not {value!r}")
        nats = _numbers(agent, "rewards", where)
        if len(nats) != num_candidates:
            raise InvalidInput(f"{where}: rewards has {len(nats)} entries, log_proposal {num_candidates}")
        values.append(float(value))
        rows.append([float(value) * x if value else 0.0 for x in nats])  # who values nothing rules nothing out
    return ids, values, rows


def _log_probabilities(fields: Mapping[str, Any], name: str) -> list[float]:
    values = _numbers(fields, name, "the request")
    for value in values:
        if value > 0:
            raise InvalidInput(f"{name} holds {value!r}; the logarithm of a probability is at most 0")
    return values


def _numbers(fields: Mapping[str, Any], name: str, where: str) -> list[float]:
    """A list of finite numbers or -inf (as "-inf", or as the -Infinity that Python writes), of which there is one."""
    values = fields.get(name)
    if not isinstance(values, list) or not values:
        raise InvalidInput(f"{where}: {name} must be a list of numbers, one a candidate")
    for value in values:
        if not is_finite(value) and value not in (MINUS_INFINITY, -math.inf):
            raise InvalidInput(f'{where}: {name} holds {value!r}; give finite numbers or "-inf"')
    return [float(value) for value in values]

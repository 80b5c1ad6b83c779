"""`tokenauction compare`: one request under every mechanism: who gains what, what is paid, what the user loses.

The softmax auction writes the candidates; VCG, best-of-M and the reference choose among the same; the token auction
writes texts of its own with the spec's bids, whose worth to the agents is measured in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float64
from rich.table import Column, Table
from torch import Tensor

from tokenauction.clients.cli.compose import AuctionFailed, ModelChoice, new_decoder, prompts_for, rows_of, submit
from tokenauction.clients.cli.output import one_line, plain_console, print_json, visible
from tokenauction.engine.comparison import compare as compare_mechanisms
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.events import Event
from tokenauction.engine.money import MICROS
from tokenauction.engine.spec import AuctionSpec

NOTES = {
    "vcg": "the text worth most to all advertisers together; each pays what the others lose",
    "best_of_m": "the same text, and nobody pays",
    "reference_only": "of these candidates, by the house model's law alone: no advertiser has a say",
    "token_auction": "other texts: written token by token with the spec's bids; means over them",
}


@dataclass(frozen=True)
class Written:
    """One text of the token auction."""

    token_ids: tuple[int, ...]
    log_probability: float  # ln Q of the text
    payments: list[float]  # micros, one an agent


def compare(spec: AuctionSpec, num_texts: int, view: str, model: ModelChoice) -> None:
    """Run the softmax auction, and the token auction `num_texts` times, and print the table."""
    if spec.finalizer is None:
        raise InvalidSpec("compare needs a softmax auction: set mechanism to softmax")
    token_specs = _token_specs(spec, num_texts)
    decoder = new_decoder(model.load(max_rows=min(512, rows_of(spec) + sum(map(rows_of, token_specs)))))
    finalized, written = _run(decoder, spec, token_specs)
    table = _table(spec, finalized, _measured(decoder, spec, written))
    if view == "json":
        print_json(table)
    else:
        _print(spec, table)


def _token_specs(spec: AuctionSpec, num_texts: int) -> list[AuctionSpec]:
    """The token auction of the same agents, once a text, with seeds behind the spec's; none where nobody bids."""
    if not any(agent.bid_micros for agent in spec.agents):
        return []
    token = replace(spec, finalizer=None, agents=tuple(replace(agent, budget_micros=None) for agent in spec.agents))
    seeds = [None if spec.seed is None else (spec.seed + number) % 2**256 for number in range(num_texts)]
    return [replace(token, seed=seed) for seed in seeds]


def _run(decoder: Decoder, spec: AuctionSpec, token_specs: Sequence[AuctionSpec]) -> tuple[Event, list[Written]]:
    """All of it in one batch; raises AuctionFailed for what fails."""
    submit(decoder, spec)
    names = [submit(decoder, token).auction_id for token in token_specs]
    log_probability = dict.fromkeys(names, 0.0)
    finalized: list[Event] = []
    settled: dict[str, Event] = {}
    while decoder.has_work:
        for event in decoder.step():
            if event.type == "error":
                raise AuctionFailed(event.fields["message"], event.fields["code"])
            if event.type == "auction.token":
                log_probability[event.auction_id] += math.log(event.fields["probability"])
            elif event.type == "auction.finalized":
                finalized.append(event)
            elif event.type == "auction.settled":
                settled[event.auction_id] = event
    num_agents = len(spec.agents)
    written = [
        Written(
            tuple(settled[name].receipt[-1]["token_ids"]),
            log_probability[name],
            [agent["exact_total_micros"] for agent in settled[name].fields["agents"][:num_agents]],
        )
        for name in names
    ]
    return finalized[0], written


def _measured(decoder: Decoder, spec: AuctionSpec, written: Sequence[Written]) -> list[dict[str, Any]]:
    """The token auction's row, where there are texts: their worth by the agents' models."""
    if not written:
        return []
    num_agents = len(spec.agents)
    prompts = prompts_for(spec, decoder.model.tokenizer)[: num_agents + 1]
    scored = decoder.model.score(prompts, [text.token_ids for text in written])
    table = torch.tensor([[float(row.double().sum()) for row in rows] for rows in scored], dtype=torch.float64)
    rewards = ((table[:-1] - table[-1]) * _values(spec)).mean(-1)
    payments = torch.tensor([text.payments for text in written], dtype=torch.float64).mean(0)
    log_q = torch.tensor([text.log_probability for text in written], dtype=torch.float64)
    divergence = float((log_q - table[-1]).mean())
    return [_row(spec, "token_auction", rewards, payments, divergence, float(table[-1].mean()))]


def _values(spec: AuctionSpec) -> Float64[Tensor, "agents one"]:
    return torch.tensor([[float(agent.value_per_nat_micros)] for agent in spec.agents], dtype=torch.float64)


def _table(spec: AuctionSpec, finalized: Event, token_auction: list[dict[str, Any]]) -> dict[str, Any]:
    """Every mechanism's row; amounts in currency."""
    assert spec.finalizer is not None, "the caller has looked"
    fields = finalized.fields
    candidates, agents = fields["candidates"], fields["agents"]
    log_reference = torch.tensor([_number(c["log_reference"]) for c in candidates], dtype=torch.float64)
    log_proposal = torch.tensor([c["log_proposal"] for c in candidates], dtype=torch.float64)
    nats = torch.tensor([[_number(x) for x in agent["rewards"]] for agent in agents], dtype=torch.float64)
    values = _values(spec)
    rewards = torch.where(values > 0, values * nats, 0.0)
    rows = []
    for row in compare_mechanisms(rewards, log_reference - log_proposal, float(spec.finalizer.tau_micros)):
        surprise = torch.where(row.allocation > 0, row.allocation * log_reference, 0.0).sum()
        rows.append(_row(spec, row.mechanism, row.rewards, row.payments, row.divergence, float(surprise)))
    return {
        "query": spec.query,
        "currency": spec.currency,
        "num_candidates": len(candidates),
        "proposal": spec.finalizer.proposal,
        "effective_sample_size": fields["effective_sample_size"],
        "mechanisms": rows + token_auction,
    }


def _number(reward: float | None) -> float:
    return -math.inf if reward is None else reward


def _row(
    spec: AuctionSpec, mechanism: str, rewards: Tensor, payments: Tensor, divergence: float, log_reference: float
) -> dict[str, Any]:
    """One mechanism, of rewards and payments in micros."""
    paid, worth = (payments / MICROS).tolist(), (rewards / MICROS).tolist()
    agents = [
        {"id": agent.id, "reward": worth[i], "payment": paid[i], "utility": worth[i] - paid[i]}
        for i, agent in enumerate(spec.agents)
    ]
    totals = {"welfare": math.fsum(worth), "revenue": math.fsum(paid)}
    return {
        "mechanism": mechanism, **totals, "divergence": divergence, "log_reference": log_reference, "agents": agents
    }  # fmt: skip


def _print(spec: AuctionSpec, table: Mapping[str, Any]) -> None:
    """For people."""
    names = [f"utility of {visible(agent.name)}" for agent in spec.agents]
    first = Column("mechanism", no_wrap=True)
    shown = Table(
        first,
        "welfare",
        "revenue",
        *names,
        "nats lost",
        "ln π_ref",
        title=one_line(f"{spec.query} ({spec.currency})"),
        title_justify="left",
    )
    for row in table["mechanisms"]:
        utilities = [f"{agent['utility']:.6f}" for agent in row["agents"]]
        amounts = (f"{row['welfare']:.6f}", f"{row['revenue']:.6f}")
        shown.add_row(row["mechanism"], *amounts, *utilities, f"{row['divergence']:.2f}", f"{row['log_reference']:.2f}")
    console = plain_console()
    console.print(shown)
    console.print("nats lost: the text's divergence from the reference; ln π_ref: how likely the house finds it")
    listed = [row["mechanism"] for row in table["mechanisms"]]
    for mechanism, note in NOTES.items():
        if mechanism in listed:
            console.print(f"{mechanism}: {note}")
    if "token_auction" not in listed:
        console.print("token_auction: left out, since no agent has a bid per token in this spec")

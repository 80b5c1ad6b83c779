"""Candidates of a softmax auction are stepped on the device like any auction, and are the same texts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.engine.test_device_loop import decoder_of, finish

from tokenauction.engine.events import Event
from tokenauction.engine.finalizer_spec import FinalizerSpec, Proposal
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify


def spec_of(proposal: Proposal, seed: int = 7) -> AuctionSpec:
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", 0) for i in range(2))
    finalizer = FinalizerSpec(num_candidates=4, proposal=proposal)
    return AuctionSpec("query", agents, seed=seed, temperature=1.0, max_tokens=10, finalizer=finalizer)


def run(steps: Any, spec: AuctionSpec, beside: AuctionSpec | None = None) -> list[Event]:
    decoder = decoder_of(steps, max_rows=64)
    for number, each in enumerate([spec] if beside is None else [spec, beside]):
        prompts = [[1, 2, 3, 5 + row] for row in range(len(each.hosted_ids))]
        decoder.enqueue(decoder.prepare(each, prompts, Policy(), f"auction {number}"))
    return finish(decoder)


@pytest.mark.parametrize("proposal", ["context_aware", "token_auction"])
def test_device_writes_the_candidates_that_the_host_writes(proposal: Proposal) -> None:
    spec = spec_of(proposal)
    host, device = run("auto", spec), run("device", spec)
    there = [line for line in device[-1].receipt if line["kind"] == "candidate"]
    here = [line for line in host[-1].receipt if line["kind"] == "candidate"]
    assert [line["token_ids"] for line in there] == [line["token_ids"] for line in here]
    assert [line["log_proposal"] for line in there] == pytest.approx([line["log_proposal"] for line in here], abs=1e-4)
    assert device[-1].receipt[0]["clearing"] == "device" != host[-1].receipt[0]["clearing"]
    verdict = verify([dict(line) for line in device[-1].receipt])
    assert verdict.holds, verdict


def test_device_steps_candidates_beside_other_auctions() -> None:
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", 1000) for i in range(2))
    token = AuctionSpec("query", agents, seed=9, temperature=1.0, max_tokens=12)
    alone = run("device", spec_of("context_aware"))
    both = [event for event in run("device", spec_of("context_aware"), token) if event.auction_id == "auction 0"]
    told = [[line.get("token_ids") for line in events[-1].receipt] for events in (both, alone)]  # rounding differs
    assert told[0] == told[1]

"""Where candidates come from: which rows write them, with which weights, and from which seeds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tokenauction.engine.errors import InvalidBid, InvalidSpec, UnsafeCombination
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.proposal import candidate_seed, candidate_spec, writing_ids
from tokenauction.engine.spec import AuctionSpec


def spec_of(**changes: Any) -> AuctionSpec:
    agents = [
        {"id": "a", "name": "A", "offer": "x", "bid": "0.002", "value_per_nat": "3"},
        {"id": "b", "name": "B", "offer": "y", "budget": "1"},
    ]
    return AuctionSpec.from_mapping({"query": "q", "mechanism": "softmax", "agents": agents, **changes})


def finalizer_of(spec: AuctionSpec) -> FinalizerSpec:
    assert spec.finalizer is not None
    return spec.finalizer


def candidate_of(spec: AuctionSpec) -> AuctionSpec:
    return candidate_spec(spec, finalizer_of(spec))


@pytest.mark.parametrize(
    ("proposal", "writers", "hosted"),
    [
        ("reference", ("reference",), ("a", "b", "reference")),
        ("context_aware", ("proposal",), ("a", "b", "reference", "proposal")),
        ("token_auction", ("a", "b", "reference"), ("a", "b", "reference")),
    ],
)
def test_proposal_says_behind_which_prompts_candidates_are_written(
    proposal: str, writers: tuple[str, ...], hosted: tuple[str, ...]
) -> None:
    spec = spec_of(proposal=proposal)
    assert writing_ids(spec, finalizer_of(spec)) == writers
    assert spec.hosted_ids == hosted
    assert spec.row_ids == ("a", "b")
    assert len(candidate_of(spec).row_ids) == len(writers)


def test_token_auction_proposes_with_weights_that_no_bid_or_value_moves() -> None:
    spec = spec_of(proposal="token_auction", proposal_reference_weight="0.5", rule="log_linear")
    candidate = candidate_of(spec)
    assert [agent.bid_micros for agent in candidate.agents] == [10**6, 10**6]
    assert (candidate.reference_weight_micros, candidate.rule, candidate.pricing) == (500_000, "log_linear", "free")
    richer = replace(spec, agents=tuple(replace(a, bid_micros=7, value_micros=9, budget_micros=2) for a in spec.agents))
    assert candidate_of(richer).to_mapping()["agents"] == [
        {**agent, "value_per_nat": "0.000009"} for agent in candidate.to_mapping()["agents"]
    ]


@pytest.mark.parametrize("weights", ["bids", "values"])
def test_proposal_that_depends_on_what_agents_say_is_refused_or_marked(weights: str) -> None:
    with pytest.raises(UnsafeCombination, match=weights):
        spec_of(proposal="token_auction", proposal_weights=weights)
    unsafe = spec_of(proposal="token_auction", proposal_weights=weights, allow_unsafe=True)
    assert "UNSAFE" in unsafe.guarantee.summary and not unsafe.guarantee.safe and not unsafe.guarantee.truthful
    expected = {"bids": [2000, 0], "values": [3_000_000, 1_000_000]}
    assert [agent.bid_micros for agent in candidate_of(unsafe).agents] == expected[weights]


def test_weights_do_not_matter_where_no_token_auction_proposes() -> None:
    assert spec_of(proposal="context_aware", proposal_weights="bids").guarantee.safe


def test_candidate_keeps_the_shape_of_the_spec_and_none_of_its_seed() -> None:
    spec = spec_of(temperature=0.8, top_p=0.95, max_tokens=9, banned_words=["x"], seed=5)
    candidate = candidate_of(spec)
    assert (candidate.temperature, candidate.top_p, candidate.max_tokens) == (0.8, 0.95, 9)
    assert (candidate.banned_words, candidate.seed, candidate.finalizer) == (("x",), None, None)


def test_softmax_spec_is_read_back_as_it_was_written() -> None:
    spec = spec_of(num_candidates=3, tau="0.01", show_candidates=True, proposal="reference")
    assert AuctionSpec.from_mapping(spec.to_mapping()) == spec
    assert spec.to_mapping()["mechanism"] == "softmax"
    assert [agent.value_per_nat_micros for agent in spec.agents] == [3_000_000, 1_000_000]


def test_softmax_spec_is_unshaped_unless_it_says_so() -> None:
    assert (spec_of().temperature, spec_of(temperature=0.7).temperature) == (1.0, 0.7)


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no candidates": ({"num_candidates": 0}, InvalidSpec, "spec.num_candidates is 0"),
    "too many candidates": ({"num_candidates": 257}, InvalidSpec, "256"),
    "half a candidate": ({"num_candidates": 1.5}, InvalidSpec, "whole number"),
    "true candidates": ({"num_candidates": True}, InvalidSpec, "whole number"),
    "unknown proposal": ({"proposal": "magic"}, InvalidSpec, "spec.proposal is 'magic'"),
    "a list of proposals": ({"proposal": ["reference"]}, InvalidSpec, "spec.proposal"),
    "unknown weights": ({"proposal_weights": "rewards"}, InvalidSpec, "spec.proposal_weights"),
    "tau of 0": ({"tau": 0}, InvalidSpec, "spec.tau is 0"),
    "negative tau": ({"tau": -1}, InvalidBid, "spec.tau"),
    "tau finer than a micro": ({"tau": "0.0000001"}, InvalidBid, "finer than one micro"),
    "tau is nan": ({"tau": float("nan")}, InvalidBid, "spec.tau"),
    "show is text": ({"show_candidates": "yes"}, InvalidSpec, "true or false"),
    "unknown mechanism": ({"mechanism": "vcg"}, InvalidSpec, "spec.mechanism is 'vcg'"),
    "tau of a token auction": ({"mechanism": "token", "tau": 1}, InvalidSpec, "spec.tau belongs to a softmax auction"),
    "finalizer": ({"finalizer": {}}, InvalidSpec, "spec.finalizer is not a field"),
    "tau in micros": ({"tau_micros": 1}, InvalidSpec, "spec.tau_micros is not a field"),
}


@pytest.mark.parametrize("case", WRONG)
def test_softmax_spec_is_refused_with_the_field(case: str) -> None:
    changes, error, fragment = WRONG[case]
    with pytest.raises(error, match=fragment):
        spec_of(**changes)


def test_agents_of_a_softmax_auction_are_hosted_and_do_not_take_the_proposals_name() -> None:
    for agent, fragment in (
        ({"id": "proposal", "name": "A", "offer": "x"}, "proposal"),
        ({"id": "a", "name": "A", "offer": "x", "own_model": True}, "runs its own model"),
        ({"id": "a", "name": "A", "offer": "x", "value_per_nat": -1}, "value_per_nat"),
    ):
        with pytest.raises((InvalidSpec, InvalidBid), match=fragment):
            spec_of(agents=[agent])


def test_token_auction_keeps_its_spec_and_its_bids() -> None:
    agent = {"id": "a", "name": "A", "offer": "x"}
    with pytest.raises(InvalidSpec, match="bid is missing"):
        AuctionSpec.from_mapping({"query": "q", "agents": [agent]})
    spec = AuctionSpec.from_mapping({"query": "q", "mechanism": "token", "agents": [{**agent, "bid": 1}]})
    assert "mechanism" not in spec.to_mapping() and "value_per_nat" not in spec.to_mapping()["agents"][0]


def test_seeds_of_candidates_differ_and_repeat() -> None:
    seeds = [candidate_seed(7, index) for index in range(50)] + [candidate_seed(8, index) for index in range(50)]
    assert len(set(seeds)) == 100
    assert seeds[3] == candidate_seed(7, 3) and min(seeds) >= 0 and max(seeds) < 2**256

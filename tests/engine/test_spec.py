"""Reading a spec: what it becomes, that it reads back, and every way of getting it wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.errors import InvalidBid, InvalidSpec, TokenAuctionError, UnsafeCombination
from tokenauction.engine.spec import MAX_AGENTS, MAX_SEED, AuctionSpec


def source(**changes: Any) -> dict[str, Any]:
    """A good spec as a file gives it, with some fields changed."""
    agents = [
        {"id": "alpha", "name": "Alpha Airlines", "offer": "flights to Hawaii", "bid": 0.002, "budget": "0.10"},
        {"id": "beta", "name": "Beta Resort", "offer": "a beach resort", "bid": 0.001},
    ]
    return {"query": "Vacations in Hawaii", "agents": agents, **changes}


def agent(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "name": "A", "offer": "b", "bid": 1, **changes}


def test_spec_reads_amounts_into_micros() -> None:
    spec = AuctionSpec.from_mapping(source(reference_weight="0.0005"))
    assert [a.bid_micros for a in spec.agents] == [2000, 1000]
    assert [a.budget_micros for a in spec.agents] == [100_000, None]
    assert spec.reference_weight_micros == 500
    assert spec.row_ids == ("alpha", "beta", "reference")


def test_spec_takes_an_agents_name_for_its_id_when_none_is_given() -> None:
    spec = AuctionSpec.from_mapping(source(agents=[{"name": "Alpha", "offer": "x", "bid": 1}]))
    assert spec.row_ids == ("Alpha",)


@given(
    bids=st.lists(st.integers(0, 10**9), min_size=1, max_size=5),
    reference=st.integers(1, 10**6),
    seed=st.none() | st.integers(0, MAX_SEED),
    temperature=st.floats(0.01, 10),
)
def test_spec_reads_back_from_its_own_mapping(
    bids: list[int], reference: int, seed: int | None, temperature: float
) -> None:
    agents = [{"id": f"a{i}", "name": f"N{i}", "offer": "o", "bid": bid / 1e6} for i, bid in enumerate(bids)]
    spec = AuctionSpec.from_mapping(
        source(agents=agents, reference_weight=reference / 1e6, seed=seed, temperature=temperature, banned_words=["x"])
    )
    assert AuctionSpec.from_mapping(spec.to_mapping()) == spec


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"query": ""}, "query"),
        ({"query": 3}, "query"),
        ({"query": "a\nb"}, "query"),
        ({"query": "x" * 5000}, "query"),
        ({"query": "\ud800"}, "query"),
        ({"agents": []}, "agents"),
        ({"agents": "alpha"}, "agents"),
        ({"agents": None}, "agents"),
        ({"agents": ["alpha"]}, r"agents\[0\]"),
        ({"agents": [agent()] * 2}, "'a'"),
        ({"agents": [agent(id=str(i)) for i in range(MAX_AGENTS + 1)]}, "agents"),
        ({"agents": [agent(id="reference")]}, "reference"),
        ({"agents": [agent(colour="red")]}, r"agents\[0\].colour"),
        ({"agents": [{"name": "A", "offer": "b"}]}, r"agents\[0\].bid"),
        ({"agents": [{"name": "A", "bid": 1}]}, r"agents\[0\].offer"),
        ({"agents": [agent(bid=0)]}, "nothing has weight"),
        ({"rule": "quadratic"}, "rule"),
        ({"sampler": None}, "sampler"),
        ({"pricing": ["free"]}, "pricing"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
        ({"top_k": 0}, "top_k"),
        ({"top_k": 1.5}, "top_k"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10**9}, "max_tokens"),
        ({"max_sentences": 0}, "max_sentences"),
        ({"top_tokens": -1}, "top_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": MAX_SEED + 1}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"currency": "dollars"}, "currency"),
        ({"currency": 5}, "currency"),
        ({"banned_words": "bad"}, "banned_words"),
        ({"banned_words": [""]}, "banned_words"),
        ({"allow_unsafe": 1}, "allow_unsafe"),
        ({"colour": "red"}, "colour"),
        ({"reference_weight_micros": 5}, "reference_weight"),
        ({"rule": "log_linear", "top_k": 5}, "floor"),
        ({"rule": "log_linear", "top_p": 0.9}, "floor"),
    ],
)
def test_spec_refuses_and_names_the_field(changes: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidSpec, match=names):
        AuctionSpec.from_mapping(source(**changes))


@pytest.mark.parametrize("bid", [-1, 1e-7, float("nan"), "much", None, True])
def test_spec_refuses_a_bid_that_is_no_amount(bid: object) -> None:
    with pytest.raises(InvalidBid, match=r"agents\[0\].bid"):
        AuctionSpec.from_mapping(source(agents=[agent(bid=bid)]))


@pytest.mark.parametrize("not_a_mapping", [None, [], "spec", 3, {"query": "x"}, {1: 2}])
def test_spec_refuses_what_is_no_mapping_of_fields(not_a_mapping: object) -> None:
    with pytest.raises(InvalidSpec):
        AuctionSpec.from_mapping(not_a_mapping)


def test_spec_refuses_a_combination_without_guarantee_unless_told_to() -> None:
    unsafe = source(rule="log_linear", sampler="race", pricing="first_price")
    with pytest.raises(UnsafeCombination):
        AuctionSpec.from_mapping(unsafe)
    assert not AuctionSpec.from_mapping({**unsafe, "allow_unsafe": True}).guarantee.safe


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5), lambda x: st.lists(x, max_size=3), max_leaves=5
    )
)
def test_spec_meets_any_junk_with_a_typed_error(junk: object) -> None:
    for name in (
        "query",
        "agents",
        "rule",
        "temperature",
        "top_k",
        "seed",
        "banned_words",
        "reference_weight",
        "max_tokens",
    ):
        try:
            AuctionSpec.from_mapping(source(**{name: junk}))
        except TokenAuctionError as error:
            assert str(error)

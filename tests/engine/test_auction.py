"""One auction's state: what is legal when, how bids and budgets count, how charges add up."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.auction import LEGAL, Auction, State
from tokenauction.engine.errors import IllegalTransition, InvalidBid
from tokenauction.engine.spec import AgentSpec, AuctionSpec


def auction_of(*bids: int, budget: int | None = None, reference: int = 0) -> Auction:
    agents = tuple(AgentSpec(f"a{i}", f"A{i}", "offer", bid, budget) for i, bid in enumerate(bids))
    return Auction(AuctionSpec("query", agents, reference_weight_micros=reference), "auction")


ACTIONS: dict[str, Callable[[Auction], object]] = {
    "start": lambda auction: auction.start(),
    "set_bid": lambda auction: auction.set_bid("a0", 5),
    "set_absent": lambda auction: auction.set_absent("a0", is_absent=True),
    "record": lambda auction: auction.record(3, "x", (0.5,)),
    "choose": lambda auction: auction.choose((3, 4), "xy", (0.5,)),
    "settle": lambda auction: auction.settle("end"),
    "cancel": lambda auction: auction.cancel(),
    "fail": lambda auction: auction.fail(),
}


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("action", list(LEGAL))
def test_auction_allows_exactly_what_its_table_says(state: State, action: str) -> None:
    auction = auction_of(10)
    auction.state = state
    if state in LEGAL[action]:
        ACTIONS[action](auction)
        return
    before = (auction.read_bids(), list(auction.exact_micros), auction.text)
    with pytest.raises(IllegalTransition, match=str(state)):
        ACTIONS[action](auction)
    assert (auction.state, (auction.read_bids(), list(auction.exact_micros), auction.text)) == (state, before)


def test_auction_counts_a_new_bid_from_the_next_reading() -> None:
    auction = auction_of(10, 20)
    earlier = auction.read_bids()
    auction.set_bid("a1", 7)
    assert earlier.effective == (10, 20)
    assert auction.read_bids().effective == (10, 7)


def test_auction_takes_a_chosen_text_whole_and_charges_no_more_than_the_budget() -> None:
    auction = auction_of(10, budget=3)
    auction.start()
    charges = auction.choose((5, 6), "a text", (7.9,))
    assert (auction.token_ids, auction.text) == ([5, 6], "a text")
    assert (charges.payments, charges.charges, charges.clipped) == ((3.0,), (3,), (True,))


@pytest.mark.parametrize("bid", [-1, 1.5, True, 10**16, "5", None])
def test_auction_refuses_a_bid_that_is_no_number_of_micros(bid: object) -> None:
    auction = auction_of(10)
    with pytest.raises(Exception, match=r"bid") as caught:  # the shape checker of the tests may speak first
        auction.set_bid("a0", bid)  # type: ignore[arg-type]
    assert caught.value is not None
    assert auction.read_bids().submitted == (10,)


def test_auction_names_its_agents_when_a_bid_is_for_nobody() -> None:
    with pytest.raises(InvalidBid, match="a0, a1"):
        auction_of(1, 2).set_bid("zeta", 5)


def test_auction_says_why_a_row_has_no_weight() -> None:
    auction = auction_of(10, 0, 10, 10, budget=25, reference=4)
    auction.start()
    auction.set_absent("a2", is_absent=True)
    auction.record(1, "x", (25.0, 0.0, 0.0, 20.5, 0.0))
    bids = auction.read_bids()
    assert bids.status == ("budget_spent", "no_bid", "absent", "bid", "reference")
    assert bids.effective == (0, 0, 0, 5, 4)
    auction.set_absent("a2", is_absent=False)
    assert auction.read_bids().status[2] == "bid"


@given(
    bids=st.lists(st.integers(1, 5000), min_size=1, max_size=4),
    budget=st.integers(0, 20_000),
    shares=st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=30),
)
def test_auction_never_overspends_a_budget_nor_charges_above_the_exact_sum(
    bids: list[int], budget: int, shares: list[list[float]]
) -> None:
    auction = auction_of(*bids, budget=budget, reference=1)
    auction.start()
    charged = [0] * (len(bids) + 1)
    for row in shares:
        effective = auction.read_bids().effective
        payments = (*(e * s for e, s in zip(effective[:-1], row, strict=False)), 0.0)
        charges = auction.record(1, "x", payments)
        assert charges.payments == payments, "a payment of at most the effective bid is never clipped"
        assert all(0 <= charge <= bid for charge, bid in zip(charges.charges[:-1], bids, strict=True))
        charged = [a + b for a, b in zip(charged, charges.charges, strict=True)]
    assert tuple(charged) == auction.totals_micros
    for total, exact in zip(auction.totals_micros, auction.exact_micros, strict=True):
        assert total <= budget
        assert total == math.floor(exact)


def test_auction_clips_a_payment_above_what_is_left_and_says_so() -> None:
    auction = auction_of(10, budget=15)
    auction.start()
    auction.record(1, "x", (12.0,))
    charges = auction.record(1, "y", (9.0,))
    assert charges.payments == (3.0,)
    assert charges.clipped == (True,)
    assert auction.totals_micros == (15,)

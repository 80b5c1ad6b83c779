"""Won and lost: the table of reasons by hand, what a text's outcome follows from, what it must not depend on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.toy_server import ToyServer, collect, in_stream, spec_of, step_until

from tokenauction.server.outcomes import LOSS_REASONS, Tally, loss_of_token

Start = Callable[..., Any]


def agent(status: str = "bid", critical: float | None = 3.0, share: float = 0.4, name: str = "a") -> dict[str, Any]:
    return {"id": name, "status": status, "exact_critical_bid_micros": critical, "influence": share}


def token(*agents: dict[str, Any]) -> dict[str, Any]:
    return {"type": "auction.token", "agents": list(agents)}


def settled(*totals: int, posted: bool = True, num_tokens: int = 3) -> dict[str, Any]:
    agents = [{"id": "abc"[place], "total_micros": total} for place, total in enumerate(totals)]
    return {"type": "auction.settled", "posted": posted, "num_tokens": num_tokens, "agents": agents}


@pytest.mark.parametrize(
    ("fields", "has_left", "reason"),
    [
        (agent(), False, None),
        (agent(critical=None), False, None),
        (agent(critical=0.0), False, "outbid"),
        (agent(critical=0.0, share=1.0), False, None),
        (agent(share=0.0), False, "no_influence"),
        (agent("no_bid", share=0.0), False, "zero_bid"),
        (agent("budget_spent", share=0.0), False, "budget_exhausted"),
        (agent("absent", share=0.0), False, "absent"),
        (agent("absent", share=0.0), True, "left"),
        (agent(), True, None),  # it left while this token was under way
    ],
)
def test_token_is_lost_for_the_reason_of_the_table(fields: dict[str, Any], has_left: bool, reason: str | None) -> None:
    assert loss_of_token(fields, has_left=has_left) == reason


def test_text_is_won_by_whom_a_token_of_it_is_won_by() -> None:
    tally = Tally()
    tally.with_outcomes(token(agent("no_bid"), agent(name="b"), agent(critical=0.0, name="c")), ())
    tally.with_outcomes(token(agent(), agent("absent", name="b"), agent(critical=0.0, name="c")), ())
    tally.with_outcomes(token(agent("no_bid"), agent("absent", name="b"), agent("no_bid", name="c")), ())
    a, b, c = tally.with_outcomes(settled(5, 6, 0), ())["agents"]
    assert (a["outcome"], a["num_tokens_won"], b["outcome"], b["num_tokens_won"]) == ("won", 1, "won", 1)
    assert (c["outcome"], c["loss_reason"], c["num_tokens_won"]) == ("lost", "outbid", 0)
    assert "loss_reason" not in a


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        (settled(0, posted=False), "void"),
        (settled(0, num_tokens=0), "void"),
        (settled(0), "outbid"),
        (settled(7), None),
    ],
)
def test_text_that_no_token_priced_is_won_by_who_paid(event: dict[str, Any], reason: str | None) -> None:
    [of_text] = Tally().with_outcomes(event, ())["agents"]
    assert of_text.get("loss_reason") == reason


def test_reference_has_no_outcome() -> None:
    event = {**settled(), "agents": [{"id": "reference", "total_micros": 0}]}
    assert "outcome" not in Tally().with_outcomes(event, ())["agents"][0]
    row = agent("reference", name="reference")
    assert Tally().with_outcomes(token(row), ())["agents"] == [row]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["bid", "no_bid", "budget_spent", "absent"]),
            st.sampled_from([None, 0.0, 2.5]),
            st.sampled_from([0.0, 0.3, 1.0]),
            st.booleans(),
        )
    )
)
def test_tally_after_a_crash_is_the_tally_before_it(tokens: list[tuple[str, float | None, float, bool]]) -> None:
    before, after = Tally(), Tally()
    for status, critical, share, has_left in tokens:
        after.count(before.with_outcomes(token(agent(status, critical, share)), ["a"] if has_left else []))
    last = settled(0, num_tokens=len(tokens))
    assert before.with_outcomes(last, ()) == after.with_outcomes(last, ())
    assert before.with_outcomes(last, ())["agents"][0].get("loss_reason") in (None, *LOSS_REASONS)


async def test_agents_of_an_auction_learn_what_they_won_and_why_not(start: Start) -> None:
    async with start(is_paced=True) as server:
        spec = spec_of("0.002", "0.002", "0", max_tokens=30)
        spec["agents"][2]["budget"] = "1"
        auction_id = (await server.client().begin(spec))["auction_id"]
        server.model.allow(5)
        await collect(server.client().watch(auction_id), lambda event: event.get("step") == 5)
        step = await step_until(server.model, server.app.context.bidding.leave(auction_id, "agent1"))
        server.model.free()
        events = in_stream(await collect(server.client().watch(auction_id)))
    told = [event["agents"] for event in events if event["type"] == "auction.token"]
    assert {agents[2]["loss_reason"] for agents in told} == {"zero_bid"}
    assert {agents[1].get("loss_reason") for agents in told[step:]} == {"left"}
    for agents in told[:step]:
        assert agents[0]["outcome"] == ("won" if agents[0]["exact_critical_bid_micros"] else "lost")
    last = events[-1]["agents"]
    assert [row["outcome"] for row in last[:3]] == ["won", "won", "lost"] and last[2]["loss_reason"] == "zero_bid"
    assert last[0]["num_tokens_won"] == sum(agents[0]["outcome"] == "won" for agents in told)


async def test_auction_that_is_cancelled_before_its_text_is_lost_by_everybody(server: ToyServer) -> None:
    spec = spec_of("0.002", "0.001", tmax_join_ms=60_000)
    auction_id = (await server.client().begin(spec))["auction_id"]
    await server.client().cancel(auction_id)
    last = (await collect(server.client().watch(auction_id)))[-1]
    assert [(row["outcome"], row["loss_reason"], row["total_micros"]) for row in last["agents"]] == [
        ("lost", "void", 0)
    ] * 2

"""Agents with models of their own through real sockets: heard, refused, waited for, and never too long."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from tests.server.toy_server import SYMBOLS, ToyServer, collect, spec_of
from websockets.asyncio.client import ClientConnection

from tokenauction.clients.agent import Agent
from tokenauction.clients.client import Event, ServerError
from tokenauction.clients.own_model import Distribution, Sparse
from tokenauction.clients.strategies import Fixed
from tokenauction.engine.policy import Policy
from tokenauction.engine.replay import replay
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.remote import RemoteRow
from tokenauction.models.toy import ToyModel, ToyWorld
from tokenauction.server.visibility import view
from tokenauction.server.wire import AgentJoin, DistributionSubmit, encode, write_frame

WORLD = ToyWorld(3, SYMBOLS)
HASH = WORLD.tokenizer.hash
LONG_MS = 10_000  # a deadline that no test waits for


def mixed(*bids: str, seed: int = 7, max_tokens: int = 12, **changes: Any) -> dict[str, Any]:
    """An auction whose agent1 runs its own model."""
    spec = spec_of(*bids, max_tokens=max_tokens, seed=seed, **{"tmax_token_ms": LONG_MS, **changes})
    spec["agents"][1]["own_model"] = True
    return {"tmax_join_ms": 20_000, **spec}


def platform_row(agent_id: str) -> RemoteRow:
    """The very model that the platform would run for this agent."""
    return RemoteRow(ToyModel(WORLD), WORLD.tokenizer.encode_prompt(f"query for {agent_id}"), 64)


class Saying:
    """A model of one distribution."""

    vocabulary_hash = HASH

    def __init__(self, says: Callable[[Sequence[int]], Distribution]) -> None:
        self.says = says

    def log_probs(self, token_ids: Sequence[int]) -> Distribution:
        return self.says(token_ids)


async def begin(server: ToyServer, spec: dict[str, Any]) -> str:
    """An auction that begins when agent1 has joined."""
    auction_id: str = (await server.client().begin(spec))["auction_id"]
    return auction_id


async def start_when_joined(server: ToyServer, auction_id: str, num_agents: int = 1) -> None:
    """End the time to join as soon as so many connections speak for agents with models of their own."""
    while sum(a.source is not None for a in server.house.desk._agents.get(auction_id, {}).values()) < num_agents:
        await asyncio.sleep(0.005)
    server.house.live[auction_id].no_more_joins.set()


async def play(server: ToyServer, spec: dict[str, Any], model: Any) -> tuple[str, list[Event]]:
    """A whole auction with one agent that has its own model."""
    auction_id = await begin(server, spec)
    agent = asyncio.create_task(Agent(server.client(), "agent1", Fixed(1_000), own_model=model).run(auction_id))
    await start_when_joined(server, auction_id)
    events = await collect(server.client().watch(auction_id))
    await agent
    return auction_id, events


@asynccontextmanager
async def speaking(server: ToyServer, auction_id: str, **changes: Any) -> AsyncIterator[ClientConnection]:
    """A connection on which agent1 has joined with its own model; what it says is the test's."""
    async with server.client().connection() as socket:
        join = {"auction_id": auction_id, "agent_id": "agent1", "bid_micros": 1_000, "own_model": True}
        await socket.send(encode(AgentJoin(**{**join, "vocabulary_hash": HASH, **changes})).decode())
        joined = await until(socket, "agent.joined", "error")
        if joined["type"] == "error":
            raise ServerError(joined["code"], joined["message"])
        yield socket


async def until(socket: ClientConnection, *types: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while True:
            event: dict[str, Any] = json.loads(await socket.recv())
            if event["type"] in types:
                return event


def tokens(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event["type"] == "auction.token"]


def uniform(size: int = len(SYMBOLS) + 1) -> Any:
    return np.full(size, -np.log(size), np.float32)


async def test_own_model_that_says_what_the_platform_would_gives_the_platforms_text(server: ToyServer) -> None:
    hosted = await collect(server.client().create(spec_of("0.002", "0.001", max_tokens=12)))
    auction_id, events = await play(server, mixed("0.002", "0.001"), platform_row("agent1"))
    assert events[-1]["text"] == hosted[-1]["text"]
    assert {token["agents"][1]["status"] for token in tokens(events)} == {"bid"}
    assert events[-1]["total_micros"] == pytest.approx(hosted[-1]["total_micros"], abs=1)
    assert "an agent reported its own distribution" in events[-1]["voids"]
    lines = await server.receipt(auction_id)
    assert verify(lines).holds
    spec = AuctionSpec.from_mapping(lines[0]["spec"])
    prompts = [WORLD.tokenizer.encode_prompt(f"query for {row}") for row in spec.hosted_ids]
    assert replay(lines, server.model, prompts, Policy()).holds


@pytest.mark.parametrize(
    "says",
    [
        lambda text: uniform().astype(np.float16),
        lambda text: Sparse([0, 3], [float(np.log(0.5)), float(np.log(0.3))], 0.2),
    ],
    ids=["float16", "sparse"],
)
async def test_distribution_may_come_in_any_form(server: ToyServer, says: Any) -> None:
    auction_id, events = await play(server, mixed("0.002", "0.001"), Saying(says))
    assert {token["agents"][1]["status"] for token in tokens(events)} == {"bid"}
    assert verify(await server.receipt(auction_id)).holds


async def test_silent_agent_is_absent_asked_less_and_less_and_told_so(server: ToyServer) -> None:
    auction_id = await begin(server, mixed("0.002", "0.001", max_tokens=20, tmax_token_ms=30))
    async with speaking(server, auction_id) as socket:
        await start_when_joined(server, auction_id)
        events = await collect(server.client().watch(auction_id))
        heard = []
        while not heard or heard[-1]["type"] != "pong":
            await socket.send('{"type": "ping"}')
            heard.append(await until(socket, "step.opened", "step.missed", "pong"))
    assert {token["agents"][1]["status"] for token in tokens(events)} == {"absent"}
    assert all(token["agents"][1]["exact_payment_micros"] == 0 for token in tokens(events))
    assert [event["step"] for event in heard if event["type"] == "step.opened"] == [0, 1, 2, 11]
    missed = [(e["step"], e["num_missed"], e["suspended_until_step"]) for e in heard if e["type"] == "step.missed"]
    assert missed == [(0, 1, None), (1, 2, None), (2, 3, 11), (11, 4, 28)]
    assert verify(await server.receipt(auction_id)).holds


async def test_auction_that_waits_slows_no_other(server: ToyServer) -> None:
    auction_id = await begin(server, mixed("0.002", "0.001"))
    async with speaking(server, auction_id):
        await start_when_joined(server, auction_id)
        other = await collect(server.client().create(spec_of("0.002", "0.001", max_tokens=100)))
        assert other[-1]["num_tokens"] == 100
        assert server.house.live[auction_id].num_tokens == 0  # it waits all the while
        await server.client().cancel(auction_id)
        events = await collect(server.client().watch(auction_id))
    assert (events[-1]["finish_reason"], events[-1]["num_tokens"]) == ("cancelled", 0)


async def test_refused_distribution_changes_nothing_and_a_better_one_may_follow(server: ToyServer) -> None:
    auction_id = await begin(server, mixed("0.002", "0.001", max_tokens=1))
    sparse: dict[str, Any] = {"auction_id": auction_id, "agent_id": "agent1", "step": 0, "vocabulary_hash": HASH}
    sparse |= {"ids": [0], "log_probs": [0.0], "tail_mass": 0.0}
    bad: list[tuple[str | bytes, str]] = [
        (encode(DistributionSubmit(**{**sparse, "vocabulary_hash": "0" * 64})).decode(), "wrong_vocabulary"),
        (encode(DistributionSubmit(**{**sparse, "ids": [len(SYMBOLS) + 1]})).decode(), "invalid_distribution"),
        (encode(DistributionSubmit(**{**sparse, "step": 1})).decode(), "step_not_open"),
        (encode(DistributionSubmit(**{**sparse, "tail_mass": 0.5})).decode(), "not_normalised"),
        (json.dumps({**sparse, "type": "distribution.submit", "log_probs": ["NaN"]}), "invalid_field"),
        (write_frame(auction_id, "agent1", 0, "0" * 64, uniform()), "wrong_vocabulary"),
        (write_frame(auction_id, "agent1", 0, HASH, uniform(5)), "invalid_distribution"),
        (write_frame(auction_id, "agent1", 0, HASH, uniform() + 1), "not_normalised"),
        (write_frame(auction_id, "agent1", 0, HASH, uniform() * np.float32(np.nan)), "not_finite"),
        (write_frame(auction_id, "agent0", 0, HASH, uniform()), "not_joined"),
    ]
    async with speaking(server, auction_id) as socket:
        await start_when_joined(server, auction_id)
        assert (await until(socket, "step.opened"))["step"] == 0
        for message, code in bad:
            await socket.send(message)
            assert (await until(socket, "error"))["code"] == code
        await socket.send(write_frame(auction_id, "agent1", 0, HASH, uniform()))
        events = await collect(server.client().watch(auction_id))
        await socket.send(write_frame(auction_id, "agent1", 0, HASH, uniform()))  # too late, and the auction is over
        assert (await until(socket, "error"))["code"] in ("step_not_open", "not_joined")
    [token] = tokens(events)
    assert token["agents"][1]["status"] == "bid"
    assert verify(await server.receipt(auction_id)).holds


async def test_agent_that_is_gone_is_not_waited_for_and_hears_the_whole_text_when_it_is_back(server: ToyServer) -> None:
    auction_id = await begin(server, mixed("0.002", "0.001", max_tokens=300, token_ms=5))
    async with speaking(server, auction_id) as socket:
        await start_when_joined(server, auction_id)
        first = await until(socket, "step.opened")
        assert (first["token_ids"], first["last_token_id"]) == ([], None)
    live = server.house.live[auction_id]
    while live.num_tokens < 5:  # nobody waits LONG_MS
        await asyncio.sleep(0.005)
    async with speaking(server, auction_id) as socket:
        again = await until(socket, "step.opened")
        assert again["step"] == len(again["token_ids"]) >= 5
        await socket.send(write_frame(auction_id, "agent1", again["step"], HASH, uniform()))
        following = await until(socket, "step.opened")
        assert following["step"] == again["step"] + 1 and "token_ids" not in following
    await server.client().cancel(auction_id)
    events = await collect(server.client().watch(auction_id))
    statuses = [token["agents"][1]["status"] for token in tokens(events)]
    assert statuses.count("bid") == 1 and statuses[again["step"]] == "bid"
    assert verify(await server.receipt(auction_id)).holds


async def test_newer_connection_of_an_agent_takes_over(server: ToyServer) -> None:
    auction_id = await begin(server, mixed("0.002", "0.001", max_tokens=2))
    async with speaking(server, auction_id) as older:
        await start_when_joined(server, auction_id)
        await until(older, "step.opened")
        async with speaking(server, auction_id) as newer:
            opened = await until(newer, "step.opened")
            assert opened["step"] == 1  # the first one went by without it
            await older.send(write_frame(auction_id, "agent1", 1, HASH, uniform()))
            assert (await until(older, "error"))["code"] == "step_not_open"
            await newer.send(write_frame(auction_id, "agent1", 1, HASH, uniform()))
            events = await collect(server.client().watch(auction_id))
    assert [token["agents"][1]["status"] for token in tokens(events)] == ["absent", "bid"]


async def test_commit_reveal_puts_hashes_on_the_ledger_in_front_of_every_draw(server: ToyServer) -> None:
    auction_id, events = await play(server, mixed("0.002", "0.001", commit_reveal=True), platform_row("agent1"))
    lines = await server.receipt(auction_id)
    committed = {event["step"]: event for event in events if event["type"] == "distributions.committed"}
    for token in tokens(events):
        before = committed[token["step"]]
        assert before["seq"] == token["seq"] - 1
        assert before["durable_seq"] < before["seq"] <= token["durable_seq"]  # durable before the token was drawn
        assert before["agents"] == [{"id": "agent1", "report_hash": token["agents"][1]["report_hash"]}]
        assert lines[1 + token["step"]]["report_hashes"] == [None, before["agents"][0]["report_hash"]]
        assert lines[1 + token["step"]]["key"] == token["key"]


@pytest.mark.parametrize(
    ("spec", "changes", "code"),
    [
        (mixed("0.002", "0.001"), {"vocabulary_hash": "0" * 64}, "wrong_vocabulary"),
        (mixed("0.002", "0.001"), {"vocabulary_hash": None}, "vocabulary_missing"),
        (mixed("0.002", "0.001"), {"agent_id": "agent0"}, "hosted"),
        (mixed("0.002", "0.001"), {"agent_id": "agent2", "brief": {"name": "N", "offer": "o"}}, "hosted"),
        ({**spec_of("0.002", tmax_join_ms=20_000), "own_models": True}, {"agent_id": "agent2"}, "brief_missing"),
    ],
)
async def test_joining_with_an_own_model_is_refused(
    server: ToyServer, spec: dict[str, Any], changes: dict[str, Any], code: str
) -> None:
    auction_id = await begin(server, spec)
    with pytest.raises(ServerError) as refused:
        async with speaking(server, auction_id, **changes):
            pass
    assert refused.value.code == code


async def test_agent_may_join_with_its_own_model_where_the_auction_says_so(server: ToyServer) -> None:
    spec = {**spec_of("0.002", max_tokens=4), "tmax_join_ms": 20_000, "tmax_token_ms": LONG_MS, "own_models": True}
    auction_id = await begin(server, spec)
    agent = Agent(server.client(), "agent2", Fixed(900), name="N", offer="o", own_model=Saying(lambda text: uniform()))
    running = asyncio.create_task(agent.run(auction_id))
    await start_when_joined(server, auction_id)
    events = await collect(server.client().watch(auction_id))
    await running
    created = next(event for event in events if event["type"] == "auction.created")
    assert created["prompt_hashes"][1] is None and created["spec"]["agents"][1]["own_model"]
    assert {token["agents"][1]["status"] for token in tokens(events)} == {"bid"}


@pytest.mark.parametrize("changes", [{"tmax_token_ms": 0}, {"own_models": 1}, {"commit_reveal": "yes"}])
async def test_request_about_own_models_that_makes_no_sense_is_refused(
    server: ToyServer, changes: dict[str, Any]
) -> None:
    with pytest.raises(ServerError) as refused:
        await server.client().begin({**spec_of("0.002"), **changes})
    assert refused.value.code == "invalid_spec"


@pytest.mark.parametrize(
    ("audience", "agent_id", "hashes", "sees_key"),
    [("public", None, [], False), ("bidder", "a", ["1"], False), ("owner", None, ["1", "2"], True)],
)
def test_hash_is_its_agents_own_and_a_steps_key_is_the_owners(
    audience: Any, agent_id: str | None, hashes: list[str], sees_key: bool
) -> None:
    agents = [{"id": "a", "report_hash": "1"}, {"id": "b", "report_hash": "2"}]
    for kind in ("auction.token", "distributions.committed"):
        seen = view({"type": kind, "step": 0, "agents": agents, "key": "k"}, audience, agent_id, settled=True)
        assert [agent["report_hash"] for agent in seen.get("agents", [])] == hashes
        assert ("key" in seen) == (sees_key and kind == "auction.token")

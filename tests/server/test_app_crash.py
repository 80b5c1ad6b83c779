"""A server that is told to stop, and one that is killed: nothing acknowledged is lost, nothing is charged twice."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest
from tests.server.kills import check, kill_and_resume, kill_while_agents_join, toy_process, watch_until_lost
from tests.server.places import ON_POSTGRES, Place
from tests.server.toy_server import spec_of

from tokenauction.clients.client import Event, ServerError

KILLS = [
    *(("sqlite", moment) for moment in range(5)),
    *(pytest.param("postgresql", moment, marks=ON_POSTGRES) for moment in (5, 6)),
]


@pytest.mark.slow
async def test_stopped_server_finishes_its_auctions_and_takes_no_new_ones(place: Place) -> None:
    async with toy_process(place.url) as server:
        client = server.client
        ids = [(await client.begin(spec_of("0.002", "0.001", max_tokens=150, seed=i)))["auction_id"] for i in range(5)]
        streams: list[list[Event]] = [[] for _ in ids]
        watching = [asyncio.create_task(watch_until_lost(client, *pair)) for pair in zip(ids, streams, strict=True)]
        while not all(streams):
            await asyncio.wait(watching, timeout=0.01)
        async with client.connection() as early:
            server.process.send_signal(signal.SIGTERM)
            refusal: ServerError | None = None
            while refusal is None:
                try:
                    await client.begin(spec_of("0.002", max_tokens=1))
                except ServerError as error:
                    refusal = error
            assert refusal.code == "draining"
            async with httpx.AsyncClient(base_url=client.url, trust_env=False) as http:
                for answer in (
                    await http.post("/v1/auctions", json={"spec": spec_of("0.002")}),
                    await http.get("/readyz"),
                ):
                    assert answer.status_code == 503 and int(answer.headers["retry-after"]) > 0
            await asyncio.gather(*watching)
            await early.wait_closed()
            assert early.close_code == 1001
        assert await server.process.wait() == 0
    for events in streams:
        assert [event["seq"] for event in events] == list(range(152))
        assert events[-1]["finish_reason"] == "max_tokens"
    await check(place.url, ids)


@pytest.mark.slow
@pytest.mark.parametrize(("place", "moment"), KILLS, indirect=["place"])
async def test_killed_server_goes_on_where_the_ledger_ends(place: Place, tmp_path: Path, moment: int) -> None:
    await kill_and_resume(tmp_path, place.url, moment)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(2))
async def test_server_killed_while_agents_join_goes_on_with_those_it_had_told(place: Place, moment: int) -> None:
    await kill_while_agents_join(place.url, moment)

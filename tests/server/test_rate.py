"""Allowances: how many requests at once and for long, of whom; and what REST says to who asks too often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.server.toy_server import spec_of

from tokenauction.server.app import AppSettings
from tokenauction.server.rate import Rates, address_key
from tokenauction.server.refusal import Refused

Start = Callable[..., Any]
SLOW = AppSettings(requests_per_second=0.001, request_burst=5)


def test_burst_is_allowed_at_once_and_then_as_many_as_refill() -> None:
    rates = Rates(2.0, 3.0)
    assert [rates.take("a", 10.0) for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    assert rates.take("b", 10.0) == 0
    assert [rates.take("a", 10.5), rates.take("a", 10.5)] == [0, 0.5]


def test_clock_that_goes_back_gives_nothing() -> None:
    rates = Rates(1.0, 1.0)
    assert rates.take("a", 10.0) == 0 and rates.take("a", 5.0) == 1.0


def test_no_more_keys_are_remembered_than_there_is_room_for() -> None:
    rates = Rates(1.0, 1.0, max_keys=2)
    assert [rates.take(key, 0.0) for key in "abc"] == [0, 0, 0]
    assert rates.take("c", 0.0) > 0 and rates.take("a", 0.0) == 0


@given(st.lists(st.floats(0, 10), max_size=60), st.floats(0.5, 5), st.integers(1, 10))
def test_never_more_are_allowed_than_the_burst_and_what_refilled(gaps: list[float], rate: float, burst: int) -> None:
    rates, now, num_allowed = Rates(rate, float(burst)), 0.0, 0
    for gap in gaps:
        now += gap
        wait = rates.take("a", now)
        num_allowed += wait == 0
        assert num_allowed <= burst + now * rate + 1e-6
        assert wait <= 1 / rate + 1e-9


def test_refusal_says_when_to_come_again() -> None:
    rates = Rates(0.5, 1.0)
    rates.check("a", 0.0)
    with pytest.raises(Refused, match="try again in 2 s") as refused:
        rates.check("a", 0.0)
    assert (refused.value.code, refused.value.retry_seconds) == ("rate_limited", 2.0)


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("unix", "unix"),
    ],
)
def test_address_stands_for_all_that_one_peer_has(host: str, key: str) -> None:
    assert address_key(host) == key


async def test_address_that_asks_too_often_gets_429_with_retry_after_and_health_goes_on(start: Start) -> None:
    async with (
        start(settings=SLOW) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        assert [(await http.get("/v1/auctions")).status_code for _ in range(5)] == [200] * 5
        for path in ("/v1/auctions", "/nowhere", "/openapi.json"):
            answer = await http.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (429, "rate_limited")
            assert 1 <= int(answer.headers["retry-after"]) <= 1_000
        created = await http.post("/v1/auctions", json={"spec": spec_of("0.002")})
        assert created.status_code == 429 and not server.house.live
        assert [(await http.get(path)).status_code for path in ("/healthz", "/readyz")] == [200, 200]


async def test_token_has_an_allowance_of_its_own_wherever_it_comes_from(start: Start) -> None:
    async with (
        start(is_open=False, settings=SLOW) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as http,
    ):
        _, secret = await server.ledger.create_token(["watch"])
        sends = {"Authorization": f"Bearer {secret}"}
        statuses = []
        for address in range(6):  # as a proxy on this machine names them
            headers = {**sends, "X-Forwarded-For": f"192.0.2.{address}"}
            statuses.append((await http.get("/v1/auctions", headers=headers)).status_code)
        assert statuses == [200] * 5 + [429]
        _, other = await server.ledger.create_token(["watch"])
        headers = {"Authorization": f"Bearer {other}", "X-Forwarded-For": "192.0.2.9"}
        assert (await http.get("/v1/auctions", headers=headers)).status_code == 200

"""GET /metrics: what it counts over a life of auctions, who may read it, and that Prometheus's own parser takes it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from tests.server.broker import free_port
from tests.server.toy_server import ToyServer, collect, spec_of, step_until

from tokenauction.server.metrics import Metrics
from tokenauction.server.telemetry import MAX_CURRENCIES, Telemetry

ROOT = Path(__file__).resolve().parents[2]
Start = Callable[..., Any]


def numbers_of(text: str) -> dict[str, float]:
    """Every sample by its name, with the values of its labels behind it; read by Prometheus's own parser."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[" ".join([sample.name, *sample.labels.values()])] = sample.value
    return found


async def scrape(server: ToyServer, token: str | None = None) -> str:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(base_url=server.url, trust_env=False, headers=headers) as http:
        answer = await http.get("/metrics")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain; version=")
    return answer.text


async def test_metrics_count_what_an_auction_did(server: ToyServer) -> None:
    client = server.client()
    auction_id = (await client.begin(spec_of("0.002", "0.001", max_tokens=12)))["auction_id"]
    settled = (await collect(client.watch(auction_id)))[-1]
    numbers = numbers_of(await scrape(server))
    prefix = "tokenauction_"
    for name, value in {
        "auctions_begun_total": 1,
        "auctions_ended_total max_tokens": 1,
        "tokens_total": 12,
        "step_seconds_count": 12,
        "step_auction_ratio_count": 12,
        "batch_occupancy_ratio_count": 12,
        "first_token_seconds_count": 1,
        "money_posted_micros_total USD": settled["total_micros"],
        "auctions running": 0,
        "queue_auctions waiting": 0,
        "ledger_queue_writes": 0,
        "decoder_steps_ahead": 0,
        "batch_rows_limit": 256,
    }.items():
        assert numbers[prefix + name] == value, name
    assert settled["total_micros"] > 0
    assert numbers[prefix + "ledger_commit_seconds_count"] == numbers[prefix + "ledger_commit_writes_count"] >= 2
    assert numbers[prefix + "batch_occupancy_ratio_sum"] == pytest.approx(12 * 2 / 256)
    assert 0 < numbers[prefix + "step_auction_ratio_sum"] <= 12
    assert numbers[prefix + "step_seconds_sum"] > 0


async def test_metrics_count_a_text_that_is_chosen_when_it_comes(server: ToyServer) -> None:
    client = server.client()
    spec = spec_of("0.002", "0.001", mechanism="softmax", num_candidates=3, tau="0.003")
    settled = (await collect(client.watch((await client.begin(spec))["auction_id"])))[-1]
    numbers = numbers_of(await scrape(server))
    assert numbers["tokenauction_tokens_total"] == settled["num_tokens"] > 0
    assert numbers["tokenauction_first_token_seconds_count"] == 1
    assert numbers["tokenauction_step_seconds_count"] > 0
    assert numbers["tokenauction_money_posted_micros_total USD"] == settled["total_micros"] > 0


async def test_metrics_show_who_waits_and_how_long_bids_take(start: Start) -> None:
    async with start(is_paced=True) as server:
        client = server.client()
        running = (await client.begin(spec_of("0.002", max_tokens=30)))["auction_id"]
        await client.begin(spec_of("0.002", tmax_join_ms=60_000))
        bid = server.app.context.bidding.bid(running, "agent0", 3_000)
        await step_until(server.model, bid)
        numbers = numbers_of(await scrape(server))
        assert numbers["tokenauction_auctions running"] == numbers["tokenauction_auctions joining"] == 1
        assert numbers["tokenauction_queue_auctions running"] == 1
        assert numbers["tokenauction_bid_seconds_count"] == 1 and numbers["tokenauction_bid_seconds_sum"] > 0
        server.model.free()


async def test_metrics_are_for_their_scope_and_the_admin(start: Start) -> None:
    async with start(is_open=False) as server, httpx.AsyncClient(base_url=server.url, trust_env=False) as http:
        assert (await http.get("/metrics")).status_code == 401
        for scope, status in (("watch", 403), ("chat", 403), ("bid", 403), ("metrics", 200), ("admin", 200)):
            _, secret = await server.ledger.create_token([scope])
            headers = {"Authorization": f"Bearer {secret}"}
            assert (await http.get("/metrics", headers=headers)).status_code == status, scope
        _, secret = await server.ledger.create_token(["metrics"])
        headers = {"Authorization": f"Bearer {secret}"}
        for path in ("/v1/auctions", "/v1/accounts", "/v1/tokens"):
            assert (await http.get(path, headers=headers)).status_code == 403, path


async def test_dashboard_names_metrics_that_there_are(server: ToyServer) -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text(encoding="utf-8"))
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    there = set()
    for name, kind in re.findall(r"^# TYPE (\w+) (\w+)$", await scrape(server), re.MULTILINE):
        there |= {name + suffix for suffix in (("_bucket", "_sum", "_count") if kind == "histogram" else ("",))}
    used = {name for e in expressions for name in re.findall(r"\b(?:tokenauction|process)_\w+", e)}
    assert len(used) > 20 and used - there == set()


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool, of Debian's package prometheus, is not here")
async def test_promtool_accepts_the_metrics_and_has_nothing_to_add(server: ToyServer) -> None:
    auction_id = (await server.client().begin(spec_of("0.002")))["auction_id"]
    await collect(server.client().watch(auction_id))
    text = await scrape(server)
    check = ["promtool", "check", "metrics"]
    done = await asyncio.to_thread(subprocess.run, check, input=text, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus, of Debian, is not here")
async def test_prometheus_reads_the_metrics_with_a_token_of_their_scope(start: Start, tmp_path: Path) -> None:
    async with start(is_open=False) as server:
        _, admin = await server.ledger.create_token(["admin"])
        client = server.client(admin)
        await collect(client.watch((await client.begin(spec_of("0.002")))["auction_id"]))
        (tmp_path / "metrics.token").write_text((await server.ledger.create_token(["metrics"]))[1])
        config = yaml.safe_load((ROOT / "deploy" / "prometheus.yml").read_text(encoding="utf-8"))
        config["global"]["scrape_interval"] = "1s"
        config["scrape_configs"][0]["static_configs"] = [{"targets": [server.url.removeprefix("http://")]}]
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
        place = f"127.0.0.1:{free_port()}"
        options = [f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={place}"]
        options.append(f"--config.file={tmp_path / 'prometheus.yml'}")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = await asyncio.create_subprocess_exec("prometheus", *options, **quiet)
        try:
            found = await asked_until_there(f"http://{place}/api/v1/query", "tokenauction_tokens_total")
        finally:
            process.terminate()
            await process.wait()
        assert float(found) == 12


async def asked_until_there(url: str, query: str) -> str:
    """The value of a series, once Prometheus has one."""
    async with asyncio.timeout(60), httpx.AsyncClient(trust_env=False) as http:
        while True:
            with suppress(httpx.TransportError):
                results = (await http.get(url, params={"query": query})).json().get("data", {}).get("result", [])
                if results:
                    value: str = results[0]["value"][1]
                    return value
            await asyncio.sleep(0.2)


def test_metrics_name_no_auction_and_no_agent_and_bound_the_currencies() -> None:
    telemetry = Telemetry()
    for number in range(2 * MAX_CURRENCIES):
        telemetry.metrics.posted.labels(telemetry._currency(f"C{number:02}")).inc()
    numbers = numbers_of(telemetry.metrics.text().decode())
    posted = {name: value for name, value in numbers.items() if "posted_micros_total" in name}
    assert len(posted) == MAX_CURRENCIES + 1
    assert posted["tokenauction_money_posted_micros_total other"] == MAX_CURRENCIES


def test_servers_in_one_process_do_not_share_their_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.tokens.inc()
    assert numbers_of(other.text().decode())["tokenauction_tokens_total"] == 0

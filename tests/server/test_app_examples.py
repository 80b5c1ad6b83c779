"""The examples and the commands, as a newcomer runs them: a server, a front end, an agent, a look into the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
CLI = ("-c", "from tokenauction.clients.cli import main; main()")
pytestmark = pytest.mark.slow


async def start(*arguments: str) -> asyncio.subprocess.Process:
    """A Python process of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe
    )


async def run(*arguments: str) -> tuple[str, str]:
    """What it prints on stdout and stderr, and it must go well."""
    process = await start(*arguments)
    async with asyncio.timeout(120):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    return out.decode(), err.decode()


async def test_newcomer_serves_watches_bids_and_checks_the_ledger(tmp_path: Path) -> None:
    ledger = str(tmp_path / "ledger.db")
    server = await start(*CLI, "serve", "--port", "0", "--ledger", ledger)
    assert server.stdout is not None, "its output is a pipe"
    url = (await server.stdout.readline()).decode().split()[2]
    try:
        shown, _ = await run("examples/front_end.py", url)
        assert shown.splitlines()[-1] == "sponsored by Alpha Airlines and Beta Resort"
        written, _ = await run("examples/openai_client.py", url)
        ad, sponsors, *bill, total = written.splitlines()
        assert ad and sponsors == shown.splitlines()[-1]
        assert [line.split(":")[0] for line in bill] == ["Alpha Airlines", "Beta Resort"]
        cents = [float(line.split(": ")[1].split(" USD")[0]) for line in (*bill, total)]
        assert round(sum(cents[:-1]), 6) == cents[-1] > 0
        spec = ("create", "examples/hawaii.yaml", "--url", url)
        auction_id = (await run(*CLI, *spec, "--join-ms", "20000", "--quiet"))[0].strip()
        bidder = asyncio.create_task(run("examples/bidding_agent.py", auction_id, url))
        text, bill = await run(*CLI, "watch", auction_id, "--url", url)
        again = (await run(*CLI, "watch", auction_id, "--url", url, "--json"))[0].splitlines()
        hashes = {auction_id: json.loads(again[-1])["receipt_head"]}
        assert (await bidder)[0].splitlines()[0] == text.strip()
        assert {line.split(":")[0] for line in bill.splitlines()} >= {"gamma"}
        own = ("--join-ms", "40000", "--quiet", "--own-models", "--tmax-token-ms", "5000", "--commit-reveal")
        own_id = (await run(*CLI, *spec, *own))[0].strip()
        own_text, _ = await run("examples/own_model_agent.py", own_id, url)
        assert own_text.splitlines()[1].startswith("paid ")
        assert "model" in (await run(*CLI, "verify", own_id, "--url", url, "--model", "default"))[0]
        lines = (await run(*CLI, *spec, "--json"))[0].splitlines()
        events: list[dict[str, Any]] = [json.loads(line) for line in lines]
        assert events[-1]["type"] == "auction.settled"
        for place in (("--url", url), ("--db", ledger)):
            verdict = (await run(*CLI, "verify", auction_id, *place))[0]
            assert "holds" in verdict and verdict.splitlines()[-1].endswith(hashes[auction_id])
        balances = (await run(*CLI, "ledger", "balances", "--ledger", ledger))[0]
        assert balances.splitlines()[-1] == "sum\t0"
        secret = json.loads((await run(*CLI, "token", "create", "--scope", "watch", "--ledger", ledger))[0])
        assert set(secret) == {"token_id", "secret"}
        assert "in order" in (await run(*CLI, "ledger", "audit", "--ledger", ledger))[0]
    finally:
        server.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await server.wait() == 0


async def test_demo_on_a_page_says_where_it_is_and_leaves_no_ledger_behind(tmp_path: Path) -> None:
    demo = await start(*CLI, "demo", "--web")
    assert demo.stdout is not None, "its output is a pipe"
    url = (await demo.stdout.readline()).decode().split()[2]
    try:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
            assert (await http.get("/")).text.startswith("<!doctype html>")
            presets = (await http.get("/v1/presets")).json()["presets"]
            assert "hawaii" in {preset["name"] for preset in presets}
        assert (await run("examples/front_end.py", url))[0].splitlines()[-1].startswith("sponsored by")
    finally:
        demo.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await demo.wait() == 0


async def test_three_remote_bidders_an_owner_and_the_public_agree_on_every_number() -> None:
    shown, _ = await run("examples/three_bidders.py")
    verdicts = shown[shown.rindex("\n\n") :].strip().splitlines()
    assert len(verdicts) == 7 and all(line.startswith("yes  ") for line in verdicts), shown

"""The ledger's benchmark runs and ends in one JSON line of figures; how fast it is is not asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.server.places import EVERYWHERE
from tests.server.postgres import PASSWORD, new_url

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(params=EVERYWHERE)
def place_options(request: pytest.FixtureRequest) -> list[str]:
    return [] if request.param == "sqlite" else ["--ledger", new_url()]


@pytest.mark.slow
def test_ledger_benchmark_measures_every_kind_of_write(place_options: list[str]) -> None:
    command = [
        sys.executable,
        ROOT / "benchmarks" / "server_ledger.py",
        "--auctions",
        "2",
        "--tokens",
        "40",
        "--bids",
        "8",
        *place_options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True, cwd=ROOT)
    assert "s3cret" in PASSWORD and "s3cret" not in done.stdout + done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["events_per_s"] > 0 and result["bids_per_s"] > 0 and result["sync_ms_floor"] > 0
    for name in ("event_durable_ms", "bid_durable_ms", "create_ms", "settle_ms"):
        assert 0 < result[f"{name}_p50"] <= result[f"{name}_p99"]

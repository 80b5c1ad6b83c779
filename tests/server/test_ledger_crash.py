"""Crashes: what a ledger acknowledged is there after loss of power and after kill -9, and nothing is charged twice."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.server.places import Place

from tokenauction.models.compiler import find_compiler

HERE = Path(__file__).resolve().parent

pytestmark = pytest.mark.slow
records_disks = pytest.mark.skipif(
    sys.platform != "linux" or find_compiler() is None, reason="the recorder is preloaded on Linux and needs a compiler"
)


def lose_power(*options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of power_loss.py, and its figures."""
    command = [sys.executable, HERE / "power_loss.py", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.stdout, done.stderr[-2000:]
    return done.returncode, json.loads(done.stdout)


@records_disks
def test_loss_of_power_loses_nothing_that_was_acknowledged() -> None:
    code, result = lose_power("--images", "50")
    assert (code, result["lost"], result["unbalanced"]) == (0, 0, 0), result["faults"]
    assert result["images"] == 50 and result["acknowledged"] > 50


@records_disks
def test_loss_of_power_is_seen_where_commits_are_not_synced() -> None:
    code, result = lose_power("--images", "25", "--auctions", "4", "--synchronous", "NORMAL")
    assert code == 1 and result["lost"] > 0
    assert result["unbalanced"] == 0  # what is there is whole


@pytest.mark.parametrize("seed", range(5))
def test_killed_ledger_keeps_what_it_acknowledged(place: Place, tmp_path: Path, seed: int) -> None:
    program = [sys.executable, HERE / "ledger_workload.py", place.url]
    most = random.Random(seed).randrange(10, 150)
    heard = []
    with subprocess.Popen(
        [*program, "--acknowledged", "/dev/stdout", "--seed", str(seed)], stdout=subprocess.PIPE
    ) as work:
        assert work.stdout is not None
        for line in work.stdout:
            heard.append(line)
            if len(heard) == most:
                work.kill()
    assert work.returncode < 0 and len(heard) >= most
    acknowledged = tmp_path / "acknowledged"
    acknowledged.write_bytes(b"".join(line for line in heard if line.endswith(b"\n")))
    checked = subprocess.run([*program, "--check", acknowledged], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr[-2000:]

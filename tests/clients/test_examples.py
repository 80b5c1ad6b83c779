"""The examples that need no server run and print what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_rewards_of_a_probe_choose_and_price() -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "examples/rewards.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    text, *agents = done.stdout.splitlines()
    assert "Hawaii" in text or "Resort" in text
    assert [line.split(":")[0] for line in agents] == ["alpha", "beta"]
    assert all(re.search(r"worth -?\d+\.\d\d nats, pays \d+\.\d\d micros", line) for line in agents)

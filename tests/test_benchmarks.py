"""Every benchmark runs and ends in one JSON line of the fields that others read. How fast anything is is not asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenauction.models.compiler import find_compiler

ROOT = Path(__file__).resolve().parent.parent
RUNNERS = ["packed"] if find_compiler() is None else ["packed", "cpp"]
pytestmark = pytest.mark.slow


def run(script: str, *options: str) -> tuple[str, Any]:
    """What a benchmark says to people, and its JSON."""
    command = [sys.executable, ROOT / "benchmarks" / script, *options]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    table, _, line = done.stdout.rstrip("\n").rpartition("\n")
    return table, json.loads(line)


def test_peers_compares_and_times_under_fixed_names(tmp_path: Path) -> None:
    names = ["transformers-batched", *(f"tokenauction-{r}-{n}" for r in RUNNERS for n in ("fp32", "bf16", "int8"))]
    plot = tmp_path / "peers.png"
    table, result = run("peers.py", "--shape", "tiny", "--quick", "--only", *names, "--plot", str(plot))
    assert result["floor_ms"] > 0
    assert [row["name"] for row in result["results"]] == names
    for row in result["results"]:
        assert 0 < row["ms_per_token_p10"] <= row["ms_per_token_median"]
        assert row["name"] in table
        if row["name"].endswith("fp32"):
            assert row["tokens_equal"] == 1.0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_peers_says_why_it_left_one_out() -> None:
    _, result = run("peers.py", "--shape", "tiny", "--quick", "--only", "transformers-batched", "llama.cpp-q8")
    [last] = [row for row in result["results"] if row["name"] == "llama.cpp-q8"]
    assert "ms_per_token_p10" in last or last["skipped"]


def test_decoder_measures_every_case(tmp_path: Path) -> None:
    plot = tmp_path / "decoder.png"
    _, result = run("decoder.py", "--shape", "tiny", "--quick", "--runner", *RUNNERS, "--plot", str(plot))
    cases = [(row["runner"], row["agents"], row["auctions"]) for row in result["results"]]
    assert cases == [(r, *case) for r in RUNNERS for case in ((1, 1), (3, 1), (8, 1), (3, 8))]
    for row in result["results"]:
        assert 0 < row["step_ms_p10"] <= row["step_ms_p50"] <= row["step_ms_p99"]
        assert 0 <= row["not_model"] < 1
        assert row["tokens_per_s"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_numerics_finds_float32_equal_to_itself() -> None:
    _, result = run("numerics.py", "--texts", "2")
    by_kind = {(row["runner"], row["numerics"]): row for row in result["results"]}
    assert by_kind["packed", "float32"]["same_text"] == 1.0
    assert 0 < by_kind["cpp" if "cpp" in RUNNERS else "packed", "int8"]["payment_off_mean"] < 0.01


def test_speculation_counts_and_times() -> None:
    _, result = run("speculation.py", "--texts", "3")
    assert all(1 <= row["tokens_per_step"] <= 1 + row["drafted"] for row in result["results"])


def test_server_measures_beside_plain_websockets() -> None:
    _, result = run("server.py", "--viewers", "1", "3", "--auctions", "2", "--each", "2", "--tokens", "16")
    named = [(row["server"], row["auctions"], row["viewers"]) for row in result["results"]]
    ours, plain = "tokenauction", "plain websockets"
    one = [(server, 1, num) for num in (1, 3) for server in (ours, plain)]
    assert named == [*one, (ours, 2, 4), (f"{ours}, one stuck", 2, 4), (plain, 1, 4), (f"{ours}, bids", 20, 60)]
    assert all(row["deliveries"] >= row["viewers"] and 0 < row["ms_p50"] <= row["ms_p99"] for row in result["results"])
    assert result["results"][5]["stuck_gone_after_s"] > 0 and result["results"][-1]["bids_per_s"] > 0


def test_mechanism_measures_both_ways() -> None:
    _, result = run("mechanism.py", "--seconds", "0.001", "--vocabularies", "4096")
    assert {row["vocabulary"] for row in result["results"]} == {4096}
    assert all(row["floor_ms"] > 0 for row in result["results"])


def test_gpu_runs_dry_where_there_is_none() -> None:
    table, result = run("gpu.py", "--dry-run")
    assert (result["benchmark"], result["dry_run"]) == ("gpu", True)
    rows = result["results"]["tiny"]
    assert [(row["name"], row["auctions"]) for row in rows] == [
        (name, number) for name in ("tokenauction", "transformers-batched") for number in (1, 3)
    ]
    for row in rows:
        assert 0 < row["ms_p50"] <= row["ms_p99"]
        assert row["name"] in table


def test_finalizer_chooses_the_same_text_both_ways(tmp_path: Path) -> None:
    plot = tmp_path / "finalizer.png"
    table, result = run("finalizer.py", "--quick", "--runner", RUNNERS[0], "--plot", str(plot))
    assert [row["candidates"] for row in result["results"]] == [1, 8]
    for row in result["results"]:
        assert min(row["one_text_ms"], row["together_ms"]) > 0 and row["scoring_one_by_one_ms"] < row["one_by_one_ms"]
    assert "times faster" in table
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.browser
def test_page_counts_frames_while_a_text_rushes_in() -> None:
    pytest.importorskip("playwright")
    if not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        pytest.skip("no Chromium is installed")
    _, result = run("page.py", "--tokens", "60")
    assert [row["tokens"] for row in result["results"]] == [60, 60]
    assert all(0 < row["frame_ms_p50"] <= row["frame_ms_p99"] <= row["frame_ms_max"] for row in result["results"])

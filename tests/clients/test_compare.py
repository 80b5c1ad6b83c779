"""`compare` puts one request under every mechanism into one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., Any]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "softmax.yaml"
MECHANISMS = ["softmax", "vcg", "best_of_m", "reference_only", "token_auction"]

pytestmark = pytest.mark.slow


def test_compare_gives_every_mechanism_its_row(cli: Cli) -> None:
    options = ("--seed", "4", "--num-candidates", "4", "--texts", "2", "--format", "json")
    answer = cli("compare", EXAMPLE, *options).json
    rows = {row["mechanism"]: row for row in answer["mechanisms"]}
    assert list(rows) == MECHANISMS
    for row in rows.values():
        assert [agent["id"] for agent in row["agents"]] == ["alpha", "beta"]
        assert row["welfare"] == pytest.approx(sum(agent["reward"] for agent in row["agents"]))
        assert row["revenue"] == pytest.approx(sum(agent["payment"] for agent in row["agents"]))
        assert all(a["utility"] == pytest.approx(a["reward"] - a["payment"]) for a in row["agents"])
    assert max(rows[name]["welfare"] for name in MECHANISMS[:4]) == rows["vcg"]["welfare"]
    assert rows["vcg"]["welfare"] == rows["best_of_m"]["welfare"] and rows["best_of_m"]["revenue"] == 0
    assert rows["reference_only"]["divergence"] == 0 < rows["softmax"]["divergence"]
    assert cli("compare", EXAMPLE, *options).json == answer


def test_compare_shows_the_table_and_says_what_it_left_out(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "no_bids.yaml"
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    spec.write_text("\n".join(line for line in lines if not line.strip().startswith("bid:")), encoding="utf-8")
    result = cli("compare", spec, "--seed", "4", "--num-candidates", "2")
    assert result.code == 0
    assert "reference_only" in result.out and "token_auction: left out" in result.out


def test_compare_takes_a_token_auctions_spec(cli: Cli, hawaii: Path) -> None:
    answer = cli("compare", hawaii, "--seed", "1", "--num-candidates", "2", "--texts", "1", "--format", "json").json
    assert [row["mechanism"] for row in answer["mechanisms"]] == MECHANISMS

"""`reproduce` runs both papers' experiments in small, goes on with what is done, and says what does not hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]

QUERIES = """
- id: trip
  relation: cooperating
  query: "Where to?"
  advertisers: [{name: Quorvane Air, offer: quiet flights}, {name: Hollin Strand, offer: cottages}]
- id: lunch
  relation: competing
  query: "Where do people eat?"
  advertisers: [{name: Old Brindle, offer: quiet lunches}, {name: Munchwell, offer: mild lunches}]
"""
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def queries(tmp_path: Path) -> Path:
    path = tmp_path / "queries.yaml"
    path.write_text(QUERIES)
    return path


def test_reproduce_runs_the_toy_world_and_writes_what_it_found(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = cli("reproduce", "--part", "toy", "--part", "slopes", "--quick", "--folder", folder)
    assert (result.code, result.err) == (0, "")
    results = json.loads((folder / "results.json").read_text())
    toy = results["worlds"]["toy"]
    assert (toy["num_queries"], toy["num_most"]) == (8, 20)
    assert results["slopes"]["small"]["slope"] == pytest.approx(0.5, abs=0.05)
    gaps = {name: {p["num_candidates"]: p["value"] for p in points} for name, points in results["convergence"].items()}
    assert gaps["context_aware"][4] > gaps["reference"][20]
    assert gaps["token_auction"][1] > gaps["context_aware"][20] - 0.05
    assert all(abs(found[4000]) < 0.1 for found in gaps.values())
    names = {path.name for path in folder.glob("*.png")}
    assert names == {f"papers_toy_{number}.png" for number in range(1, 6)} | {"papers_convergence.png"}
    assert all(path.read_bytes().startswith(PNG) for path in folder.glob("*.png"))
    for text in ("What the papers claim", "0.52", "toy: means over 8 queries"):
        assert text in result.out
        assert text in (folder / "report.md").read_text() or text == "What the papers claim"


def test_reproduce_goes_on_with_what_is_done(cli: Cli, tmp_path: Path) -> None:
    arguments = [
        "reproduce",
        "--part",
        "toy",
        "--quick",
        "--no-figures",
        "--format",
        "json",
        "--folder",
        tmp_path / "run",
    ]
    first = cli(*arguments).json
    log = tmp_path / "run" / "toy.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert cli(*arguments).json == first
    assert log.read_bytes() == whole
    assert not list((tmp_path / "run").glob("*.png"))


def test_reproduce_runs_a_model_and_the_sweep(cli: Cli, tmp_path: Path, queries: Path) -> None:
    arguments = ["--part", "model", "--part", "token_auction", "--quick", "--queries", queries, "--candidates", "4"]
    results = cli("reproduce", *arguments, "--format", "json", "--folder", tmp_path / "run").json
    world = results["worlds"]["model"]
    assert set(world["curves"]) == {"reference", "context_aware", "token_auction"}
    assert (world["num_queries"], world["num_most"], world["num_few"]) == (2, 4, 4)
    assert results["model"]["name"] == "tokenauction-default"
    assert set(results["sweep"]) == {"cooperating", "competing"}
    for rules in results["sweep"].values():
        for rows in rules.values():
            assert [row["weight"] for row in rows] == [0.0, 0.5, 1.0]
            for row in rows:
                shares = [row[name]["value"] for name in ("first_only", "both", "second_only", "none")]
                assert sum(shares) == pytest.approx(1)
    beats = world["comparisons"]["reward_gain_exact: few context_aware over most reference"]
    assert beats["low"] > 0
    again = cli("reproduce", *arguments, "--format", "json", "--folder", tmp_path / "run").json
    assert again == results
    refused = cli("reproduce", *arguments, "--seed", "3", "--folder", tmp_path / "run")
    assert refused.refusal[0] == "invalid_input" and "another run (seed: 0 there, 3 here)" in refused.refusal[1]


def test_reproduce_draws_the_same_candidates_in_every_run(cli: Cli, tmp_path: Path, queries: Path) -> None:
    arguments = ["reproduce", "--part", "model", "--queries", queries, "--candidates", "3", "--no-figures"]
    for name in ("a", "b"):
        assert cli(*arguments, "--folder", tmp_path / name).code == 0
    texts = [[line["proposals"]["reference"]["texts"] for line in read(tmp_path / name)] for name in ("a", "b")]
    assert texts[0] == texts[1]


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "model.jsonl").read_text().splitlines()[1:]]


def test_reproduce_runs_a_model_of_ones_own(cli: Cli, tmp_path: Path, queries: Path, tiny_checkpoint: Path) -> None:
    arguments = ["--part", "model", "--queries", queries, "--candidates", "2", "--model", tiny_checkpoint]
    results = cli("reproduce", *arguments, "--format", "json", "--no-figures", "--folder", tmp_path / "run").json
    assert results["model"]["name"] != "tokenauction-default"
    assert results["worlds"]["model"]["num_most"] == 2


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (["--part", "everything"], "usage", "everything"),
        (["--candidates", "1"], "usage", "candidates"),
        (["--candidates", "257"], "usage", "candidates"),
        (["--seed", "-1"], "usage", "seed"),
        (["--queries", "nowhere.yaml"], "invalid_spec", "cannot be read"),
        (["--part", "model", "--model", "nowhere/at/all"], "model_not_loadable", "nowhere/at/all"),
    ],
)
def test_reproduce_refuses_bad_arguments(cli: Cli, tmp_path: Path, options: list[str], code: str, says: str) -> None:
    refusal = cli("reproduce", "--folder", tmp_path / "run", *options).refusal
    assert refusal[0] == code and says in refusal[1]


def test_reproduce_refuses_folders_it_cannot_use(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for folder in (file, file / "below"):
        code, message = cli("reproduce", "--part", "slopes", "--folder", folder).refusal
        assert code == "invalid_input" and "--folder" in message
    assert file.read_text() == "x"


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("toy", '{"query": "market-00"}'),
        ("toy", '{"query": "market-00", "proposals": 3}'),
        ("token_auction", '{"query": "trip"}'),
        ("token_auction", '{"query": "trip", "relation": "competing", "rows": [{"rule": "linear"}]}'),
        ("token_auction", '{"query": "trip", "relation": "competing", "rows": 5}'),
    ],
)
def test_reproduce_refuses_lines_that_it_did_not_write(
    cli: Cli, tmp_path: Path, queries: Path, part: str, line: str
) -> None:
    arguments = ["reproduce", "--part", part, "--quick", "--no-figures", "--queries", queries, "--candidates", "2"]
    assert cli(*arguments, "--folder", tmp_path / "run").code == 0
    log = tmp_path / "run" / f"{part}.jsonl"
    first, second, *rest = log.read_text().splitlines()
    log.write_text("\n".join([first, line, *rest]) + "\n")
    code, message = cli(*arguments, "--folder", tmp_path / "run").refusal
    assert code == "invalid_input" and "remove" in message
    assert json.loads(second)["query"] in ("market-00", "trip")


def test_reproduce_refuses_a_single_query(cli: Cli, tmp_path: Path, queries: Path) -> None:
    queries.write_text(QUERIES[: QUERIES.index("- id: lunch")])
    code, message = cli("reproduce", "--part", "model", "--queries", queries, "--folder", tmp_path / "run").refusal
    assert code == "invalid_input" and "at least two" in message


def test_reproduce_does_without_matplotlib_unless_figures_are_asked_for(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    arguments = ["reproduce", "--part", "slopes", "--folder", tmp_path / "run"]
    done = cli(*arguments)
    assert done.code == 0 and "no figures: figures need matplotlib" in done.err
    code, message = cli(*arguments, "--figures").refusal
    assert code == "invalid_input" and "pip install 'tokenauction[plot]'" in message

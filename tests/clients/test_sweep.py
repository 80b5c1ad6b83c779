"""`sweep` moves weight from one advertiser to the other under both rules, and counts whom the texts name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]
WriteSpec = Callable[..., Path]

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def small(write_spec: WriteSpec, endless_checkpoint: Path) -> list[Any]:
    """The arguments of the smallest sweep there is, on random weights; `write_spec` may replace the spec."""
    return [write_spec(max_tokens=3), "--points", "2", "--seeds", "1", "--model", endless_checkpoint]


def test_sweep_prints_the_shares_of_every_weight_and_rule(cli: Cli, hawaii: Path, tiny_checkpoint: Path) -> None:
    options = ["--points", "3", "--seeds", "4", "--format", "json", "--model", str(tiny_checkpoint)]
    table = cli("sweep", hawaii, *options).json
    assert list(table) == ["linear", "log_linear"]
    for rows in table.values():
        assert [row["weight"] for row in rows] == [0.0, 0.5, 1.0]
        for row in rows:
            assert list(row) == ["weight", "first_only", "both", "second_only", "none", "examples"]
            shares = [row[name] for name in ("first_only", "both", "second_only", "none")]
            assert sum(shares) == pytest.approx(1)
            assert all(share * 4 == int(share * 4) for share in shares)
            assert len(row["examples"]) == 3
            assert all(isinstance(text, str) for text in row["examples"])


def test_sweep_counts_whom_its_texts_name(cli: Cli, hawaii: Path) -> None:
    """With no more seeds than examples, the shares can be counted from outside."""
    table = cli("sweep", hawaii, "--points", "2", "--seeds", "2", "--format", "json").json
    for rows in table.values():
        for row in rows:
            named = [("Alpha Airlines" in text, "Beta Resort" in text) for text in row["examples"]]
            assert row["both"] == named.count((True, True)) / 2
            assert row["first_only"] == named.count((True, False)) / 2
            assert row["second_only"] == named.count((False, True)) / 2


def test_sweep_writes_a_plot_and_a_table(cli: Cli, small: list[Any], tmp_path: Path) -> None:
    plot = tmp_path / "plot.image"  # it is a PNG whatever it is called
    result = cli("sweep", *small, "--plot", plot)
    assert (result.code, result.err) == (0, "")
    assert plot.read_bytes().startswith(PNG)
    for text in ("linear: share of 1 texts", "log_linear", "weight of Alpha Airlines", "only Beta Resort", "1.00"):
        assert text in result.out


def test_sweep_takes_any_names_into_its_table_and_plot(
    cli: Cli, small: list[Any], write_spec: WriteSpec, tmp_path: Path
) -> None:
    """A $ begins a formula, brackets are markup, and no font has every script; none of that is the user's concern."""
    agents = [{"name": name, "offer": "x", "bid": 1} for name in ("$a^$ [/b] :sea:", "_{航空} $ 🏝\\")]
    plot = tmp_path / "plot.png"
    write_spec(agents=agents, max_tokens=2)
    result = cli("sweep", *small, "--plot", plot)
    assert (result.code, result.err) == (0, "")
    assert "only $a^$ [/b] :sea:" in " ".join(result.out.split())
    assert plot.read_bytes().startswith(PNG)


def test_sweep_leaves_out_what_has_no_place_in_it(cli: Cli, small: list[Any], write_spec: WriteSpec) -> None:
    """Nothing gets in its way: reference, sampler, budgets, a one-sided bid of one micro, top-k under log_linear."""
    agents = [
        {"name": "Alpha Airlines", "offer": "flights", "bid": "0.000001", "budget": "0.000001"},
        {"name": "Beta Resort", "offer": "a beach", "bid": 0},
    ]
    write_spec(agents=agents, reference_weight=1, top_k=5, sampler="race", top_tokens=5, max_tokens=4)
    table = cli("sweep", *small, "--format", "json").json
    assert all(len(row["examples"]) == 1 for rows in table.values() for row in rows)


@pytest.mark.parametrize("name", ["one_advertiser", "three_and_reference"])
def test_sweep_refuses_other_than_two_agents(cli: Cli, name: str) -> None:
    code, message = cli("sweep", EXAMPLES / f"{name}.yaml").refusal
    assert (code, "between two agents; this spec has" in message) == ("invalid_spec", True)


@pytest.mark.parametrize(
    "options",
    [
        ["--points", "1"], ["--points", "0"], ["--points=-3"], ["--points", "102"], ["--points", "2.5"],
        ["--seeds", "0"], ["--seeds", "100001"], ["--seeds", "many"], ["--format", "xml"], ["--format", ""],
    ],
)  # fmt: skip
def test_sweep_leaves_bad_options_to_typer(cli: Cli, hawaii: Path, options: list[str]) -> None:
    name = options[0].partition("=")[0]
    assert name in cli("sweep", hawaii, *options).usage_error


def test_sweep_refuses_a_plot_that_cannot_be_written_before_it_begins(cli: Cli, hawaii: Path, tmp_path: Path) -> None:
    for place, fragment in (
        (tmp_path, "is a folder"),
        (tmp_path / "no" / "plot.png", "not a folder that exists"),
    ):
        code, message = cli("sweep", hawaii, "--plot", place, "--model", "./no-model").refusal
        assert (code, fragment in message) == ("invalid_input", True), message


def test_sweep_names_what_a_plot_needs(cli: Cli, hawaii: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, message = cli("sweep", hawaii, "--plot", tmp_path / "plot.png", "--model", "./no-model").refusal
    assert (code, "tokenauction[plot]" in message) == ("invalid_input", True)


def test_sweep_shows_its_table_before_a_plot_fails(cli: Cli, small: list[Any]) -> None:
    result = cli("sweep", *small, "--format", "json", "--plot", "/dev/full")
    assert result.code == 2
    assert set(json.loads(result.out)) == {"linear", "log_linear"}
    assert result.err.startswith("error (invalid_input): --plot: /dev/full cannot be written: No space left")


def test_sweep_stops_where_a_text_cannot_be_written(cli: Cli, write_spec: WriteSpec) -> None:
    """A share of texts that failed would look like a share of texts that name nobody."""
    code, message = cli("sweep", write_spec(max_tokens=2000), "--points", "2", "--seeds", "1").refusal
    assert (code, "shorten the prompt" in message) == ("prompt_too_long", True)


# --- The parts, without a model -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("Fly Alpha Airlines.", "first_only"),
        ("Beta Resort and Alpha Airlines.", "both"),
        ("Stay at Beta Resort.", "second_only"),
        ("Fly Alpha airlines to Beta  Resort.", "none"),
        ("", "none"),
    ],
)
def test_mention_wants_a_name_spelled_exactly(text: str, outcome: str) -> None:
    from tokenauction.clients.cli.sweep import mention

    assert mention(text, "Alpha Airlines", "Beta Resort") == outcome


def test_mention_shares_are_shares_of_all_texts() -> None:
    from tokenauction.clients.cli.sweep import mention_shares

    shares = mention_shares(["A", "A B", "A B", "", "B", "B", "B", "A B"], "A", "B")
    assert shares == {"first_only": 0.125, "both": 0.375, "second_only": 0.375, "none": 0.125}


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1 / 3, 1.0])
def test_at_weight_shares_out_all_weight(write_spec: WriteSpec, weight: float) -> None:
    from tokenauction.clients.cli.spec_file import load_spec
    from tokenauction.clients.cli.sweep import at_weight

    spec = at_weight(load_spec(write_spec(reference_weight=3)), "linear", weight, 5)
    first, second = (agent.bid_micros for agent in spec.agents)
    assert first / (first + second) == pytest.approx(weight, abs=1e-9)
    assert (spec.pricing, spec.seed, spec.has_reference) == ("free", 5, False)


def test_at_weight_truncates_log_linear_only_above_a_floor(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec
    from tokenauction.clients.cli.sweep import at_weight

    bare = load_spec(write_spec(top_k=5, top_p=0.9))
    assert (at_weight(bare, "linear", 0.5, 0).top_k, at_weight(bare, "linear", 0.5, 0).top_p) == (5, 0.9)
    assert (at_weight(bare, "log_linear", 0.5, 0).top_k, at_weight(bare, "log_linear", 0.5, 0).top_p) == (None, None)
    floored = load_spec(write_spec(top_k=5, floor=0.01))
    assert at_weight(floored, "log_linear", 0.5, 0).top_k == 5

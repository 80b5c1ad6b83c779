"""`run` shows a softmax auction: live, as text, and as events; its receipt holds with the model too."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tokenauction.clients.cli.candidates_view import CandidatesView
from tokenauction.engine.events import Event

Cli = Callable[..., Any]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "softmax.yaml"

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("proposal", ["reference", "token_auction"])
def test_run_writes_candidates_of_any_proposal_and_the_model_confirms_them(
    cli: Cli, tmp_path: Path, proposal: str
) -> None:
    receipt = tmp_path / "receipt.jsonl"
    options = (
        "--seed",
        "5",
        "--proposal",
        proposal,
        "--num-candidates",
        "3",
        "--format",
        "jsonl",
        "--receipt",
        receipt,
    )
    events = cli("run", EXAMPLE, *options).events
    assert [event["index"] for event in events if event["type"] == "candidate.completed"] == [0, 1, 2]
    verdict = cli("verify", receipt, "--model", "default")
    assert (verdict.code, "holds: 3 candidates, checked at the level of model" in verdict.out) == (0, True), verdict


def test_run_takes_mechanism_and_tau_over_the_file(cli: Cli, hawaii: Path) -> None:
    options = ("--mechanism", "softmax", "--tau", "0.5", "--num-candidates", "2", "--format", "jsonl", "--seed", "3")
    events = cli("run", hawaii, *options).events
    spec = events[0]["spec"]
    assert (spec["mechanism"], spec["tau"], spec["num_candidates"]) == ("softmax", "0.5", 2)
    assert not any("text" in event for event in events if event["type"] == "candidate.completed")


def test_run_shows_the_candidates_and_the_bill(cli: Cli) -> None:
    result = cli("run", EXAMPLE, "--seed", "4")
    assert result.code == 0
    assert "softmax · context_aware · 8 candidates" in result.out
    assert "▶" in result.out and "Bill" in result.out and "effective sample size" in result.out


def test_run_prints_the_chosen_text_and_what_it_costs(cli: Cli) -> None:
    events = cli("run", EXAMPLE, "--seed", "4", "--format", "jsonl").events
    result = cli("run", EXAMPLE, "--seed", "4", "--format", "text")
    assert result.out == events[-1]["text"] + "\n"
    assert result.err.splitlines() == [f"{agent['id']}: {agent['total']} USD" for agent in events[-1]["agents"]]


def test_demo_shows_the_softmax_auction(cli: Cli) -> None:
    result = cli("demo", "--softmax", "--seed", "2")
    assert result.code == 0 and "softmax · context_aware" in result.out


def test_run_stores_no_distributions_of_candidates(cli: Cli) -> None:
    code, message = cli("run", EXAMPLE, "--store-distributions").refusal
    assert code == "invalid_input" and "token auctions" in message


def test_run_refuses_what_is_unsafe(cli: Cli, tmp_path: Path) -> None:
    spec = tmp_path / "unsafe.yaml"
    text = EXAMPLE.read_text(encoding="utf-8").replace("context_aware", "token_auction")
    spec.write_text(f"{text}\nproposal_weights: values\n", encoding="utf-8")
    code, message = cli("run", spec).refusal
    assert code == "unsafe_combination" and "allow_unsafe" in message
    assert "UNSAFE" in cli("run", spec, "--allow-unsafe", "--num-candidates", "1").out


def test_view_survives_what_a_stranger_writes(cli: Cli) -> None:
    """Names and texts with markup and control characters are shown as they are, or not at all."""
    console = Console(record=True, width=100, markup=False, emoji=False, highlight=False)
    view = CandidatesView(console)
    events = cli("run", EXAMPLE, "--seed", "4", "--format", "jsonl").events
    for mapping in events:
        fields = json.loads(json.dumps(mapping).replace("Alpha Airlines", "[red]\\u001b[31mAl:smile:pha"))
        view.show(Event(mapping["type"], "a", mapping["seq"], "e", 0.0, fields))
    view.close()
    shown = console.export_text()
    assert "[red]" in shown and "\x1b" not in shown and ":smile:" in shown

"""`run` and `demo`: the same seed gives the same auction, and nobody pays more than was bid.

What the shipped checkpoint writes is not asserted anywhere here: another one may be shipped tomorrow. What needs a text
of a certain length is asserted of random weights that know no end.
"""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]
WriteSpec = Callable[..., Path]
Event = dict[str, Any]

MAY_DIFFER = ("event_id", "auction_id", "time", "latency_ms")
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


def content(events: Sequence[Event]) -> list[Event]:
    """The events without what may differ between two runs of one seed."""
    return [{name: value for name, value in event.items() if name not in MAY_DIFFER} for event in events]


def tokens(events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event["type"] == "auction.token"]


def assert_nobody_pays_more_than_was_bid(events: Sequence[Event]) -> None:
    for event in tokens(events):
        for agent in event["agents"]:
            assert 0 <= agent["exact_payment_micros"] <= agent["bid_micros"]
            assert 0 <= agent["payment_micros"] <= agent["bid_micros"]
            assert isinstance(agent["payment_micros"], int)


@pytest.fixture(params=["recorded", "written"])
def a_run(request: pytest.FixtureRequest) -> Any:
    """What `run` printed and left, of the shipped checkpoint and of random weights."""
    return request.getfixturevalue(request.param)


# --- The formats of docs/protocol.md --------------------------------------------------------------------------------


def test_run_repeats_a_seed_in_another_process(cli: Cli, hawaii: Path, recorded: Any) -> None:
    again = cli("run", hawaii, "--seed", "7", "--format", "jsonl").events
    assert content(again) == content(recorded.events)
    assert {event["auction_id"] for event in again} != {event["auction_id"] for event in recorded.events}


def test_run_writes_another_text_for_another_seed(
    cli: Cli, hawaii: Path, written: Any, endless_checkpoint: Path
) -> None:
    options = ["--model", str(endless_checkpoint), "--max-tokens", "16", "--format", "jsonl"]
    same, other = (cli("run", hawaii, "--seed", seed, *options).events for seed in ("7", "8"))
    assert content(same) == content(written.events)
    assert [e["token_id"] for e in tokens(other)] != [e["token_id"] for e in tokens(written.events)]


def test_run_tells_of_an_auction_in_dense_events_of_one_envelope(a_run: Any) -> None:
    events = a_run.events
    assert [event["type"] for event in events] == [
        "auction.created",
        *["auction.token"] * (len(events) - 2),
        "auction.settled",
    ]
    assert [event["seq"] for event in events] == list(range(len(events)))
    assert [event["step"] for event in tokens(events)] == list(range(len(events) - 2))
    assert len({event["event_id"] for event in events}) == len(events)
    assert len({event["auction_id"] for event in events}) == 1
    assert [event["time"] for event in events] == sorted(event["time"] for event in events)


def test_run_tells_what_the_protocol_says(a_run: Any) -> None:
    created, token, settled = a_run.events[0], a_run.events[1], a_run.events[-1]
    envelope = {"type", "event_id", "auction_id", "seq", "time"}
    assert set(created) == envelope | {
        "spec", "rows", "guarantee", "limits", "commitment", "seed_source", "model", "numerics", "runner",
        "clearing", "tokenizer_hash", "prompt_hashes",
    }  # fmt: skip
    assert set(token) == envelope | {
        "step", "token_id", "text", "probability", "agents", "key", "receipt_head", "latency_ms"
    }  # fmt: skip
    assert set(token["agents"][0]) == {
        "id", "status", "bid_micros", "effective_bid_micros", "probability", "probability_without", "influence", "tv",
        "exact_critical_bid_micros", "exact_payment_micros", "payment_micros", "total_micros", "clipped",
        "counterfactual_token_id", "counterfactual_text",
    }  # fmt: skip
    assert set(settled) == envelope | {
        "finish_reason", "posted", "num_tokens", "text", "voids", "currency", "agents", "total_micros", "total", "seed",
        "nonce", "receipt_head",
    }  # fmt: skip
    assert (created["seed_source"], created["spec"]["seed"]) == ("caller", None)
    assert created["rows"] == ["alpha", "beta"]
    assert settled["seed"] == f"{7:064x}"


def test_run_charges_nobody_more_than_was_bid(a_run: Any) -> None:
    assert_nobody_pays_more_than_was_bid(a_run.events)


def test_run_charges_somebody(written: Any) -> None:
    assert any(agent["payment_micros"] for event in tokens(written.events) for agent in event["agents"])


def test_run_adds_up(a_run: Any) -> None:
    steps, settled = tokens(a_run.events), a_run.events[-1]
    assert settled["num_tokens"] == len(steps)
    assert settled["text"].startswith("".join(step["text"] for step in steps))
    for row, agent in enumerate(settled["agents"]):
        assert agent["total_micros"] == sum(step["agents"][row]["payment_micros"] for step in steps)
        exact = math.fsum(step["agents"][row]["exact_payment_micros"] for step in steps)
        assert agent["exact_total_micros"] == pytest.approx(exact)
        assert 0 <= exact - agent["total_micros"] < 1 + 1e-6
    assert settled["total_micros"] == sum(agent["total_micros"] for agent in settled["agents"])
    for step in steps:
        assert sum(agent["influence"] for agent in step["agents"]) == pytest.approx(1)


def test_run_writes_a_receipt_of_the_events(a_run: Any) -> None:
    lines = [json.loads(line) for line in a_run.receipt.read_text(encoding="utf-8").splitlines()]
    assert [line["kind"] for line in lines] == ["auction", *["step"] * (len(lines) - 2), "settlement"]
    assert [line["hash"] for line in lines[1:]] == [event["receipt_head"] for event in a_run.events[1:]]
    assert [line["token"] for line in lines[1:-1]] == [event["token_id"] for event in tokens(a_run.events)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs_settles_and_verifies(cli: Cli, example: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    events = cli("run", example, "--seed", "1", "--format", "jsonl", "--receipt", receipt).events
    settled = events[-1]
    assert (settled["type"], settled["posted"]) == ("auction.settled", True)
    assert_nobody_pays_more_than_was_bid(events)
    verdict = cli("verify", receipt)
    assert (verdict.code, verdict.err) == (0, "")
    lines = [json.loads(line) for line in receipt.read_text(encoding="utf-8").splitlines()]
    counted = [line["kind"] for line in lines if line["kind"] in ("step", "candidate")]
    assert f"holds: {len(counted)} {counted[0]}s" in verdict.out
    assert counted[0] == "candidate" or len(counted) == settled["num_tokens"]
    assert f"total {settled['total']} USD; head {settled['receipt_head']}" in verdict.out


def test_examples_cover_what_the_readme_names() -> None:
    assert {path.stem for path in EXAMPLES} >= {
        "hawaii",
        "two_resorts",
        "three_and_reference",
        "one_advertiser",
        "softmax",
    }


# --- Options --------------------------------------------------------------------------------------------------------

OVERRIDES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "race": (["--sampler", "race"], {"sampler": "race"}),
    "log_linear": (["--rule", "log_linear", "--pricing", "expected"], {"rule": "log_linear", "pricing": "expected"}),
    "kl_clarke": (["--pricing", "kl_clarke", "--temperature", "0.5"], {"pricing": "kl_clarke", "temperature": 0.5}),
    "first_price": (["--pricing", "first_price", "--top-k", "20"], {"pricing": "first_price", "top_k": 20}),
    "free": (["--pricing", "free", "--top-p", "0.9"], {"pricing": "free", "top_p": 0.9}),
    "reference": (["--reference-weight", "0.001"], {"reference_weight": "0.001"}),
    "sentences": (["--max-sentences", "9"], {"max_sentences": 9}),
    "unsafe": (
        ["--rule", "log_linear", "--sampler", "race", "--pricing", "free", "--allow-unsafe"],
        {"rule": "log_linear", "sampler": "race", "pricing": "free", "allow_unsafe": True},
    ),
}


@pytest.mark.parametrize("case", OVERRIDES)
def test_run_takes_options_over_the_file(
    cli: Cli, hawaii: Path, tmp_path: Path, endless_checkpoint: Path, case: str
) -> None:
    options, fields = OVERRIDES[case]
    receipt = tmp_path / "receipt.jsonl"
    base = ["--model", str(endless_checkpoint), "--seed", "3", "--max-tokens", "6", "--format", "jsonl"]
    events = cli("run", hawaii, "--receipt", receipt, *base, *options).events
    spec = events[0]["spec"]
    assert {name: spec[name] for name in fields} == fields
    assert spec["max_tokens"] == len(tokens(events)) == 6
    assert events[0]["guarantee"]["safe"] is (case != "unsafe")
    if spec["pricing"] != "kl_clarke":
        assert_nobody_pays_more_than_was_bid(events)
    assert cli("verify", receipt).code == 0


def test_run_takes_bids_over_the_file(cli: Cli, hawaii: Path) -> None:
    options = ["--bid", "alpha=0.004", "--bid", "beta=0", "--max-tokens", "3", "--seed", "1"]
    events = cli("run", hawaii, "--format", "jsonl", *options).events
    for event in tokens(events):
        alpha, beta = event["agents"]
        assert (alpha["bid_micros"], alpha["status"]) == (4000, "bid")
        assert (beta["bid_micros"], beta["status"], beta["influence"]) == (0, "no_bid", 0)
        assert alpha["payment_micros"] == beta["payment_micros"] == 0


def test_run_shows_the_likeliest_tokens_on_request(cli: Cli, hawaii: Path) -> None:
    events = cli("run", hawaii, "--format", "jsonl", "--seed", "1", "--max-tokens", "2", "--top-tokens", "3").events
    for event in tokens(events):
        top = event["top_tokens"]
        assert set(top["agents"]) == {"alpha", "beta"}
        for table in (top["aggregate"], *top["agents"].values()):
            probabilities = [entry["probability"] for entry in table]
            assert len(table) == 3
            assert probabilities == sorted(probabilities, reverse=True)
            assert set(table[0]) == {"id", "text", "probability"}


def test_run_draws_a_seed_where_none_is_given(cli: Cli, hawaii: Path) -> None:
    runs = [cli("run", hawaii, "--format", "jsonl", "--max-tokens", "2").events for _ in range(2)]
    assert {events[0]["seed_source"] for events in runs} == {"drawn"}
    assert len({events[-1]["seed"] for events in runs}) == 2


def test_run_takes_the_largest_seed(cli: Cli, hawaii: Path) -> None:
    events = cli("run", hawaii, "--format", "jsonl", "--max-tokens", "2", "--seed", str(2**256 - 1)).events
    assert events[-1]["seed"] == "f" * 64


def test_run_stores_distributions_on_request(cli: Cli, hawaii: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    options = ["--seed", "2", "--max-tokens", "3", "--store-distributions", "--receipt", receipt]
    assert cli("run", hawaii, "--format", "jsonl", *options).code == 0
    assert "checked at the level of distributions" in cli("verify", receipt).out


def test_run_stops_when_the_budgets_are_spent(
    cli: Cli, write_spec: WriteSpec, tmp_path: Path, endless_checkpoint: Path
) -> None:
    agents = [{"id": i, "name": i, "offer": "an offer", "bid": 1, "budget": "0.5"} for i in ("alpha", "beta")]
    receipt = tmp_path / "receipt.jsonl"
    path = write_spec(agents=agents, pricing="first_price", max_tokens=20)
    options = ["--model", str(endless_checkpoint), "--format", "jsonl", "--receipt", str(receipt)]
    events = cli("run", path, *options).events
    assert events[-1]["finish_reason"] == "budget_spent"
    assert [agent["total"] for agent in events[-1]["agents"]] == ["0.5", "0.5"]
    assert cli("verify", receipt).code == 0


def test_run_keeps_banned_words_out(cli: Cli, write_spec: WriteSpec) -> None:
    free = cli("run", write_spec(max_tokens=24), "--format", "jsonl").events[-1]["text"]
    words = [*re.findall(r"[a-z]{4,}", free), "Hawaii", "Grüße", "航空"]
    text = cli("run", write_spec(banned_words=words, max_tokens=24), "--format", "jsonl").events[-1]["text"]
    assert not set(words) & set(re.findall(r"\w+", text))


# --- What people see ------------------------------------------------------------------------------------------------


def test_run_prints_the_text_alone_and_the_bill_beside_it(cli: Cli, hawaii: Path, recorded: Any) -> None:
    result = cli("run", hawaii, "--seed", "7", "--format", "text")
    settled = recorded.events[-1]
    assert (result.code, result.out) == (0, settled["text"] + "\n")
    assert result.err == "".join(f"{agent['id']}: {agent['total']} USD\n" for agent in settled["agents"])


def test_run_shows_text_and_bill_without_a_terminal(cli: Cli, hawaii: Path, recorded: Any, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    result = cli("run", hawaii, "--seed", "7", "--receipt", receipt)
    assert (result.code, result.err) == (0, "")
    assert "\x1b" not in result.out
    shown = " ".join(result.out.replace("│", " ").split())
    settled = recorded.events[-1]
    for expected in (
        "Vacations in Hawaii",
        " ".join(settled["text"].split()),
        "Alpha Airlines",
        "Beta Resort",
        f"{settled['num_tokens']} tokens, finished by {settled['finish_reason']}",
        settled["receipt_head"][:16],
        *(f"{agent['total_micros'] / 1e6:.6f}" for agent in settled["agents"]),
        "tokenauction verify",
    ):
        assert expected in shown
    assert receipt.read_bytes() == recorded.receipt.read_bytes()


def test_run_shows_names_as_they_are_written(cli: Cli, write_spec: WriteSpec) -> None:
    """Brackets and colons are no markup, and every script is welcome."""
    names = ["[red]Alpha[/red]", "Bäta [/b] :airplane: 航空 🏝"]
    agents = [{"id": f"[{i}]", "name": name, "offer": "[bold]", "bid": 1} for i, name in enumerate(names)]
    path = write_spec(query="Deals [/] [link=x] :smile: at sea\\", agents=agents, max_tokens=2)
    result = cli("run", path)
    assert (result.code, result.err) == (0, "")
    for text in (*names, "Deals [/] [link=x] :smile: at sea\\"):
        assert text in result.out


@pytest.mark.parametrize("view", ["rich", "text"])
def test_run_refuses_a_prompt_that_does_not_fit(cli: Cli, hawaii: Path, view: str) -> None:
    code, message = cli("run", hawaii, "--max-tokens", "100000", "--format", view).refusal
    assert code == "prompt_too_long"
    assert "shorten the prompt" in message


def test_run_tells_programs_of_a_prompt_that_does_not_fit_in_an_event_too(cli: Cli, hawaii: Path) -> None:
    result = cli("run", hawaii, "--max-tokens", "100000", "--format", "jsonl")
    assert result.code == 2
    assert result.err.startswith("error (prompt_too_long): ")
    events = [json.loads(line) for line in result.out.splitlines()]
    assert [event["type"] for event in events] == ["auction.created", "error"]
    assert events[-1]["code"] == "prompt_too_long"


@pytest.mark.slow
def test_run_settles_and_writes_the_receipt_when_it_is_interrupted(
    start: Any, cli: Cli, hawaii: Path, endless_checkpoint: Path, tmp_path: Path
) -> None:
    receipt = tmp_path / "receipt.jsonl"
    options = ("--model", endless_checkpoint, "--max-tokens", "4000", "--format", "jsonl", "--receipt", receipt)
    process = start("run", hawaii, *options)
    for _ in range(5):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
    verdict = cli("verify", receipt)
    assert (verdict.code, "finished by cancelled, posted" in verdict.out) == (0, True)


# --- Receipts that cannot be written, found before the model is loaded ----------------------------------------------


def test_run_refuses_a_receipt_that_cannot_be_written(cli: Cli, hawaii: Path, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for place, fragment in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing" / "receipt.jsonl", "not a folder that exists"),
        (file / "receipt.jsonl", "not a folder that exists"),
        ("", "is a folder"),
    ):
        code, message = cli("run", hawaii, "--receipt", place, "--model", "./no-model").refusal
        assert (code, fragment in message) == ("invalid_input", True), message


def test_run_refuses_a_receipt_without_the_right_to_write_it(
    cli: Cli, hawaii: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: mode != os.W_OK)  # whoever runs this test may have every right
    _, message = cli("run", hawaii, "--receipt", tmp_path / "receipt.jsonl", "--model", "./no-model").refusal
    assert "cannot be written; choose another place" in message


def test_run_says_so_when_the_receipts_disk_is_full(cli: Cli, hawaii: Path) -> None:
    result = cli("run", hawaii, "--receipt", "/dev/full", "--max-tokens", "2", "--format", "jsonl")
    assert result.code == 2
    assert result.err == "error (invalid_input): --receipt: /dev/full cannot be written: No space left on device\n"


def test_run_refuses_a_receipt_with_an_endless_name(cli: Cli, hawaii: Path, tmp_path: Path) -> None:
    code, message = cli("run", hawaii, "--receipt", tmp_path / ("x" * 300), "--model", "./no-model").refusal
    assert (code, "File name too long" in message) == ("os_error", True)


# --- The demo -------------------------------------------------------------------------------------------------------


def test_demo_ends_with_a_settled_auction(cli: Cli, recorded: Any) -> None:
    result = cli("demo", "--seed", "7")
    assert (result.code, result.err) == (0, "")
    assert recorded.events[-1]["receipt_head"][:16] in result.out, "the demo is the Hawaii example"
    assert "Bill" in cli("demo").out
    assert "Bill" in result.out


def test_demo_takes_a_seed_and_leaves_a_receipt(cli: Cli, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    assert cli("demo", "--seed", "12", "--receipt", receipt, "--pace", "0").code == 0
    assert cli("verify", receipt).code == 0


def test_demo_refuses_what_is_no_seed_and_no_pace(cli: Cli, tmp_path: Path) -> None:
    assert cli("demo", "--seed", str(2**256)).refusal[0] == "invalid_spec"
    assert cli("demo", "--seed=-1").refusal[0] == "invalid_spec"
    for pace in ("-1", "nan", "inf", "1e9", "slow"):
        assert "--pace" in cli("demo", f"--pace={pace}").usage_error
    assert "--seed" in cli("demo", "--seed", "seven").usage_error
    assert "is a folder" in cli("demo", "--receipt", tmp_path).refusal[1]

"""`verify` says whether a receipt holds, how deep it looked, and which step does not hold."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]
Line = dict[str, Any]


@pytest.fixture
def lines(written: Any) -> list[Line]:
    """A receipt that holds, read."""
    return [json.loads(row) for row in written.receipt.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def verify(cli: Cli, tmp_path: Path) -> Callable[..., Any]:
    """`verify(lines)`: the command's result on a receipt of these lines (or of this text)."""

    def run(content: list[Line] | str | bytes, *options: str) -> Any:
        path = tmp_path / "receipt.jsonl"
        if isinstance(content, list):
            content = "".join(json.dumps(line) + "\n" for line in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return cli("verify", path, *options)

    return run


Verify = Callable[..., Any]


def rehashed(lines: list[Line]) -> list[Line]:
    """The receipt as a forger leaves it who knows how the chain is made."""
    from tokenauction.engine.receipt import content_hash

    for number, line in enumerate(lines):
        if number:
            line["previous"] = lines[number - 1]["hash"]
        line["hash"] = content_hash(line)
    return lines


def test_verify_holds_for_what_run_wrote(cli: Cli, written: Any, lines: list[Line]) -> None:
    result = cli("verify", written.receipt)
    assert (result.code, result.err) == (0, "")
    first, ended, second = result.out.splitlines()
    assert ended == f"finished by {written.events[-1]['finish_reason']}, posted"
    assert first == f"{written.receipt}: holds: {len(lines) - 2} steps, checked at the level of arithmetic"
    assert second == f"total {written.events[-1]['total']} USD; head {lines[-1]['hash']}"


def flip(row: str, place: int) -> str:
    """The row with its digit at `place` turned into another one."""
    return row[:place] + str((int(row[place]) + 1) % 10) + row[place + 1 :]


@pytest.mark.parametrize(
    "field", ["q", "cdf_below", "p", "r", "critical_bids", "owed", "payments", "charges", "effective", "bids", "token"]
)
def test_verify_names_the_step_of_a_flipped_digit(verify: Verify, lines: list[Line], field: str) -> None:
    paid = next(line for line in lines[1:-1] if any(line["charges"]))
    rows = [json.dumps(line) for line in lines]
    place = re.search(rf'"{field}": [\[\d., ]*?([1-9])', json.dumps(paid))
    assert place is not None
    rows[paid["step"] + 1] = flip(json.dumps(paid), place.start(1))
    result = verify("\n".join(rows) + "\n")
    assert (result.code, result.err) == (1, "")
    assert result.out.count("\n") == 1
    assert f"does not hold at step {paid['step']}: its hash is not that of its content" in result.out


@pytest.mark.parametrize("name", ["spec", "commitment", "prompt_hashes", "hash"])
def test_verify_names_the_auction_line(verify: Verify, lines: list[Line], name: str) -> None:
    lines[0][name] = {"spec": {}, "prompt_hashes": []}.get(name, "0" * 64)
    result = verify(lines)
    assert (result.code, "does not hold at auction" in result.out) == (1, True)


@pytest.mark.parametrize(("name", "value"), [("totals_micros", [0, 0]), ("seed", "0" * 64), ("text", "Buy now.")])
def test_verify_sees_a_settlement_that_was_rewritten_with_its_chain(
    verify: Verify, lines: list[Line], name: str, value: Any
) -> None:
    lines[-1][name] = value
    result = verify(rehashed(lines))
    assert (result.code, "does not hold at" in result.out) == (1, True)


def test_verify_names_the_step_of_a_payment_that_was_rewritten_with_its_chain(
    verify: Verify, lines: list[Line]
) -> None:
    paid = next(line for line in lines[1:-1] if any(line["critical_bids"]))
    row = max((0, 1), key=lambda i: paid["critical_bids"][i])
    paid["critical_bids"][row] *= 0.5
    result = verify(rehashed(lines))
    assert (result.code, f"does not hold at step {paid['step']}: critical bid of" in result.out) == (1, True)


def test_verify_sees_a_lost_a_doubled_and_a_missing_last_line(verify: Verify, lines: list[Line]) -> None:
    for changed, where in (
        (lines[:3] + lines[4:], "step 2"),
        (lines[:3] + lines[2:], "step 2"),
        (lines[:-1], "settlement"),
        (lines[1:], "auction"),
        (lines[::-1], "auction"),
    ):
        result = verify(changed)
        assert (result.code, f"does not hold at {where}" in result.out) == (1, True), result.out


def test_verify_holds_a_receipt_against_the_published_head(verify: Verify, lines: list[Line]) -> None:
    head = lines[-1]["hash"]
    assert verify(lines, "--head", head).code == 0
    assert verify(lines, "--head", f" {head.upper()}\n").code == 0
    for other in ("0" * 64, "", "head"):
        result = verify(lines, "--head", other)
        assert (result.code, "head is not the published one" in result.out) == (1, True)


NOT_A_RECEIPT: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "empty"),
    "blank lines": ("\n\n", "empty"),
    "words": ("hello\n", "line 1 is not JSON"),
    "a number": ("7\n", "line 1 is not a line of a receipt"),
    "another kind": ('{"kind": "bill"}\n', "line 1 is not a line of a receipt"),
    "a kind that is a list": ('{"kind": []}\n', "line 1 is not a line of a receipt"),
    "events": ('{"type": "auction.created"}\n', "line 1 is not a line of a receipt"),
    "binary": (b"\x89PNG\x00\xff", "not UTF-8"),
    "deep nesting": ("[" * 100_000, "line 1 is not JSON"),
    "an endless number": ('{"kind": "auction", "seed": ' + "9" * 10_000 + "}", "line 1 is not JSON"),
    "infinity": ('{"kind": "auction", "q": Infinity}', "line 1 is not JSON"),
    "nan": ('{"kind": "auction", "q": NaN}', "line 1 is not JSON"),
}


@pytest.mark.parametrize("case", NOT_A_RECEIPT)
def test_verify_refuses_what_is_no_receipt(verify: Verify, case: str) -> None:
    content, fragment = NOT_A_RECEIPT[case]
    code, message = verify(content).refusal
    assert (code, fragment in message) == ("receipt_error", True), message


def test_verify_refuses_a_place_without_a_receipt(cli: Cli, tmp_path: Path) -> None:
    for place, fragment in (
        (tmp_path / "missing.jsonl", "No such file"),
        (tmp_path, "Is a directory"),
        ("x" * 300, "cannot be read"),
    ):
        code, message = cli("verify", place).refusal
        assert (code, fragment in message) == ("receipt_error", True), message


JUNK: list[Any] = [
    None, True, -1, 1.5, "x", "\ud800", [], {}, [[]], 10**400, 10**4000, "\x1b[31m\nred", [None] * 3,
    json.loads("[" * 500 + "]" * 500),
]  # fmt: skip


@pytest.mark.parametrize("junk", JUNK, ids=range(len(JUNK)))
@pytest.mark.parametrize("is_rehashed", [False, True])
def test_verify_calls_junk_what_it_is_in_one_line(
    verify: Verify, lines: list[Line], junk: Any, is_rehashed: bool
) -> None:
    """One field of each kind of line, in turn, holds something else: never a traceback, and never a receipt."""
    from tokenauction.clients.cli.output import one_line
    from tokenauction.engine.verification import verify as check

    for place in (0, 3, -1):
        for name in lines[place]:
            if name in ("kind", "hash", "previous") or lines[place][name] == junk:
                continue
            forged = [dict(line) for line in lines]
            forged[place][name] = junk
            if is_rehashed and "\\ud800" not in json.dumps(junk):
                forged = rehashed(forged)
            verdict = check(forged)
            assert not verdict.holds, (place, name)
            assert one_line(verdict).isprintable()
    forged[-1]["text"] = junk
    assert verify(forged).out.count("\n") == 1


def test_verify_prints_no_escape_that_a_receipt_holds(verify: Verify, lines: list[Line]) -> None:
    lines[3]["step"] = "\x1b]0;pwned\x07\x1b[2J\nline"
    result = verify(lines)
    assert result.code == 1
    assert result.out.count("\n") == 1
    assert result.out.rstrip("\n").isprintable()


def test_verify_runs_the_model_again(cli: Cli, written: Any, endless_checkpoint: Path) -> None:
    result = cli("verify", written.receipt, "--model", endless_checkpoint)
    assert (result.code, "checked at the level of model" in result.out) == (0, True)


def test_verify_names_the_step_where_a_model_parts(verify: Verify, lines: list[Line], endless_checkpoint: Path) -> None:
    """Probabilities that agree with each other and not with the model: only running it again shows that."""
    step = lines[5]
    for name in ("p", "r"):
        step[name] = [0.5 * x + 0.5 * step["q"] for x in step[name]]
    step["critical_bids"] = step["owed"] = step["payments"] = [0.0, 0.0]
    result = verify(rehashed(lines), "--model", str(endless_checkpoint))
    assert (result.code, "does not hold at step 4" in result.out) == (1, True)


def test_verify_runs_the_shipped_model_again(cli: Cli, recorded: Any) -> None:
    result = cli("verify", recorded.receipt, "--model", "default")
    assert (result.code, "checked at the level of model" in result.out) == (0, True)


def test_verify_clears_an_unsafe_race_again_from_its_distributions(cli: Cli, hawaii: Path, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    mechanism = ["--rule", "log_linear", "--sampler", "race", "--pricing", "first_price", "--allow-unsafe"]
    options = ["--max-tokens", "3", "--seed", "1", "--store-distributions", "--receipt", str(receipt)]
    assert cli("run", hawaii, "--format", "jsonl", *mechanism, *options).code == 0
    assert "checked at the level of distributions" in cli("verify", receipt).out

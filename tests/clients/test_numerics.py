"""Who computes and in which numbers: chosen by option or by the environment, on the receipt, and verified."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenauction.models.compiler import find_compiler, load_library

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")
RUNNERS = [pytest.param("cpp", marks=needs_compiler), "packed", "transformers"]


def run(cli: Cli, receipt: Path, *options: str) -> dict[str, Any]:
    """The first line of the receipt of the Hawaii example."""
    result = cli("run", "examples/hawaii.yaml", "--seed", "3", "--format", "jsonl", "--receipt", receipt, *options)
    assert (result.code, result.err) == (0, ""), result
    header: dict[str, Any] = json.loads(receipt.read_text().splitlines()[0])
    return header


@pytest.mark.parametrize("runner", RUNNERS)
@pytest.mark.parametrize("numerics", ["float32", "bf16", "int8"])
def test_receipt_says_who_computed_and_in_which_numbers_and_holds_for_every_runner(
    runner: str, numerics: str, cli: Cli, tmp_path: Path
) -> None:
    if (runner, numerics) == ("transformers", "int8"):
        pytest.skip("transformers has no such weights")
    receipt = tmp_path / "receipt.jsonl"
    header = run(cli, receipt, "--runner", runner, "--numerics", numerics)
    assert (header["runner"], header["numerics"]) == (runner, numerics)
    others = ["packed"] if find_compiler() is None else ["cpp", "packed"]
    for other in others if numerics == "float32" else ["auto"]:
        result = cli("verify", receipt, "--model", "default", "--runner", other, "--numerics", numerics)
        assert result.code == 0, result
        assert f"({numerics})" in result.out


def test_receipt_of_rounded_numbers_is_compared_on_its_own_runner_only(cli: Cli, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    run(cli, receipt, "--runner", "packed", "--numerics", "bf16")
    verify = ("verify", receipt, "--model", "default", "--numerics", "bf16")
    result = cli(*verify, "--runner", "transformers")
    assert result.code == 1
    assert "in bf16 by the runner 'packed', which rounds otherwise than 'transformers'; load" in result.out
    assert cli(*verify).code == 0


def test_receipt_does_not_choose_the_numerics_it_is_compared_in(cli: Cli, tmp_path: Path) -> None:
    receipt = tmp_path / "receipt.jsonl"
    run(cli, receipt, "--numerics", "bf16")
    result = cli("verify", receipt, "--model", "default")
    assert result.code == 1
    assert "computed in 'bf16', and the model here computes in 'float32'; load it with the numerics" in result.out


def test_environment_chooses_where_no_option_does(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENAUCTION_RUNNER", "packed")
    monkeypatch.setenv("TOKENAUCTION_NUMERICS", "int8")
    header = run(cli, tmp_path / "receipt.jsonl")
    assert (header["runner"], header["numerics"]) == ("packed", "int8")
    assert run(cli, tmp_path / "receipt.jsonl", "--numerics", "bf16")["numerics"] == "bf16"


@pytest.mark.parametrize(
    "command", [("run", "examples/hawaii.yaml"), ("sweep", "examples/hawaii.yaml"), ("models", "check")]
)
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--runner", "vllm", "runner 'vllm' is unknown; choose one of auto, cpp, packed, cuda, transformers"),
        ("--runner", "cuda", "the runner cuda computes on cuda, and the model is on cpu"),
        ("--numerics", "int4", "numerics 'int4' are unknown; choose one of auto, float32, bf16, int8"),
    ],
)
def test_choice_that_cannot_be_had_is_refused_on_one_line(
    command: tuple[str, ...], option: str, value: str, says: str, cli: Cli
) -> None:
    assert cli(*command, option, value).refusal == ("invalid_input", says)


def test_memory_that_holds_no_page_is_refused(cli: Cli) -> None:
    code, says = cli("run", "examples/hawaii.yaml", "--cache-gib", "0").refusal
    assert code == "invalid_input"
    assert says.startswith("cache_bytes is 0; 16 tokens of one row take")


def test_without_a_compiler_the_command_says_what_it_does_instead(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    monkeypatch.delenv("TOKENAUCTION_RUNNER", raising=False)
    load_library.cache_clear()
    receipt = tmp_path / "receipt.jsonl"
    result = cli("run", "examples/hawaii.yaml", "--seed", "3", "--format", "jsonl", "--receipt", receipt)
    assert result.code == 0
    assert result.err == "CXX names '/nowhere/c++', which is not there: the slower runner packed is used instead\n"
    assert json.loads(receipt.read_text().splitlines()[0])["runner"] == "packed"

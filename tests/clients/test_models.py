"""Any Llama-type checkpoint folder serves every command, and what is none is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("models_load_once")]

Cli = Callable[..., Any]
WriteSpec = Callable[..., Path]


@pytest.fixture
def receipt(cli: Cli, hawaii: Path, tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """Of a run with the tiny checkpoint."""
    path = tmp_path / "receipt.jsonl"
    options = ["--seed", "7", "--max-tokens", "12", "--format", "jsonl", "--receipt", str(path)]
    events = cli("run", hawaii, "--model", tiny_checkpoint, *options).events
    assert events[0]["model"]["name"] == "tiny-llama"
    assert events[-1]["posted"] is True
    return path


def test_run_takes_another_checkpoint_and_its_receipt_holds(cli: Cli, receipt: Path) -> None:
    assert cli("verify", receipt).code == 0


def test_verify_takes_another_checkpoint(cli: Cli, receipt: Path, tiny_checkpoint: Path) -> None:
    result = cli("verify", receipt, "--model", tiny_checkpoint)
    assert (result.code, "checked at the level of model" in result.out) == (0, True)


def test_verify_knows_a_receipt_of_another_checkpoint(cli: Cli, receipt: Path) -> None:
    result = cli("verify", receipt, "--model", "default")
    assert (result.code, "does not hold at auction: the prompt of alpha is another one" in result.out) == (1, True)


def test_verify_knows_other_weights(cli: Cli, receipt: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, folder)
    weights = {name: tensor * 1.5 for name, tensor in load_file(folder / "model.safetensors").items()}
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    result = cli("verify", receipt, "--model", folder)
    assert (result.code, "does not hold at auction: the model is another one" in result.out) == (1, True)


def test_sweep_takes_another_checkpoint(cli: Cli, write_spec: WriteSpec, tiny_checkpoint: Path) -> None:
    options = ["--points", "2", "--seeds", "2", "--format", "json", "--model", str(tiny_checkpoint)]
    table = cli("sweep", write_spec(max_tokens=5), *options).json
    assert [len(rows) for rows in table.values()] == [2, 2]


def test_models_check_takes_another_checkpoint(cli: Cli, tiny_checkpoint: Path) -> None:
    result = cli("models", "check", tiny_checkpoint)
    assert (result.code, result.err) == (0, "")
    for text in ("tiny-llama", "300 tokens, logits 320 wide", "512 tokens", "float32 on", "writes"):
        assert text in result.out


def test_run_prints_whatever_random_weights_write(cli: Cli, hawaii: Path, endless_checkpoint: Path) -> None:
    """Any byte may come, and ids without a text; without an end token the text runs to max_tokens."""
    options = ["--model", str(endless_checkpoint), "--max-tokens", "60", "--seed", "1"]
    events = cli("run", hawaii, *options, "--format", "jsonl").events
    assert (events[-1]["finish_reason"], events[-1]["num_tokens"]) == ("max_tokens", 60)
    assert cli("run", hawaii, *options, "--format", "text").out == events[-1]["text"] + "\n"
    shown = cli("run", hawaii, *options)
    assert shown.code == 0
    assert not set(shown.out) & {chr(code) for code in range(32) if chr(code) != "\n"}
    assert "no end token: texts run to max_tokens" in cli("models", "check", endless_checkpoint).out


def test_run_respects_a_chat_template(cli: Cli, hawaii: Path, tmp_path: Path, save_tiny: Callable[..., None]) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    folder = tmp_path / "chat"
    save_tiny(folder, end_token="<|end|>", max_length=2048, chat_template=template)
    assert "yes" in cli("models", "check", folder).out
    result = cli("run", hawaii, "--model", folder, "--seed", "1", "--max-tokens", "3", "--format", "jsonl")
    assert result.events[-1]["num_tokens"] <= 3


def test_models_list_names_the_shipped_checkpoint(cli: Cli) -> None:
    result = cli("models", "list")
    assert (result.code, result.err) == (0, "")
    assert "default" in result.out and "MB" in result.out and "--model" in result.out


def test_models_check_shows_what_receipts_hold_of_a_model(cli: Cli, recorded: Any) -> None:
    created = recorded.events[0]
    for arguments in (["models", "check"], ["models", "check", "default"]):
        result = cli(*arguments)
        assert (result.code, result.err) == (0, "")
        for text in (created["model"]["name"], created["model"]["hash"], created["tokenizer_hash"]):
            assert text in result.out


def spoilt(folder: Path, tiny_checkpoint: Path, file: str, content: bytes | None) -> Path:
    """A copy of a checkpoint with one file replaced or missing."""
    shutil.copytree(tiny_checkpoint, folder)
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content)
    return folder


SPOILT: dict[str, tuple[str, bytes | None]] = {
    "no config": ("config.json", None),
    "no weights": ("model.safetensors", None),
    "no tokenizer": ("tokenizer.json", None),
    "config is empty": ("config.json", b""),
    "config is a list": ("config.json", b"[]"),
    "config of an unknown model": ("config.json", b'{"model_type": "astrolabe"}'),
    "weights are text": ("model.safetensors", b"hello"),
    "weights are cut off": ("model.safetensors", (1000).to_bytes(8, "little") + b"{"),
    "tokenizer is text": ("tokenizer.json", b"hello"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_run_refuses_a_spoilt_checkpoint(
    cli: Cli, hawaii: Path, tiny_checkpoint: Path, tmp_path: Path, case: str
) -> None:
    folder = spoilt(tmp_path / "spoilt", tiny_checkpoint, *SPOILT[case])
    code, message = cli("run", hawaii, "--model", folder).refusal
    assert (code, "spoilt" in message) == ("model_not_loadable", True), message


def test_every_command_refuses_a_place_without_a_model(
    cli: Cli, hawaii: Path, recorded: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello", encoding="utf-8")
    for place in ("./missing", "missing/deep/folder", tmp_path / "missing", "empty", "./file", "~/missing \udcff"):
        assert cli("run", hawaii, "--model", place).refusal[0] == "model_not_loadable"
    for arguments in (
        ("sweep", hawaii, "--model", "empty"),
        ("verify", recorded.receipt, "--model", "empty"),
        ("models", "check", "empty"),
        ("models", "check", "./missing"),
    ):
        assert cli(*arguments).refusal[0] == "model_not_loadable"
    assert cli("run", hawaii, "--model", "").refusal == (
        "invalid_input",
        "--model is empty; name a folder or a model of the hub",
    )


def test_models_check_says_so_where_its_sentence_does_not_fit(
    cli: Cli, tmp_path: Path, save_tiny: Callable[..., None]
) -> None:
    folder = tmp_path / "short"
    save_tiny(folder, end_token="<|end|>", max_length=16)
    code, message = cli("models", "check", folder).refusal
    assert (code, "model's context of 16" in message) == ("prompt_too_long", True)


def test_run_makes_room_for_as_many_agents_as_a_spec_may_have(
    cli: Cli, write_spec: WriteSpec, tmp_path: Path, save_tiny: Callable[..., None]
) -> None:
    folder = tmp_path / "long"
    save_tiny(folder, end_token=None, max_length=8192)
    agents = [{"name": f"a{i}", "offer": "x", "bid": 1} for i in range(64)]
    path = write_spec(agents=agents, reference_weight=1, max_tokens=2)
    events = cli("run", path, "--model", folder, "--format", "jsonl").events
    assert len(events[1]["agents"]) == 65
    json.dumps(events, allow_nan=False)

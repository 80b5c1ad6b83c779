"""A run that was stopped goes on where it was; another run's file is never touched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tokenauction.clients.cli.reproduction.run_log import RunLog
from tokenauction.engine.errors import InvalidInput

SETTINGS = {"part": "toy", "seed": 1}


def complete(path: Path, ids: list[str]) -> tuple[list[Any], list[str]]:
    """The lines of a run over `ids`, and which queries were asked for."""
    asked: list[str] = []

    def find(query_id: str) -> dict[str, Any]:
        asked.append(query_id)
        return {"query": query_id, "value": len(query_id)}

    done: list[None] = []
    lines = RunLog(path, SETTINGS).complete(ids, find, lambda: done.append(None))
    assert len(done) == len(ids)
    return lines, asked


def test_log_asks_once_for_every_query_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "toy.jsonl"
    lines, asked = complete(path, ["a", "bb"])
    assert asked == ["a", "bb"]
    again, asked = complete(path, ["bb", "ccc", "a"])
    assert asked == ["ccc"]
    assert [line["query"] for line in again] == ["bb", "ccc", "a"]
    assert again[2] == lines[0]


@pytest.mark.parametrize("cut", range(1, 24))
def test_log_does_a_query_again_whose_line_was_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "toy.jsonl"
    complete(path, ["a", "Grüße"])
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    lines, asked = complete(path, ["a", "Grüße"])
    assert asked == ["Grüße"]
    assert [line["query"] for line in lines] == ["a", "Grüße"]
    assert path.read_bytes() == whole


def test_log_keeps_what_was_done_before_an_interruption(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"

    def find(query_id: str) -> dict[str, Any]:
        if query_id == "b":
            raise KeyboardInterrupt
        return {"query": query_id}

    with pytest.raises(KeyboardInterrupt):
        RunLog(path, SETTINGS).complete(["a", "b"], find, lambda: None)
    assert complete(path, ["a", "b"])[1] == ["b"]


def test_log_refuses_another_runs_file_and_leaves_it(tmp_path: Path) -> None:
    path = tmp_path / "toy.jsonl"
    complete(path, ["a"])
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="holds another run \\(seed: 1 there, 2 here\\)"):
        RunLog(path, {**SETTINGS, "seed": 2})
    with pytest.raises(InvalidInput, match="candidates: None there, 3 here"):
        RunLog(path, {**SETTINGS, "candidates": 3})
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["hello\n", "[]\n", "\n", "\x00\n", '{"part": "toy", "seed": 1}\nnull\n', "[" * 9999 + "\n"]
)
def test_log_refuses_what_is_no_run(tmp_path: Path, text: str) -> None:
    path = tmp_path / "toy.jsonl"
    path.write_text(text)
    with pytest.raises(InvalidInput, match="not a line of a run"):
        RunLog(path, SETTINGS)
    assert path.read_text() == text

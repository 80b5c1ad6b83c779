"""What is printed is one line where it should be, and never an order to the terminal."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from tokenauction.clients.cli.output import (
    MAX_LINE,
    check_target,
    one_line,
    plain_console,
    prepare_streams,
    print_json,
    visible,
)
from tokenauction.engine.errors import InvalidInput


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("as it is", "as it is"),
        ("", ""),
        ("two\nlines\r\n\tand  tabs ", "two lines and tabs"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("half \ud83d", r"half \ud83d"),
        ("line\u2028separator", "line separator"),
        ("λ · 航空 🏝", "λ · 航空 🏝"),
    ],
)
def test_one_line_is_printable(text: str, line: str) -> None:
    assert one_line(text) == line


def test_one_line_keeps_both_ends_of_what_is_too_long() -> None:
    line = one_line("begin " + "x" * 10_000_000 + " end")
    assert line.startswith("begin ") and line.endswith(" end")
    assert MAX_LINE <= len(line) < MAX_LINE + 5


def test_visible_shows_control_characters_without_obeying_them() -> None:
    assert visible("a\nb\x1b[31m\r\x9b\x7f é") == "a\nb\ufffd[31m\ufffd\ufffd\ufffd é"


def output_in(encoding: str, monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding=encoding))
    return written


def test_print_json_writes_text_as_it_is_where_that_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    written = output_in("utf-8", monkeypatch)
    print_json({"text": "λ 🏝"})
    assert written.getvalue() == '{"text": "λ 🏝"}\n'.encode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_print_json_escapes_what_the_output_cannot_hold(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    written = output_in(encoding, monkeypatch)
    print_json({"text": "é λ 🏝"})
    assert json.loads(written.getvalue().decode("ascii")) == {"text": "é λ 🏝"}


@pytest.mark.parametrize("number", [0.1, 1 / 3, 5e-324, 1e308, 123456789.123456789])
def test_print_json_writes_floats_in_full(capsys: pytest.CaptureFixture[str], number: float) -> None:
    print_json(number)
    assert json.loads(capsys.readouterr().out) == number


def test_print_json_refuses_what_is_no_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError):
        print_json(float("nan"))
    assert capsys.readouterr().out == ""


def test_prepare_streams_lets_any_character_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    written = output_in("ascii", monkeypatch)
    prepare_streams()
    print("λ \udcff", flush=True)
    assert written.getvalue() == b"\\u03bb \\udcff\n"


def test_prepare_streams_opens_what_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    prepare_streams()
    with sys.stdout as stream:
        print("into nothing", flush=True)
        assert not stream.isatty()


def test_plain_console_prints_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    plain_console().print("[red]a[/red] [/] :smile: 1.5")
    assert capsys.readouterr().out == "[red]a[/red] [/] :smile: 1.5\n"


def test_check_target_takes_a_file_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").touch()
    for path in (None, tmp_path / "new", tmp_path / "there", Path("new"), Path("/dev/null")):
        check_target("--receipt", path)


def test_check_target_refuses_what_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, Path(), tmp_path / "no" / "file", tmp_path / "file" / "file"):
        with pytest.raises(InvalidInput, match="folder"):
            check_target("--receipt", path)

"""The command itself: what it says of itself, what it waits for, and how it ends when it is cut short."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tokenauction

Cli = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[bytes]"]

COMMANDS = [["demo"], ["run"], ["clear"], ["sweep"], ["verify"], ["models"], ["models", "list"], ["models", "check"]]
LONGEST = 300  # seconds: a machine may be busy
ROOT = Path(__file__).resolve().parents[2]
REQUEST = json.dumps({"agents": [{"id": "λ 🏝", "bid": 1, "distribution": [0.5, 0.5]}]}).encode()


def test_app_prints_its_version(cli: Cli) -> None:
    result = cli("--version")
    assert (result.code, result.out, result.err) == (0, f"{tokenauction.__version__}\n", "")


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_app_names_every_command_in_its_help(cli: Cli, option: str) -> None:
    result = cli(option)
    assert (result.code, result.err) == (0, "")
    assert all(command[0] in result.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_command_explains_itself(cli: Cli, command: list[str]) -> None:
    result = cli(*command, "--help")
    assert (result.code, result.err) == (0, "")
    assert f"Usage: tokenauction {' '.join(command)}" in result.out


def test_run_explains_every_option(cli: Cli) -> None:
    help_text = cli("run", "--help").out
    for option in (
        "--format", "--receipt", "--store-distributions", "--model", "--seed", "--rule", "--sampler", "--pricing",
        "--bid", "--reference-weight", "--temperature", "--top-k", "--top-p", "--max-tokens", "--max-sentences",
        "--top-tokens", "--allow-unsafe",
    ):  # fmt: skip
        assert option in help_text


@pytest.mark.parametrize("arguments", [[], ["models"]])
def test_app_explains_itself_where_no_command_is_given(cli: Cli, arguments: list[str]) -> None:
    result = cli(*arguments)
    assert result.code in (0, 2)
    assert "Usage: tokenauction" in result.out + result.err


@pytest.mark.parametrize(
    "arguments", [["auction"], ["--no-such"], ["models", "delete"], ["run"], ["sweep"], ["verify"]]
)
def test_app_answers_a_mistyped_command_in_its_usage_style(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments).usage_error


# --- Starting -------------------------------------------------------------------------------------------------------

SLOW_IMPORTS = ("torch", "transformers", "matplotlib")


def imported(*commands: list[str]) -> set[str]:
    """Which of SLOW_IMPORTS these commands import, in a process of their own."""
    program = (
        "import contextlib, sys\nfrom tokenauction.clients.cli import main\n"
        f"for arguments in {list(commands)!r}:\n"
        "    sys.argv = ['tokenauction', *arguments]\n"
        "    with contextlib.suppress(SystemExit):\n        main()\n"
        f"print(*[name for name in {SLOW_IMPORTS!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.slow
def test_app_imports_nothing_slow_to_explain_itself() -> None:
    assert imported(["--version"], ["run", "--help"], ["sweep", "x.yaml", "--points", "1"]) == set()


@pytest.mark.slow
def test_clear_and_verify_need_no_language_model(written: Any, request_file: Path) -> None:
    assert imported(["clear", str(request_file)], ["verify", str(written.receipt)]) == {"torch"}


@pytest.mark.slow
@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_main_lets_idle_threads_sleep_unless_told_otherwise(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str
) -> None:
    from tokenauction.clients import cli as package

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", given)
    monkeypatch.setattr(sys, "argv", ["tokenauction", "--version"])
    with pytest.raises(SystemExit):
        package.main()
    assert os.environ["OMP_WAIT_POLICY"] == expected


# --- Being cut short ------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def standard_output(monkeypatch: pytest.MonkeyPatch, descriptor: int) -> Iterator[None]:
    """sys.stdout on a file descriptor, which is closed in the end."""
    stream = io.TextIOWrapper(os.fdopen(descriptor, "wb"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    yield
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):  # what typer left in the buffer of a closed pipe
        stream.close()


def ended(arguments: list[Any], monkeypatch: pytest.MonkeyPatch, descriptor: int) -> Any:
    """The exit code of a command that writes to this file descriptor."""
    from tokenauction.clients.cli.app import run_app

    with standard_output(monkeypatch, descriptor):
        monkeypatch.setattr(sys, "argv", ["tokenauction", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            run_app()
    return exit_.value.code


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


@pytest.fixture
def request_file(tmp_path: Path) -> Path:
    """What `clear` reads."""
    path = tmp_path / "request.json"
    path.write_bytes(REQUEST)
    return path


def test_app_ends_quietly_when_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], request_file: Path
) -> None:
    for arguments in (["clear", request_file], ["--version"], ["--help"]):
        assert ended(arguments, monkeypatch, closed_pipe()) == 1
    assert capfd.readouterr().err == ""


def test_app_names_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], request_file: Path
) -> None:
    for arguments in (["clear", request_file], ["--version"]):
        assert ended(arguments, monkeypatch, os.open("/dev/full", os.O_WRONLY)) == 2
        assert capfd.readouterr().err == "error (os_error): No space left on device\n"


@pytest.mark.slow
@pytest.mark.usefixtures("models_load_once")
@pytest.mark.parametrize("view", ["jsonl", "text", "rich"])
def test_run_ends_quietly_when_its_reader_has_gone(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    hawaii: Path,
    endless_checkpoint: Path,
    load_once: Any,
    view: str,
) -> None:
    monkeypatch.setattr("tokenauction.models.loading.load_causal_model", load_once)
    arguments = ["run", hawaii, "--model", endless_checkpoint, "--max-tokens", "3", "--format", view]
    assert ended(arguments, monkeypatch, closed_pipe()) == 1
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_command_prints_ascii_where_the_terminal_knows_no_more(start: Start) -> None:
    process = start("clear", stdin=subprocess.PIPE, PYTHONIOENCODING="ascii", PYTHONUTF8="0", LC_ALL="C")
    out, err = process.communicate(REQUEST, timeout=LONGEST)
    assert (process.returncode, err) == (0, b"")
    assert json.loads(out.decode("ascii"))["agents"][0]["id"] == "λ 🏝"


@pytest.mark.slow
def test_command_ends_quietly_when_its_reader_has_gone(start: Start) -> None:
    """As in `tokenauction … | head -1`: Python itself complains at exit of what it could not write."""
    descriptor = closed_pipe()
    for arguments in (["--help"], ["--version"]):
        process = start(*arguments, stdout=descriptor)
        assert (process.communicate(timeout=LONGEST)[1], process.returncode) == (b"", 1)
    os.close(descriptor)


@pytest.mark.slow
def test_command_ends_quietly_when_it_is_interrupted(start: Start, hawaii: Path, endless_checkpoint: Path) -> None:
    process = start("run", hawaii, "--model", endless_checkpoint, "--max-tokens", "4000", "--format", "jsonl")
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=LONGEST)
    assert (process.returncode, err) == (130, b"")


@pytest.mark.slow
def test_command_runs_with_its_streams_closed() -> None:
    """As in `tokenauction … <&- >&- 2>&-`: the exit code is all that is asked for."""
    program = "import sys; from tokenauction.clients.cli import main; sys.argv[1:] = ['--version']; main()"
    shell = ["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program]
    assert subprocess.run(shell, check=False, cwd=ROOT).returncode == 0

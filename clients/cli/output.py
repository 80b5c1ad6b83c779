"""What the command line writes, wherever it goes: lines for people, JSON for programs, files that were asked for.

It must not know what any of them says.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from tokenauction.engine.errors import InvalidInput

DIRECTIONS = (*range(0x200E, 0x2010), *range(0x202A, 0x202F), *range(0x2066, 0x206A))  # they turn whole lines round
CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160), *DIRECTIONS) if chr(code) != "\n"}
MAX_LINE = 600  # characters of one message: it may quote what a stranger wrote


def prepare_streams() -> None:
    """Make stdout and stderr writable in any case: a closed one leads nowhere, no character is too strange for one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # open to the very end
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_log() -> None:
    """Warnings of ours go to stderr, one line each; on a terminal also what takes a while, such as a first build."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("tokenauction")
    log.handlers[:] = [handler]  # whoever calls twice in a process has one still
    log.setLevel(logging.INFO if sys.stderr.isatty() else logging.WARNING)


def abandon_stdout() -> None:
    """Let what is still buffered go nowhere: Python would try to write it once more at exit, and complain."""
    with contextlib.suppress(io.UnsupportedOperation):  # a stdout in memory has no such trouble
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def one_line(text: object) -> str:
    """The text on one line: no line break, no control character that a terminal would obey, at most MAX_LINE long."""
    line = " ".join(str(text).split())
    if len(line) > MAX_LINE:  # what is wrong with a long value often stands behind it
        line = f"{line[: MAX_LINE // 2]} … {line[-MAX_LINE // 2 :]}"
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in line)


def visible(text: str) -> str:
    """The text with U+FFFD for whatever a terminal would obey instead of showing it; lines stay."""
    return text.translate(CONTROLS)


def print_json(value: Any) -> None:
    """One line of JSON, floats in full; escaped to ASCII where stdout cannot take every character."""
    is_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(value, ensure_ascii=not is_unicode, allow_nan=False), flush=True)


def plain_console(*, stderr: bool = False) -> Console:
    """A console that takes text as it is: brackets and colons in a brand's name are no markup."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def check_target(option: str, path: Path | None) -> None:
    """Refuse a file that could not be written, before work is done for it; raises InvalidInput."""
    if path is None:
        return
    folder = path.absolute().parent
    if path.is_dir():
        raise InvalidInput(f"{option}: {path} is a folder; name a file")
    if not folder.is_dir():
        raise InvalidInput(f"{option}: {folder} is not a folder that exists")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise InvalidInput(f"{option}: {path} cannot be written; choose another place")

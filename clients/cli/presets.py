"""A folder of spec files as a server's presets: each file's name is the preset's."""

from __future__ import annotations

import re
from pathlib import Path

from tokenauction.clients.cli.compose import EXAMPLES
from tokenauction.clients.cli.spec_file import load_spec
from tokenauction.engine.errors import InvalidInput
from tokenauction.server.presets import Presets

MAX_PRESETS = 256


def load_presets(folder: Path | None) -> Presets:
    """Every *.yaml of a folder, or the examples in the box; raises InvalidInput, or what `load_spec` raises."""
    where = EXAMPLES if folder is None else folder
    if not where.is_dir():
        raise InvalidInput(f"--presets is {str(where)!r}; it must be a folder of spec files (*.yaml)")
    files = sorted(where.glob("*.yaml"))
    if len(files) > MAX_PRESETS:
        raise InvalidInput(f"{where} holds {len(files)} presets; the limit is {MAX_PRESETS}")
    for file in files:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", file.stem):
            raise InvalidInput(f"{file.name!r} names no preset: letters, digits, _, . and - do")
    return Presets.of({file.stem: load_spec(file).to_mapping() for file in files})

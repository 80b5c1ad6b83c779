"""One part of a run on disk: a line for every query that is done, so that a run that was stopped goes on.

The first line says what it is a run of; a file of another run is refused, not overwritten. A last line that a crash cut
off is forgotten, and its query done again. It must not know what stands in a line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenauction.engine.errors import InvalidInput


class RunLog:
    """An open file of lines by query."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Begin a file, or go on with it; raises InvalidInput where it holds another run, or cannot be read."""
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        lines = [_object(line, f"{path}, line {number}") for number, line in enumerate(whole.splitlines(), start=1)]
        if not lines:
            whole = json.dumps(dict(settings), allow_nan=False) + "\n"
        elif differing := _differing(settings, lines[0]):
            raise InvalidInput(f"{path} holds another run ({differing}); choose another --folder, or remove the file")
        if whole != text:
            path.write_text(whole, encoding="utf-8")
        self.lines: dict[str, Any] = {str(line.get("query")): line for line in lines[1:]}

    def add(self, line: Mapping[str, Any]) -> None:
        """Append what was found for the query `line["query"]`."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dict(line), ensure_ascii=False, allow_nan=False) + "\n")
        self.lines[str(line["query"])] = line

    def complete(
        self, query_ids: Sequence[str], find: Callable[[str], Mapping[str, Any]], on_done: Callable[[], None]
    ) -> list[Any]:
        """The lines of all these queries, in their order; `find` is asked for those that are not there yet."""
        for query_id in query_ids:
            if query_id not in self.lines:
                self.add(find(query_id))
            on_done()
        return [self.lines[query_id] for query_id in query_ids]


def _object(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InvalidInput(f"{where} is not a line of a run; choose another --folder, or remove the file")
    return value


def _differing(settings: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What the other run's settings say differently, in words; "" where they are the same."""
    names = [name for name in {**settings, **found} if settings.get(name) != found.get(name)]
    return ", ".join(f"{name}: {found.get(name)!r} there, {settings.get(name)!r} here" for name in names)

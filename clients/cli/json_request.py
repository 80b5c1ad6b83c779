"""A request to the command line: JSON from a file or standard input, and the checks that every such request needs.

It must not know what is asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeGuard

from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.spec import REFERENCE_ID

MAX_BYTES = 2**28  # 64 agents over 150,000 tokens, every float in full, fit


def read_request(file: str) -> Any:
    """The JSON in a file, or on standard input for "-"; raises InvalidInput for what is none."""
    try:
        content = _read_stdin() if file == "-" else _read_bytes(Path(file))
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_fields_once)
    except InvalidInput:
        raise
    except OSError as error:
        raise InvalidInput(f"{file!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{file!r} is not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the request is not JSON: {error}") from None


def _read_stdin() -> bytes:
    if sys.stdin is None:
        raise InvalidInput("standard input is closed; name a file")
    return _within_limit(sys.stdin.buffer.read(MAX_BYTES + 1))


def _read_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return _within_limit(file.read(MAX_BYTES + 1))


def _within_limit(content: bytes) -> bytes:
    if len(content) > MAX_BYTES:
        raise InvalidInput(f"the request is larger than {MAX_BYTES} bytes")
    return content


def _fields_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose fields are given once each: JSON leaves open which of two would count."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        raise InvalidInput(f"the field {next(n for n in names if names.count(n) > 1)!r} is given more than once")
    return fields


def fields_of(value: Any, where: str, allowed: set[str]) -> Mapping[str, Any]:
    """The fields of an object; raises InvalidInput for another value, and for a field that is not `allowed`."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{where} must be a JSON object, not {type(value).__name__}")
    for name in value:
        if name not in allowed:
            raise InvalidInput(f"{where} has no field {name!r}; the fields are {', '.join(sorted(allowed))}")
    return value


def is_finite(value: Any) -> TypeGuard[float]:
    """Whether it is a number that a float can hold."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def whole_number(fields: Mapping[str, Any], name: str) -> int:
    """The integer of that name, 0 where it is left out; raises InvalidInput for what is none."""
    value = fields.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} must be a whole number, not {value!r}")
    return value


def agent_id_of(agent: Mapping[str, Any], where: str, taken: Collection[str]) -> str:
    """The id of an agent; raises InvalidInput unless it is text and not one of those taken."""
    agent_id = agent.get("id")
    if not isinstance(agent_id, str) or not is_text(agent_id) or agent_id in {*taken, REFERENCE_ID}:
        raise InvalidInput(f"{where}: id must be text, its own, and not {REFERENCE_ID!r}; it is {agent_id!r}")
    return agent_id


def is_text(value: str) -> bool:
    """Whether there is any, and none of it a lone surrogate, which no encoding can write."""
    return bool(value) and not any(0xD800 <= ord(character) < 0xE000 for character in value)

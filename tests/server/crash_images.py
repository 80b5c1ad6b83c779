"""What a disk may hold after the power failed: computed from a record of what a process did to its files.

Everything before the last sync of a file is there; of what was written since, any part may be: nothing, everything, a
beginning that ends within a write, any set of writes, any set of sectors. The same goes for names: a file that was made
or removed since the last sync of its folder may be there or not. This is stricter than most file systems are.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

Part = TypeVar("Part")

SECTOR = 512  # bytes that a disk writes whole
WAYS = ("nothing", "everything", "beginning", "writes", "sectors")


@dataclass(frozen=True)
class Operation:
    """One line of the record."""

    kind: str  # create, write, truncate, sync, unlink
    name: str  # within the folder; "." is the folder
    offset: int
    data: bytes


def read_record(path: Path) -> list[Operation]:
    """What disk_recorder.cpp wrote."""
    raw, at, found = path.read_bytes(), 0, []
    while at < len(raw):
        end = raw.index(b"\n", at)
        kind, name, offset, length = raw[at:end].decode().split("\t")
        size = int(length) if kind == "write" else 0
        found.append(Operation(kind, name, int(offset), raw[end + 1 : end + 1 + size]))
        at = end + 1 + size
    return found


@dataclass(eq=False)
class _File:
    """A file whatever its name: what is on the disk for certain, and what was done since."""

    durable: bytearray = field(default_factory=bytearray)
    pending: list[Operation] = field(default_factory=list)

    def sync(self) -> None:
        for operation in self.pending:
            apply(self.durable, operation)
        self.pending = []


def apply(content: bytearray, operation: Operation) -> None:
    """Do to bytes what was done to a file."""
    size = operation.offset + len(operation.data)
    if operation.kind == "truncate" and size <= len(content):
        del content[size:]
    elif len(content) < size:
        content.extend(bytes(size - len(content)))
    content[operation.offset : size] = operation.data


class Disk:
    """A folder on a disk that may lose its power."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}  # as the process sees them
        self._durable: dict[str, _File] = {}  # names that are there for certain
        self._pending: list[tuple[str, _File | None]] = []  # names since the folder's last sync; None: removed

    def do(self, operation: Operation) -> None:
        """One operation of the process."""
        name = operation.name
        if operation.kind == "sync" and name == ".":
            for changed, file in self._pending:
                _set(self._durable, changed, file)
            self._pending = []
        elif operation.kind == "create":
            self._files[name] = _File()
            self._pending.append((name, self._files[name]))
        elif operation.kind == "unlink":
            self._files.pop(name, None)
            self._pending.append((name, None))
        elif operation.kind == "sync":
            self._files[name].sync()
        else:
            self._files[name].pending.append(operation)

    def image(self, way: str, chance: random.Random) -> dict[str, bytes]:
        """The files, by name, as they may be if the power fails now."""
        names = dict(self._durable)
        for changed, file in _some(self._pending, way, chance):
            _set(names, changed, file)
        return {name: self._content(file, way, chance) for name, file in names.items()}

    def _content(self, file: _File, way: str, chance: random.Random) -> bytes:
        content = bytearray(file.durable)
        for operation in _some([part for one in file.pending for part in _parts(one, way)], way, chance):
            apply(content, operation)
        return bytes(content)


def _set(names: dict[str, _File], name: str, file: _File | None) -> None:
    if file is None:
        names.pop(name, None)
    else:
        names[name] = file


def _some(parts: Sequence[Part], way: str, chance: random.Random) -> list[Part]:
    if way == "nothing":
        return []
    if way == "everything":
        return list(parts)
    if way == "beginning":
        return list(parts[: chance.randint(0, len(parts))])
    return [part for part in parts if chance.random() < 0.5]


def _parts(operation: Operation, way: str) -> Iterator[Operation]:
    """A write as its sectors, where these go to the disk one by one."""
    if operation.kind != "write" or way not in ("beginning", "sectors"):
        yield operation
        return
    start, end = operation.offset, operation.offset + len(operation.data)
    while start < end:
        stop = min((start // SECTOR + 1) * SECTOR, end)
        data = operation.data[start - operation.offset : stop - operation.offset]
        yield Operation("write", operation.name, start, data)
        start = stop

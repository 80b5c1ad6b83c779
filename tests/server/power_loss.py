"""The power fails while a ledger works: is anything lost that was acknowledged, is anything out of balance?

    python tests/server/power_loss.py --images 1000 [--seed 7] [--auctions 8] [--synchronous NORMAL]

A process works on a ledger (ledger_workload.py); a library that is loaded into it (disk_recorder.cpp) records every
write and every sync. For points all over that record it is computed what the disk may hold (crash_images.py), and the
ledger is opened on that: SQLite recovers, every acknowledgement before that point must be there, the audit must find
nothing, every open auction is ended, and the audit must find nothing again. Prints one JSON line; exit code 0 where
nothing was lost and nothing is out of balance. Needs Linux and a C++ compiler.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crash_images import WAYS, Disk, Operation, read_record
from ledger_workload import Acknowledgement, examine

from tokenauction.models.compiler import find_compiler
from tokenauction.server.ledger import Ledger, LedgerError

HERE = Path(__file__).resolve().parent
DATABASE, ACKNOWLEDGED = "ledger.db", "acknowledged"
SHOWN = 5  # faults that are printed


@dataclass(frozen=True)
class Image:
    """What a disk may hold when the power fails behind an operation, and what had been acknowledged by then."""

    number_of_operations: int
    way: str
    files: dict[str, bytes]
    acknowledged: list[Acknowledgement]


def record_workload(folder: Path, *, seed: int, auctions: int, synchronous: str) -> list[Operation]:
    """Run the workload to its end in a process of its own, and record what it does to its files."""
    compiler = find_compiler()
    assert compiler is not None, "no C++ compiler: install g++ or clang++"
    library, disk, log = folder / "disk_recorder.so", folder / "disk", folder / "record"
    source = HERE / "disk_recorder.cpp"
    subprocess.run([*compiler, "-std=c++17", "-O1", "-fPIC", "-shared", "-o", library, source, "-ldl"], check=True)
    disk.mkdir()
    options = ["--seed", str(seed), "--auctions", str(auctions), "--synchronous", synchronous]
    command = [sys.executable, HERE / "ledger_workload.py", disk / DATABASE, "--acknowledged", disk / ACKNOWLEDGED]
    environment = {**os.environ, "LD_PRELOAD": str(library), "DISK_FOLDER": str(disk), "DISK_LOG": str(log)}
    subprocess.run([*command, *options], check=True, env=environment)
    return read_record(log)


def images(operations: Sequence[Operation], count: int, seed: int) -> Iterator[Image]:
    """So many images, at points all over the record, in every way that a disk may lose what was not synced."""
    chance = random.Random(seed)
    points = sorted(round((number + 1) * len(operations) / count) for number in range(count))
    ways = [WAYS[(number + seed) % len(WAYS)] for number in range(count)]
    disk, acknowledged, done = Disk(), bytearray(), 0
    for point, way in zip(points, ways, strict=True):
        for operation in operations[done:point]:
            if operation.name == ACKNOWLEDGED:  # it went to somebody else, whose power does not fail
                acknowledged += operation.data
            elif not operation.name.endswith((".lock", "-shm")):  # the lock is the process's; -shm is made again
                disk.do(operation)
        done = point
        lines = [json.loads(line) for line in acknowledged.splitlines()]
        yield Image(point, way, disk.image(way, chance), lines)


async def faults_of(image: Image, folder: Path) -> tuple[list[str], list[str]]:
    """What is lost, and what is out of balance, of a ledger that is opened on an image."""
    folder.mkdir()
    for name, content in image.files.items():
        (folder / name).write_bytes(content)
    try:
        ledger = await Ledger.open(f"sqlite:///{folder / DATABASE}")
    except LedgerError as error:
        return [f"everything: {error}"], []
    try:
        return await examine(ledger, image.acknowledged)
    except LedgerError as error:
        return [f"not recovered: {error}"], []
    finally:
        await ledger.close()


async def examine_all(operations: Sequence[Operation], count: int, seed: int, folder: Path) -> dict[str, Any]:
    """The figures over so many images."""
    lost, unbalanced, said, acknowledged = 0, 0, [], 0
    for number, image in enumerate(images(operations, count, seed)):
        place = folder / f"image-{number}"
        missing, faults = await faults_of(image, place)
        shutil.rmtree(place)
        lost, unbalanced = lost + bool(missing), unbalanced + bool(faults)
        acknowledged += len(image.acknowledged)
        said += [f"{image.way} behind operation {image.number_of_operations}: {fault}" for fault in missing + faults]
    counts = {"images": count, "lost": lost, "unbalanced": unbalanced, "acknowledged": acknowledged}
    return {**counts, "faults": said[:SHOWN]}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--auctions", type=int, default=8)
    parser.add_argument("--synchronous", choices=("FULL", "NORMAL"), default="FULL")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="power-loss-") as name:
        folder = Path(name)
        work = {"auctions": arguments.auctions, "synchronous": arguments.synchronous}
        operations = record_workload(folder, seed=arguments.seed, **work)
        result = asyncio.run(examine_all(operations, arguments.images, arguments.seed, folder))
    num_syncs = sum(operation.kind == "sync" for operation in operations)
    print(json.dumps({**result, **work, "operations": len(operations), "syncs": num_syncs}))
    return 1 if result["lost"] or result["unbalanced"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""What clearing costs without a model: one step from logits to outcomes (shape, aggregate, draw, price), both ways.

    python benchmarks/mechanism.py [--seconds 0.4]

For every vocabulary, number of agents, and of auctions in one batch: milliseconds by compiled code and by torch, median
and p10, and the floor: the time to read the logits once from memory, at the bandwidth measured in the same run. torch
is left out where its intermediate tensors would take gigabytes. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peers_report import origin
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import use_threads
from tokenauction.engine.auction import Auction
from tokenauction.engine.fused_clearing import ClearingChoice
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import step_key
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step

VOCABULARIES = (4_096, 32_000, 128_256, 151_936)  # this repository's model, Llama 2, Llama 3, Qwen 3
AGENTS = (2, 3, 8, 32)
AUCTIONS = (1, 16)
TORCH_LIMIT = 2**24  # logits; torch holds some ten float64 tensors of as many numbers
MAX_REPEATS = 300


def milliseconds(function: Callable[[], Any], seconds: float) -> tuple[float, float]:
    """Median and p10 of calls made for so many seconds, at least three, after one that is not counted."""
    function()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < seconds and len(times) < MAX_REPEATS):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return statistics.median(times) * 1e3, statistics.quantiles(times, n=10, method="inclusive")[0] * 1e3


def read_bandwidth() -> float:
    """Bytes per second at which one pass reads float32 numbers from memory."""
    numbers = torch.ones(2**26)
    _, p10_ms = milliseconds(numbers.sum, 0.5)
    return numbers.nbytes / p10_ms * 1e3


def measure(vocab_size: int, num_agents: int, num_auctions: int, bandwidth: float, seconds: float) -> dict[str, Any]:
    """One case, both ways; the logits are those of agents that agree on few tokens."""
    agents = tuple(AgentSpec(f"a{i}", f"Brand{i}", "an offer", 1000 + i) for i in range(num_agents))
    specs = [AuctionSpec("query", agents, seed=seed) for seed in range(num_auctions)]
    standings = [Standing(spec, (), Policy()) for spec in specs]
    bids = [Auction(spec, "benchmark").read_bids() for spec in specs]
    keys = [step_key(seed, 0) for seed in range(num_auctions)]
    rng = torch.Generator().manual_seed(0)
    logits = torch.randn(num_auctions * num_agents, vocab_size, generator=rng).mul_(4)

    def run(clearing: ClearingChoice) -> tuple[float, float] | tuple[None, None]:
        if clearing == "torch" and logits.numel() > TORCH_LIMIT:
            return None, None
        return milliseconds(lambda: clear_step(standings, bids, keys, logits, clearing), seconds)

    (fused, fused_p10), (by_torch, torch_p10) = run("fused"), run("torch")
    assert fused is not None
    floor = logits.nbytes / bandwidth * 1e3
    return {
        "vocabulary": vocab_size,
        "agents": num_agents,
        "auctions": num_auctions,
        "fused_ms_median": fused,
        "fused_ms_p10": fused_p10,
        "torch_ms_median": by_torch,
        "torch_ms_p10": torch_p10,
        "floor_ms": floor,
        "fused_over_floor": fused / floor,
        "torch_over_fused": None if by_torch is None else by_torch / fused,
    }


def main() -> None:
    """Measure every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.4, help="for every case and way")
    parser.add_argument("--vocabularies", type=int, nargs="+", default=VOCABULARIES)
    arguments = parser.parse_args()
    use_threads()
    bandwidth = read_bandwidth()
    with torch.inference_mode():
        results = [
            measure(*case, bandwidth, arguments.seconds)
            for case in itertools.product(arguments.vocabularies, AGENTS, AUCTIONS)
        ]
    title = f"ms per step; {torch.get_num_threads()} thread(s), torch {torch.__version__}, {bandwidth / 1e9:.1f} GB/s"
    columns = ("vocab", "agents", "auctions", "fused", "p10", "torch", "p10", "floor", "÷ floor", "speed-up")
    table = Table(*columns, title=title, box=None, padding=(0, 1, 0, 0))
    for row in results:
        table.add_row(*(cell(value) for value in row.values()))
    Console().print(table)
    report = {"benchmark": "mechanism", "threads": torch.get_num_threads(), "bytes_per_s": bandwidth}
    json.dump(report | origin() | {"results": results}, sys.stdout)
    print()


def cell(value: float | None) -> str:
    """A number for people."""
    return "–" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()

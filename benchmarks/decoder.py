"""What a token of an auction costs on the shipped model: the forward pass, and what the auction adds to it.

    python benchmarks/decoder.py [--tokens 200] [--model FOLDER] [--runner cpp packed transformers]

For every number of agents, and of auctions in one batch: milliseconds per step (median and p10), of which the model and
the clearing (shape, aggregate, draw, price); the rest is the record. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, submit
from tokenauction.engine import decoder as decoder_module
from tokenauction.engine.spec import AgentSpec, AuctionSpec

CASES = ((1, 1), (2, 1), (3, 1), (8, 1), (3, 4), (3, 16))  # agents, auctions
WARM_UP = 5  # steps


@dataclass
class Stopwatch:
    """Wraps functions and adds up the seconds spent in them, step by step."""

    seconds: list[float] = field(default_factory=lambda: [0.0])

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[-1] += time.perf_counter() - started

        return timed


def spec_of(num_agents: int, num_tokens: int, seed: int) -> AuctionSpec:
    """Agents with equal bids, as many tokens as the benchmark asks for."""
    agents = tuple(AgentSpec(f"a{i}", f"Brand{i} Resort", f"rooms with view {i}", 1000) for i in range(num_agents))
    return AuctionSpec("Vacations in Hawaii", agents, reference_weight_micros=500, max_tokens=num_tokens, seed=seed)


def measure(runner: str, num_agents: int, num_auctions: int, num_tokens: int, source: str | None) -> dict[str, Any]:
    """Milliseconds per step of one case, the steps in which all its auctions still run."""
    decoder = new_decoder(load_model(source, max_rows=256, runner=runner))
    model_watch, clear_watch = Stopwatch(), Stopwatch()
    model: Any = decoder.model
    model.step = model_watch.around(model.step)
    clear_step = decoder_module.clear_step
    decoder_module.clear_step = clear_watch.around(clear_step)
    total: list[float] = []
    try:
        for seed in range(10_000):
            for number in range(num_auctions):
                submit(decoder, spec_of(num_agents, num_tokens, seed * num_auctions + number))
            decoder.step()
            while len(decoder.scheduler.running) == num_auctions:
                model_watch.seconds.append(0.0)
                clear_watch.seconds.append(0.0)
                started = time.perf_counter()
                decoder.step()
                total.append(time.perf_counter() - started)
            while decoder.scheduler.has_work:
                decoder.step()
            if len(total) >= num_tokens + WARM_UP:
                break
    finally:
        decoder_module.clear_step = clear_step
    rows = total[WARM_UP:]
    model_ms = statistics.median(model_watch.seconds[1 + WARM_UP :]) * 1e3
    clear_ms = statistics.median(clear_watch.seconds[1 + WARM_UP :]) * 1e3
    step_ms = statistics.median(rows) * 1e3
    return {
        "runner": decoder.model.runner,
        "agents": num_agents,
        "auctions": num_auctions,
        "step_ms_median": step_ms,
        "step_ms_p10": statistics.quantiles(rows, n=10)[0] * 1e3,
        "model_ms_median": model_ms,
        "clear_ms_median": clear_ms,
        "auction_share": (step_ms - model_ms) / step_ms,
        "tokens_per_s": num_auctions / step_ms * 1e3,
    }


def main() -> None:
    """Measure every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=200, help="steps per case")
    parser.add_argument("--model", default=None)
    parser.add_argument(
        "--runner", nargs="+", default=["cpp", "packed", "transformers"], help="measured one after the other"
    )
    arguments = parser.parse_args()
    results = [
        measure(runner, agents, auctions, arguments.tokens, arguments.model)
        for runner in arguments.runner
        for agents, auctions in CASES
    ]
    title = f"one reference row besides the agents; {torch.get_num_threads()} thread(s), torch {torch.__version__}"
    table = Table(
        "runner", "agents", "auctions", "ms per step", "p10", "model", "clearing", "not model", "tokens/s", title=title
    )
    for row in results:
        table.add_row(
            row["runner"],
            str(row["agents"]),
            str(row["auctions"]),
            *(f"{row[name]:.2f}" for name in ("step_ms_median", "step_ms_p10", "model_ms_median", "clear_ms_median")),
            f"{row['auction_share']:.0%}",
            f"{row['tokens_per_s']:.0f}",
        )
    Console().print(table)
    json.dump({"benchmark": "decoder", "threads": torch.get_num_threads(), "results": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()

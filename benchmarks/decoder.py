"""What a token of an auction costs: latency, first token, tokens per second, and what the auction adds to the model.

    python benchmarks/decoder.py [--quick] [--shape 15m] [--runner cpp packed transformers] [--numerics float32 int8]
                                 [--no-reference] [--plot decoder.png]

The whole decoder runs, receipts and all, on the shipped model or on random weights of a real shape: first one auction
with 1 to 32 agents, then 1 to 64 auctions of three. A step is one token of every auction; of it are given the model's
time (of which recording hides a part), clearing's, and the share in which the model does not compute. Bytes are what a
step must read: weights once, and all keys and values. Prints a table, then one JSON line.
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
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shapes
import torch
from peers_floor import bytes_per_token, read_bandwidth
from peers_report import origin
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, prompts_for, use_threads
from tokenauction.engine import decoder as decoder_module
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.checkpoint import load_causal_model
from tokenauction.models.loading import build_model
from tokenauction.models.toy import ToyTokenizer

CASES = [(agents, 1) for agents in (1, 2, 3, 4, 8, 16, 32)] + [(3, auctions) for auctions in (2, 4, 8, 16, 32, 64)]
QUICK = [(1, 1), (3, 1), (8, 1), (3, 8)]
WARM_UP = 5  # steps
DEFAULT = Path(__file__).resolve().parent.parent / "models" / "default"


@dataclass
class Stopwatch:
    """Adds up the seconds spent in what it is put around, step by step."""

    seconds: list[float] = field(default_factory=lambda: [0.0])

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[-1] += time.perf_counter() - started

        return timed


@dataclass(frozen=True)
class Subject:
    """What is measured: a model, how it is computed, and how auctions are made for it."""

    shape: str | None
    runner: str
    numerics: str
    has_reference: bool

    def decoder(self) -> Decoder:
        """A fresh decoder on the model."""
        options: dict[str, Any] = {"runner": self.runner, "numerics": self.numerics, "max_rows": 512}
        if self.shape is None:
            return new_decoder(load_model(None, **options))
        symbols = "".join(chr(0x4E00 + i) for i in range(shapes.config_of(self.shape).vocab_size - 1))
        return new_decoder(build_model(shapes.new_model(self.shape), ToyTokenizer(symbols), **options))

    def submit(self, decoder: Decoder, num_agents: int, num_tokens: int, seed: int) -> None:
        """One auction of agents with equal bids."""
        agents = tuple(AgentSpec(f"a{i}", f"Brand{i} Resort", f"rooms with view {i}", 1000) for i in range(num_agents))
        reference = 500 if self.has_reference else 0
        spec = AuctionSpec("Hawaii", agents, reference_weight_micros=reference, max_tokens=num_tokens, seed=seed)
        if self.shape is None:
            prompts = prompts_for(spec, decoder.model.tokenizer)
        else:
            shared, ids = shapes.prompts(decoder.model.vocab_size)[0], range(3, 3 + len(spec.row_ids))
            prompts = [[*shared[: shapes.SHARED_TOKENS], *[own] * shapes.OWN_TOKENS] for own in ids]
        decoder.submit(spec, prompts, Policy(), f"auction {seed}")


def measure(subject: Subject, decoder: Decoder, num_agents: int, num_auctions: int, num_tokens: int) -> dict[str, Any]:
    """One case: its steps in which all auctions run."""
    model_watch, clear_watch = Stopwatch(), Stopwatch()
    model: Any = decoder.model
    launch, clear_step = model.launch, decoder_module.clear_step
    model.launch = lambda *args: model_watch.around(model_watch.around(launch)(*args))
    decoder_module.clear_step = clear_watch.around(clear_step)
    steps: list[float] = []
    first: list[float] = []
    lengths: list[float] = []
    seed = 0
    try:
        while len(steps) < num_tokens + WARM_UP:
            for _ in range(num_auctions):
                subject.submit(decoder, num_agents, num_tokens, seed)
                seed += 1
            started = time.perf_counter()
            while not decoder.scheduler.running or decoder.scheduler.waiting or decoder.scheduler.reading:
                decoder.step()
            decoder.scheduler.wait()
            first.append(time.perf_counter() - started)
            while len(decoder.scheduler.running) == num_auctions and len(steps) < num_tokens + WARM_UP:
                for watch in (model_watch, clear_watch):
                    watch.seconds.append(0.0)
                lengths.append(
                    sum(
                        sum(map(len, p.gang.prompts)) + p.gang.num_tokens * p.gang.num_rows
                        for p in decoder.scheduler.running
                        if p.gang
                    )
                )
                started = time.perf_counter()
                decoder.step()
                steps.append(time.perf_counter() - started)
            for performance in decoder.scheduler.everybody():
                decoder.cancel(performance.auction.auction_id)
            while decoder.scheduler.has_work:
                decoder.step()
    finally:
        decoder_module.clear_step, model.launch = clear_step, launch
    rows = num_agents + subject.has_reference
    taken = [seconds * 1e3 for seconds in steps[WARM_UP:]]
    model_ms, clear_ms = (statistics.median(w.seconds[1 + WARM_UP :]) * 1e3 for w in (model_watch, clear_watch))
    return {
        "agents": num_agents,
        "auctions": num_auctions,
        "rows": rows * num_auctions,
        "mean_length": statistics.mean(lengths) / (rows * num_auctions),
        "step_ms_p10": statistics.quantiles(taken, n=10)[0],
        "step_ms_p50": statistics.median(taken),
        "step_ms_p99": statistics.quantiles(taken, n=100)[98],
        "first_token_ms": statistics.median(first) * 1e3,
        "model_ms": model_ms,
        "clear_ms": clear_ms,
        "not_model": max(0.0, 1 - model_ms / statistics.median(taken)),
        "tokens_per_s": num_auctions / statistics.mean(taken) * 1e3,
    }


def measure_all(subject: Subject, cases: list[tuple[int, int]], num_tokens: int) -> list[dict[str, Any]]:
    """Every case on one model, with what a step must read."""
    decoder = subject.decoder()
    model: Any = load_causal_model(DEFAULT, torch.float32) if subject.shape is None else shapes.new_model(subject.shape)
    bandwidth = read_bandwidth(bytes_per_token(model, 0, 0.0, subject.numerics))
    results = []
    for agents, auctions in cases:
        row = measure(subject, decoder, agents, auctions, num_tokens)
        num_bytes = bytes_per_token(model, row["rows"], row["mean_length"], subject.numerics)
        row |= {"bytes": num_bytes, "gb_per_s": num_bytes / row["step_ms_p50"] / 1e6, "bandwidth_gb_s": bandwidth / 1e9}
        named = {"runner": decoder.model.runner, "numerics": subject.numerics}
        results.append(named | row)
        print(f"{named} {agents} agents, {auctions} auctions: {row['step_ms_p50']:.2f} ms", file=sys.stderr, flush=True)
    return results


def print_table(results: list[dict[str, Any]], title: str) -> None:
    """For people."""
    columns = ("runner", "numerics", "agents", "auctions", "ms p10", "p50", "p99", "first", "model", "clear")
    table = Table(*columns, "not model", "tokens/s", "GB/s", "of", title=title, box=None, padding=(0, 1, 0, 0))
    for row in results:
        times = (row[name] for name in ("step_ms_p10", "step_ms_p50", "step_ms_p99", "first_token_ms", "model_ms"))
        table.add_row(
            *(str(row[name]) for name in ("runner", "numerics", "agents", "auctions")),
            *(f"{value:.2f}" for value in times),
            f"{row['clear_ms']:.2f}",
            f"{row['not_model']:.0%}",
            *(f"{row[name]:.1f}" for name in ("tokens_per_s", "gb_per_s", "bandwidth_gb_s")),
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def plot(results: list[dict[str, Any]], title: str, path: Path) -> None:
    """Milliseconds against agents, tokens per second against auctions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in dict.fromkeys((row["runner"], row["numerics"]) for row in results):
        rows = [row for row in results if (row["runner"], row["numerics"]) == name]
        alone, many = [r for r in rows if r["auctions"] == 1], [r for r in rows if r["agents"] == 3]
        left.plot([r["agents"] for r in alone], [r["step_ms_p50"] for r in alone], marker="o", label=" ".join(name))
        right.plot([r["auctions"] for r in many], [r["tokens_per_s"] for r in many], marker="o", label=" ".join(name))
    for axes, x, y in ((left, "agents of one auction", "ms per token, p50"), (right, "auctions of 3", "tokens per s")):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:.0f}")
        axes.set(xlabel=x, ylabel=y, ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every case and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="four cases, 40 steps")
    parser.add_argument("--tokens", type=int, default=100, help="steps of every case")
    parser.add_argument("--shape", choices=shapes.SHAPES, help="random weights instead of the shipped model")
    parser.add_argument("--runner", nargs="+", default=["cpp", "packed", "transformers"], help="one after the other")
    parser.add_argument("--numerics", nargs="+", default=["float32"], help="float32, bf16, int8")
    parser.add_argument("--no-reference", action="store_true", help="no row besides the agents'")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    use_threads()
    cases, num_tokens = (QUICK, 40) if arguments.quick else (CASES, arguments.tokens)
    results = []
    for runner in arguments.runner:
        for numerics in arguments.numerics:
            if (runner, numerics) != ("transformers", "int8"):
                subject = Subject(arguments.shape, runner, numerics, not arguments.no_reference)
                results += measure_all(subject, cases, num_tokens)
    shape, threads = arguments.shape or "shipped model", torch.get_num_threads()
    reference = "no reference" if arguments.no_reference else "one reference row besides the agents"
    title = f"{shape}, {reference}; {threads} thread(s), torch {torch.__version__}"
    print_table(results, title)
    if arguments.plot:
        plot(results, title, arguments.plot)
    report = {"benchmark": "decoder", "shape": shape, "reference": not arguments.no_reference, "threads": threads}
    json.dump(report | origin() | {"results": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()

"""What a softmax auction costs: candidates as one batch and scored in one pass, beside one by one, and beside one text.

    python benchmarks/finalizer.py [--quick] [--runner cpp packed] [--agents 2] [--proposal context_aware]
                                   [--top-p 0.95] [--plot FILE.png]

For M = 1 … 20 candidates, on the shipped model: the whole auction through the decoder, receipt and all; the same texts
(same seeds) written one after the other by the same runner and scored one prompt and one text at a time; and one text
alone, without scoring. Both ways must choose the same text. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peers_report import origin
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, prepare, use_threads
from tokenauction.engine.choice import decide
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.ensemble import Ensemble
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.spec import AgentSpec, AuctionSpec

CANDIDATES, QUICK = (1, 2, 4, 8, 12, 16, 20), (1, 8)
BRIEFS = [
    ("Alpha Airlines", "flights to Hawaii"), ("Beta Resort", "a quiet beach resort"), ("Gamma Tours", "guided walks"),
    ("Delta Cars", "cheap rental cars"), ("Epsilon Dive", "diving lessons"), ("Zeta Grill", "fresh fish"),
]  # fmt: skip


def spec_of(num_candidates: int, num_agents: int, proposal: Any, seed: int, top_p: float | None = None) -> AuctionSpec:
    """A softmax auction of agents who value a nat at 1."""
    agents = tuple(AgentSpec(f"a{i}", name, offer, 0) for i, (name, offer) in enumerate(BRIEFS[:num_agents]))
    finalizer = FinalizerSpec(num_candidates=num_candidates, proposal=proposal)
    return AuctionSpec(
        "Vacations in Hawaii", agents, temperature=0.8, top_p=top_p, max_tokens=64, max_sentences=1, seed=seed,
        finalizer=finalizer,
    )  # fmt: skip


def ensemble_of(decoder: Decoder, spec: AuctionSpec) -> Ensemble:
    """The auction, ready and not queued."""
    performance = prepare(decoder, spec)
    assert isinstance(performance, Ensemble), "the spec is that of a softmax auction"
    return performance


def finish(decoder: Decoder) -> None:
    """Step until nobody is left."""
    while decoder.has_work:
        decoder.step()


def together(decoder: Decoder, spec: AuctionSpec) -> tuple[float, str]:
    """Seconds that the auction takes, and the text it chooses."""
    ensemble = ensemble_of(decoder, spec)
    started = time.perf_counter()
    decoder.enqueue(ensemble)
    finish(decoder)
    return time.perf_counter() - started, ensemble.auction.text


def one_by_one(decoder: Decoder, spec: AuctionSpec) -> tuple[list[float], float, str]:
    """Seconds that every candidate's decoding takes alone, those of the scoring, and the text that is chosen."""
    ensemble = ensemble_of(decoder, spec)
    decoding = []
    for index, performance in enumerate(ensemble.performances):
        started = time.perf_counter()
        decoder.enqueue(performance)
        finish(decoder)
        decoding.append(time.perf_counter() - started)
        ensemble.complete(index)
    started = time.perf_counter()
    table = [
        [float(decoder.model.score([prompt], [c.token_ids])[0][0].double().sum()) for c in ensemble.candidates]
        for prompt in ensemble.prompts[: len(spec.agents) + 1]
    ]
    scores = torch.tensor(table, dtype=torch.float64)
    log_proposal = [candidate.log_proposal for candidate in ensemble.candidates]
    choice = decide(spec, ensemble.recorder.seed.value, table[-1], log_proposal, scores[:-1] - scores[-1])
    return decoding, time.perf_counter() - started, ensemble.candidates[choice.chosen].text


def measure(
    decoder: Decoder, num_candidates: int, num_agents: int, proposal: str, num_seeds: int, top_p: float | None
) -> dict[str, Any]:
    """One number of candidates: medians over seeds, the two ways in turn."""
    batch, alone, single, scoring = [], [], [], []
    for seed in range(num_seeds + 1):
        spec = spec_of(num_candidates, num_agents, proposal, seed, top_p)
        seconds, text = together(decoder, spec)
        decoding, score, other = one_by_one(decoder, spec)
        if text != other:
            raise SystemExit(f"M = {num_candidates}, seed {seed}: one by one chooses {other!r}, together {text!r}")
        if seed:  # the first warms up
            batch.append(seconds)
            alone.append(sum(decoding) + score)
            single.append(statistics.mean(decoding))
            scoring.append(score)
    middle = {name: statistics.median(values) * 1e3 for name, values in (
        ("together_ms", batch), ("one_by_one_ms", alone), ("one_text_ms", single), ("scoring_one_by_one_ms", scoring)
    )}  # fmt: skip
    return {
        "candidates": num_candidates,
        "agents": num_agents,
        **middle,
        "times_faster": middle["one_by_one_ms"] / middle["together_ms"],
        "ratio_to_one_text": middle["together_ms"] / middle["one_text_ms"],
    }


def print_table(results: list[dict[str, Any]], title: str) -> None:
    """For people."""
    heads = ("runner", "candidates", "together, ms", "one by one, ms", "times faster", "one text, ms", "ratio to it")
    table = Table(*heads, title=title, box=None)
    for row in results:
        numbers = ("together_ms", "one_by_one_ms", "times_faster", "one_text_ms", "ratio_to_one_text")
        table.add_row(row["runner"], str(row["candidates"]), *(f"{row[name]:.1f}" for name in numbers))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def plot(results: list[dict[str, Any]], title: str, path: Path) -> None:
    """Milliseconds against candidates, both ways."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for runner in dict.fromkeys(row["runner"] for row in results):
        rows = [row for row in results if row["runner"] == runner]
        x = [row["candidates"] for row in rows]
        axes.plot(x, [row["together_ms"] for row in rows], marker="o", label=f"{runner}: one batch")
        axes.plot(x, [row["one_by_one_ms"] for row in rows], marker="x", linestyle="--", label=f"{runner}: one by one")
    axes.set(xlabel="candidates", ylabel="ms", ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Measure every number of candidates and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="M = 1 and 8, three seeds")
    parser.add_argument("--seeds", type=int, default=10, help="auctions of every M")
    parser.add_argument("--agents", type=int, default=2, choices=range(1, len(BRIEFS) + 1))
    parser.add_argument("--proposal", default="context_aware", choices=("reference", "context_aware", "token_auction"))
    parser.add_argument("--top-p", type=float, help="likeliest tokens up to this mass; not what compiled code clears")
    parser.add_argument("--runner", nargs="+", default=["auto"], help="cpp, packed, transformers")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    use_threads()
    results = []
    for runner in arguments.runner:
        decoder = new_decoder(load_model(None, runner=runner, max_rows=128))
        for num_candidates in QUICK if arguments.quick else CANDIDATES:
            num_seeds = 3 if arguments.quick else arguments.seeds
            row = measure(decoder, num_candidates, arguments.agents, arguments.proposal, num_seeds, arguments.top_p)
            results.append({"runner": decoder.model.runner, "proposal": arguments.proposal} | row)
            print(f"M = {num_candidates}: {row['times_faster']:.1f} times faster", file=sys.stderr, flush=True)
    title = f"softmax auction, {arguments.agents} agents, {arguments.proposal}; {torch.get_num_threads()} thread(s)"
    print_table(results, title)
    if arguments.plot:
        plot(results, title, arguments.plot)
    json.dump(
        {"benchmark": "finalizer", "threads": torch.get_num_threads()} | origin() | {"results": results}, sys.stdout
    )
    print()


if __name__ == "__main__":
    main()

"""What smaller weights do to money: the same auctions in float32, bf16 and int8.

    python benchmarks/numerics.py [--texts 100]

Every text that float32 writes is read by the others token by token, under the same seeds and bids: how often would the
same token have been drawn, how far are payments off, step by step and in total? And left to themselves, how many texts
come out the same? Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peers_report import origin
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, prompts_for, submit
from tokenauction.engine.auction import Auction
from tokenauction.engine.outcome import StepOutcome
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import step_key
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.stepping import Standing, clear_step
from tokenauction.models.training.briefs import BriefWriter

BID_MICROS = 1000


def spec_of(seed: int) -> AuctionSpec:
    """Three held-out advertisers and the reference."""
    brief = BriefWriter(held_out=True).brief(random.Random(f"numerics/{seed}"), 3)
    agents = tuple(AgentSpec(f"a{i}", a.name, a.offer, BID_MICROS) for i, a in enumerate(brief.advertisers))
    return AuctionSpec(brief.query, agents, reference_weight_micros=500, seed=seed, max_tokens=60)


def write(model: Any, specs: list[AuctionSpec]) -> list[list[int]]:
    """The texts, each left to itself."""
    decoder = new_decoder(model)
    auctions = [submit(decoder, spec) for spec in specs]
    while decoder.scheduler.has_work:
        decoder.step()
    return [auction.token_ids for auction in auctions]


def read(model: Any, spec: AuctionSpec, text: list[int]) -> list[StepOutcome]:
    """What clearing decides at every step of a given text."""
    gang = model.admit(prompts_for(spec, model.tokenizer), len(text))
    bids = Auction(spec, "numerics").read_bids()
    logits = model.prefill([gang])
    outcomes = []
    for step, token in enumerate(text):
        (outcome,) = clear_step(
            [Standing(spec, text[:step], Policy())], [bids], [step_key(spec.seed or 0, step)], logits
        )
        assert isinstance(outcome, StepOutcome)
        outcomes.append(outcome)
        logits = model.step([gang], torch.tensor([token]))
    model.release(gang)
    return outcomes


def compare(name: str, model: Any, specs: list[AuctionSpec], truth: list[list[int]], exact: Any) -> dict[str, Any]:
    """One kind of numbers beside float32."""
    seen = [read(model, spec, text) for spec, text in zip(specs, truth, strict=True)]
    pairs = [pair for mine, theirs in zip(seen, exact, strict=True) for pair in zip(mine, theirs, strict=True)]
    off = [abs(a - b) for mine, theirs in pairs for a, b in zip(mine.owed[:-1], theirs.owed[:-1], strict=True)]
    totals = [
        (sum(sum(step.owed) for step in mine), sum(sum(step.owed) for step in theirs))
        for mine, theirs in zip(seen, exact, strict=True)
    ]
    own = write(model, specs)
    return {
        "numerics": name,
        "same_token": statistics.mean(mine.token == theirs.token for mine, theirs in pairs),
        "payment_off_mean": statistics.mean(off) / BID_MICROS,
        "payment_off_p99": statistics.quantiles(off, n=100)[98] / BID_MICROS,
        "total_off_mean": statistics.mean(abs(a - b) / b for a, b in totals if b > 0),
        "total_bias": sum(a for a, _ in totals) / sum(b for _, b in totals) - 1,
        "same_text": statistics.mean(a == b for a, b in zip(own, truth, strict=True)),
    }


def main() -> None:
    """Write, read, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=100)
    arguments = parser.parse_args()
    specs = [spec_of(seed) for seed in range(arguments.texts)]
    model = load_model(None, max_rows=128)
    truth = write(model, specs)
    exact = [read(model, spec, text) for spec, text in zip(specs, truth, strict=True)]
    cases = [("float32", "packed"), ("bf16", "packed"), ("int8", "packed")]
    if model.runner == "cpp":
        cases[1:1] = [("bf16", "cpp"), ("int8", "cpp")]
    results = [
        {"runner": runner}
        | compare(name, load_model(None, max_rows=128, runner=runner, numerics=name), specs, truth, exact)
        for name, runner in cases
    ]
    columns = ("runner", "numerics", "same token", "payment off, of the bid: mean", "p99", "a text's total off", "bias")
    table = Table(*columns, "same text", title=f"{len(specs)} auctions, beside float32 on {model.runner}")
    for row in results:
        shares = (f"{row[name]:.3%}" for name in row if name not in ("runner", "numerics"))
        table.add_row(row["runner"], row["numerics"], *shares)
    Console(width=None if sys.stdout.isatty() else 150).print(table)
    json.dump({"benchmark": "numerics", "texts": len(specs), **origin(), "results": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()

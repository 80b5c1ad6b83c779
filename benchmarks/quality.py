"""How well the shipped model writes: held-out brands, offers and queries through the real auction, for both rules.

    python benchmarks/quality.py [--pairs 200] [--model FOLDER] [--samples FILE]

Every brand, place, modifier and product is from the tenth of the word lists that training never saw. Prints a table for
people, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, settle_all
from tokenauction.clients.cli.sweep import RULES, mention
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.weight_sweep import at_weight
from tokenauction.models.prompts import Advertiser
from tokenauction.models.training.briefs import Brief, BriefWriter

WEIGHTS = (1.0, 0.75, 0.5, 0.25, 0.0)
TEMPERATURE = 0.7
MAX_TOKENS = 64
IN_TIME = 40  # tokens, the end token among them
TOTAL_WEIGHT = 1_000_000  # micros


@dataclass(frozen=True)
class Cell:
    """One row of the table: a rule and a weight, or one advertiser alone."""

    rule: str
    weight: float | None  # of the first advertiser; None for an advertiser alone


def held_out_briefs(num: int, num_advertisers: int) -> list[Brief]:
    """Briefs that share no drawn word with training; the same ones in every run."""
    writer = BriefWriter(held_out=True)
    return [writer.brief(random.Random(f"quality/{num_advertisers}/{i}"), num_advertisers) for i in range(num)]


def spec_of(brief: Brief, seed: int) -> AuctionSpec:
    """An auction between a brief's advertisers, equal bids."""
    agents = tuple(
        AgentSpec(f"agent{i}", a.name, a.offer, TOTAL_WEIGHT // len(brief.advertisers))
        for i, a in enumerate(brief.advertisers)
    )
    return AuctionSpec(brief.query, agents, pricing="free", temperature=TEMPERATURE, max_tokens=MAX_TOKENS, seed=seed)


def is_misbound(text: str, advertisers: Sequence[Advertiser]) -> bool:
    """Whether a brand stands with another's offer: each clause holds one brand and one offer, in either order."""
    found = sorted(
        (text.index(phrase), owner)
        for owner, advertiser in enumerate(advertisers)
        for phrase in (advertiser.name, advertiser.offer)
        if phrase in text
    )
    return any(found[i][1] != found[i + 1][1] for i in range(0, len(found) - 1, 2))


def figures(briefs: Sequence[Brief], settled: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Shares of texts, in 0…1."""
    num = len(settled)
    texts = [str(fields["text"]) for fields in settled]
    pairs = [(b.advertisers[0].name, b.advertisers[-1].name) for b in briefs]
    outcomes = [mention(text, *names) for text, names in zip(texts, pairs, strict=True)]
    in_time = [f["finish_reason"] == "end" and f["num_tokens"] <= IN_TIME for f in settled]
    misbound = [is_misbound(text, b.advertisers) for text, b in zip(texts, briefs, strict=True)]
    offers = [all(a.offer in t for a in b.advertisers if a.name in t) for t, b in zip(texts, briefs, strict=True)]
    shares = {name: outcomes.count(name) / num for name in ("first_only", "both", "second_only", "none")}
    return {
        **shares,
        "misbound": sum(misbound) / num,
        "offers_exact": sum(offers) / num,
        "ends_in_time": sum(in_time) / num,
    }


def measure(num_pairs: int, model: str | None) -> tuple[dict[Cell, dict[str, float]], list[str]]:
    """Every cell's figures, and 30 texts of the balanced cells, the first ones drawn."""
    alone, pairs = held_out_briefs(num_pairs, 1), held_out_briefs(num_pairs, 2)
    jobs = [(Cell("linear", None), [spec_of(brief, seed) for seed, brief in enumerate(alone)])]
    for rule in RULES:
        for weight in WEIGHTS:
            specs = [at_weight(spec_of(brief, 0), rule, weight, seed) for seed, brief in enumerate(pairs)]
            jobs.append((Cell(rule, weight), specs))
    decoder = new_decoder(load_model(model, max_rows=128))
    results: dict[Cell, dict[str, float]] = {}
    samples: list[str] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("writing", total=sum(len(specs) for _, specs in jobs))
        for cell, specs in jobs:
            settled = settle_all(decoder, specs, lambda: progress.advance(task))
            results[cell] = figures(alone if cell.weight is None else pairs, settled)
            if cell.weight == 0.5:
                samples += [f"{cell.rule}: {fields['text']}".replace("\n", " ⏎ ") for fields in settled[:15]]
    return results, samples


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--model", default=None)
    parser.add_argument("--samples", type=Path, default=None, help="write 30 texts here, the first drawn")
    arguments = parser.parse_args()
    results, samples = measure(arguments.pairs, arguments.model)
    names = ("first_only", "both", "second_only", "none", "misbound", "offers_exact", "ends_in_time")
    table = Table(
        "rule", "weight of first", *names, title=f"{arguments.pairs} held-out briefs, temperature {TEMPERATURE}"
    )
    for cell, shares in results.items():
        weight = "alone" if cell.weight is None else f"{cell.weight:.2f}"
        table.add_row(cell.rule, weight, *(f"{shares[name]:.1%}" for name in names))
    Console().print(table)
    if arguments.samples is not None:
        arguments.samples.write_text("\n".join(samples) + "\n", encoding="utf-8")
    cells = [{"rule": cell.rule, "weight": cell.weight, **shares} for cell, shares in results.items()]
    json.dump(
        {"benchmark": "quality", "pairs": arguments.pairs, "temperature": TEMPERATURE, "cells": cells}, sys.stdout
    )
    print()


if __name__ == "__main__":
    main()

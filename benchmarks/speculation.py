"""Would it pay to run ahead? Drafts looked up in the agents' own prompts, accepted where they equal the drawn token.

    python benchmarks/speculation.py [--texts 60]

A step that checks k drafted tokens reads 1 + k tokens a row at once; as each token is drawn by its own step's numbers,
the text would stay what it is. How many drafts would be accepted is counted on texts of the shipped model; what a pass
over 1 + k tokens a row costs is timed. Both together are the gain in the model's time; clearing is per token as ever.
Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from peers_report import origin
from rich.console import Console
from rich.table import Table

from tokenauction.clients.cli.compose import load_model, new_decoder, prompts_for, submit
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.token_batch import TokenBatch
from tokenauction.models.training.briefs import BriefWriter

CONTEXT = (2, 1)  # tokens that a draft must follow on, the longer match first


def texts(decoder: Decoder, num: int) -> list[tuple[list[list[int]], list[int]]]:
    """Prompts and text of auctions of three held-out advertisers and the reference."""
    written = []
    for seed in range(num):
        brief = BriefWriter(held_out=True).brief(random.Random(f"speculation/{seed}"), 3)
        agents = tuple(AgentSpec(f"a{i}", a.name, a.offer, 1000) for i, a in enumerate(brief.advertisers))
        spec = AuctionSpec(brief.query, agents, reference_weight_micros=500, seed=seed, max_tokens=60)
        written.append((prompts_for(spec, decoder.model.tokenizer), submit(decoder, spec)))
    while decoder.scheduler.has_work:
        decoder.step()
    return [(prompts, auction.token_ids) for prompts, auction in written]


def draft(sources: Sequence[list[int]], text: list[int], num: int) -> list[int]:
    """What followed the last time the text's last tokens stood anywhere; empty if they never did."""
    for length in CONTEXT:
        end = text[-length:]
        for source in (text[:-1], *sources):
            for place in range(len(source) - length, -1, -1):
                if source[place : place + length] == end and source[place + length :]:
                    return source[place + length : place + length + num]
    return []


def acceptance(written: Sequence[tuple[list[list[int]], list[int]]], num: int) -> tuple[float, float]:
    """Tokens a step, and the share of steps that had a draft."""
    steps = tokens = drafted = 0
    for prompts, text in written:
        place = 1  # the first token follows the prompts' own pass
        while place < len(text):
            guess = draft(prompts, text[:place], num)
            agreed = next(
                (i for i, pair in enumerate(zip(guess, text[place:], strict=False)) if pair[0] != pair[1]), None
            )
            taken = min(1 + (len(guess) if agreed is None else agreed), len(text) - place)
            steps, tokens, drafted, place = steps + 1, tokens + taken, drafted + bool(guess), place + taken
    return tokens / steps, drafted / steps


def pass_ms(model: Any, num_auctions: int, num_tokens: int, repeats: int = 60) -> float:
    """A pass over so many tokens a row of that many auctions of four rows, behind 100 tokens."""
    prompts = [[3 + row, *range(5, 104)] for row in range(4 * num_auctions)]
    gang = model.admit(prompts, 16)
    model.prefill([gang])
    rows = model._rows[gang]
    counts = [num_tokens] * len(rows)
    lengths = [100 + num_tokens] * len(rows)
    model._pages.extend(rows, lengths)
    ids = torch.full((sum(counts),), 7)
    times = []
    for _ in range(repeats):
        compute = model._network.launch(
            TokenBatch(ids, model._page_tensor(rows), counts, lengths, counts), model._cache
        )
        started = time.perf_counter()
        compute()
        times.append(time.perf_counter() - started)
    model.release(gang)
    return statistics.median(times) * 1e3


def main() -> None:
    """Count, time, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=60)
    arguments = parser.parse_args()
    decoder = new_decoder(load_model(None, max_rows=256))
    written = texts(decoder, arguments.texts)
    results = []
    for num in (1, 2, 3, 4):
        per_step, share = acceptance(written, num)
        for auctions in (1, 8):
            plain, ahead = (pass_ms(decoder.model, auctions, count) for count in (1, 1 + num))
            cost = 1 + share * (ahead / plain - 1)
            results.append(
                {"drafted": num, "auctions": auctions, "tokens_per_step": per_step, "steps_with_draft": share}
                | {"plain_ms": plain, "ahead_ms": ahead, "gain": per_step / cost}
            )
    table = Table("drafted", "auctions", "tokens a step", "steps with a draft", "pass, ms", "with drafts", "gain")
    for row in results:
        table.add_row(
            *(str(row[name]) for name in ("drafted", "auctions")),
            f"{row['tokens_per_step']:.2f}",
            f"{row['steps_with_draft']:.0%}",
            *(f"{row[name]:.2f}" for name in ("plain_ms", "ahead_ms", "gain")),
        )
    Console().print(table)
    report = {"benchmark": "speculation", "runner": decoder.model.runner, **origin()}
    json.dump(report | {"results": results}, sys.stdout)
    print()


if __name__ == "__main__":
    main()

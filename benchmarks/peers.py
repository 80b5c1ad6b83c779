"""Milliseconds per token of an auction of three agents: other ways to run the same model, and ours, in one run.

    python benchmarks/peers.py --shape 15m [--threads 1] [--only NAME...] [--quick] [--plot peers.png]

All compute the same random weights of a real shape, on the same prompts, bids and seed, with as many threads. First
every peer reads one text, written in float32 by transformers, and what it computes is compared with transformers'
logits; one whose error is above its precision's tolerance is reported and not timed. Then they take turns, round after
round, so that noise hits all alike. A step is everything from one drawn token to the next; ours prices every agent
besides, which none of the others does. Prints a table, then one JSON line; whatever else is said goes to stderr.

All peers are in memory at once: for the large shapes choose some with --only.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TextIO

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import peers_transformers
import shapes
import torch
import transformers
from peers_draw import TOLERANCES, Check, Draft, Peer, PeerMissing, write
from peers_floor import Floor
from peers_report import Report, Result

WARM_UP = 5  # steps of every text

Build = Callable[[], Peer]


def builders(model: Any, max_tokens: int, folder: Path, threads: int, never: int) -> dict[str, Build]:
    """How each peer is made; the import of its package waits until then. `never` is an id that no text holds."""

    def other(module: str, name: str) -> Peer:
        if module == "onnx":
            import peers_onnx

            return peers_onnx.OnnxRuntime(model, max_tokens, folder, peers_onnx.PEERS[name], threads, never)
        if module == "llama.cpp":
            import peers_llama_cpp

            return peers_llama_cpp.LlamaCpp(model, max_tokens, folder, peers_llama_cpp.PEERS[name], threads)
        import peers_ours

        return peers_ours.TokenAuction(model, max_tokens, *peers_ours.PEERS[name])

    made: dict[str, Build] = {name: partial(kind, model, max_tokens) for name, kind in peers_transformers.PEERS.items()}
    for module, names in OTHERS.items():
        made |= {name: partial(other, module, name) for name in names}
    return made


OTHERS = {
    "onnx": [f"onnxruntime-genai-{kind}" for kind in ("fp32", "int8", "int4")],
    "llama.cpp": [f"llama.cpp-{kind}" for kind in ("f32", "bf16", "q8")],
    "ours": [f"tokenauction-{runner}-{kind}" for runner in ("packed", "cpp") for kind in ("fp32", "bf16", "int8")],
}
NAMES = [*peers_transformers.PEERS, *(name for names in OTHERS.values() for name in names)]


def say(message: str) -> None:
    """Progress, for whoever waits."""
    print(message, file=sys.stderr, flush=True)


def prepare(name: str, build: Build, prompts: list[list[int]], truth: Draft) -> tuple[Result, Peer | None]:
    """Build one peer and compare its logits; without a peer the result says why."""
    say(f"building {name}")
    try:
        peer = build()
        check = Check.of(peer, prompts, truth)
    except (PeerMissing, RuntimeError, ValueError, OSError) as error:  # as its library may fail, in its own words
        return Result(name, skipped=next(iter(str(error).splitlines()), type(error).__name__)), None
    result = Result(name, peer.num_agents, peer.numerics, peer.note, check.tokens_equal, check.logits_rms_error)
    if not check.logits_rms_error <= TOLERANCES[peer.numerics]:
        result.skipped = f"logits do not match (tolerance {TOLERANCES[peer.numerics]:g}), so not timed"
        return result, None
    return result, peer


def measure(shape: str, threads: int, num_tokens: int, num_rounds: int, names: list[str]) -> Report:
    """Build, compare, then time in rounds; every round begins with another peer."""
    torch.set_num_threads(threads)
    model = shapes.new_model(shape)
    prompts = shapes.prompts(model.config.vocab_size)
    num_steps = WARM_UP + num_tokens
    max_tokens = max(map(len, prompts)) + num_steps
    truth = write(peers_transformers.Proxy(model, max_tokens), prompts, num_steps, keeps_logits=True)
    used = {token for row in (*prompts, truth.tokens) for token in row}
    never = next(token for token in reversed(range(model.config.vocab_size)) if token not in used)
    floor = Floor(model, len(prompts), max_tokens - num_tokens / 2)
    with tempfile.TemporaryDirectory() as folder:
        build = builders(model, max_tokens, Path(folder), threads, never)
        prepared = [prepare(name, build[name], prompts, truth) for name in names]
        timed = [(result, peer) for result, peer in prepared if peer is not None]
        for round_number in range(num_rounds):
            say(f"round {round_number + 1} of {num_rounds}")
            floor.measure()
            first = round_number * len(timed) // num_rounds
            for result, peer in timed[first:] + timed[:first]:
                ends = write(peer, prompts, num_steps, text=truth.tokens).ends[WARM_UP - 1 :]
                result.step_ms += [(end - start) * 1e3 for start, end in itertools.pairwise(ends)]
    return Report(shape, threads, floor, [result for result, _ in prepared])


def own_stdout() -> TextIO:
    """The real stdout; from now on whatever libraries print there, in C or in Python, goes to stderr."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return stdout


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="15m")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 1) - 1), help="of every peer")
    parser.add_argument("--tokens", type=int, default=64, help="timed steps of a text")
    parser.add_argument("--rounds", type=int, default=5, help="texts of every peer")
    parser.add_argument("--quick", action="store_true", help="16 tokens, 3 rounds")
    parser.add_argument("--only", nargs="+", choices=NAMES, metavar="NAME", default=NAMES, help=", ".join(NAMES))
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.rounds = 16, 3
    for name, least, most in (("threads", 1, os.cpu_count() or 1), ("tokens", 2, 512), ("rounds", 1, 1000)):
        if not least <= getattr(arguments, name) <= most:
            parser.error(f"--{name} is {getattr(arguments, name)}; give {least} to {most}")
    return arguments


def main() -> None:
    """Measure and print."""
    arguments = parse()
    stdout = own_stdout()
    transformers.logging.set_verbosity_error()
    try:
        report = measure(arguments.shape, arguments.threads, arguments.tokens, arguments.rounds, arguments.only)
    except MemoryError as error:
        sys.exit(f"{arguments.shape} does not fit: {error}")
    report.print_table(stdout)
    if arguments.plot:
        report.plot(arguments.plot)
    json.dump(report.to_mapping(), stdout)
    print(file=stdout, flush=True)


if __name__ == "__main__":
    main()

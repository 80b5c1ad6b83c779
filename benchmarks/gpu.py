"""What a token costs on a GPU: auctions of three agents on models of real shape, ours and transformers', in one run.

    python benchmarks/gpu.py [--shape llama-3.1-8b llama-3.2-1b qwen3-0.6b] [--auctions 1 2 4 8 16 32] [--tokens 256]
    python benchmarks/gpu.py --dry-run     # the same code on a CPU with a tiny shape, step by step: no figure of use

Weights are random bf16, made on the device. For every number of auctions in one batch: milliseconds between tokens as
the caller sees them (p50, p99; a step is one token of every auction, recorded and on its receipt), the device's own
time for a step and for the auction's kernels (CUDA events around replays), and the step over its floor: the bytes of
weights, keys and values that it must read, at the speed at which this device read or copied memory in this run. Peers
are transformers' batched decoding with a DynamicCache, and with a static cache and a compiled step. Prints a table for
each shape, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import shapes
import torch
from gpu_peers import Batched, Compiled
from rich.console import Console
from rich.table import Column, Table

from tokenauction.clients.cli.compose import new_decoder
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.device_buffers import Bucket
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.llama_cuda import DeviceLlama
from tokenauction.models.loading import build_model
from tokenauction.models.toy import ToyTokenizer

SHAPES = ("llama-3.1-8b", "llama-3.2-1b", "qwen3-0.6b")
WARM_UP = 8  # steps of every text; the first capture the graphs
REPLAYS = 50  # of one step, for the device's own time
CACHE_BYTES = 8 * 2**30


class IdTokenizer(ToyTokenizer):
    """Names every id by its number; nothing ends a text, so that every text is as long as asked for."""

    @property
    def end_ids(self) -> frozenset[int]:
        return frozenset()

    def decode(self, ids: Any) -> str:
        return "".join(f" {number}" for number in ids)

    def text_stream(self) -> Any:
        return IdStream()


class IdStream:
    """The text stream of `IdTokenizer`."""

    def push(self, token: int) -> str:
        return f" {token}"

    def finish(self) -> str:
        return ""


def new_network(shape: str, device: str, dtype: torch.dtype) -> Any:
    """A transformers model of a shape, made on the device, with weights drawn as `shapes.new_model` draws them."""
    from transformers import AutoModelForCausalLM

    config = shapes.config_of(shape)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.fill_(1.0)
                continue
            is_vocabulary = "embed_tokens" in name or "lm_head" in name
            std = shapes.LOGIT_STD / math.sqrt(config.hidden_size) if is_vocabulary else weight.shape[1] ** -0.5
            weight.normal_(0.0, std, generator=generator)
    return model.eval()


def seconds_of(function: Callable[[], Any], device: str, repeats: int) -> float:
    """Seconds of one call, by the device's own clock where it has one: the mean of `repeats` behind each other."""
    function()
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(repeats):
            function()
        return (time.perf_counter() - started) / repeats
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        function()
    stop.record()
    stop.synchronize()
    return float(start.elapsed_time(stop)) / 1e3 / repeats


def bandwidth(device: str) -> float:
    """Bytes per second, read and written, of the faster of copying and reading a large buffer."""
    size = 2**30 if device != "cpu" else 2**24
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    copied = 2 * size / seconds_of(lambda: target.copy_(source), device, 10)
    read = size / seconds_of(source.amax, device, 10)
    return max(copied, read)


def floor_bytes(network: Any, num_rows: int, mean_length: float) -> float:
    """Every matrix and norm once (the head among them), an embedding a row, every row's keys and values."""
    config, itemsize = network.config, network.dtype.itemsize
    weights = sum(weight.numel() for name, weight in network.named_parameters() if "embed_tokens" not in name)
    if config.tie_word_embeddings:
        weights += config.vocab_size * config.hidden_size
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * num_rows * mean_length
    return float((weights + num_rows * config.hidden_size + cached) * itemsize)


def prompts_of(vocab_size: int, auction: int) -> list[list[int]]:
    """One prompt an agent, of one length; no two auctions share one."""
    return shapes.prompts(vocab_size, seed=auction)


def text_seconds(decoder: Decoder, num_auctions: int, num_tokens: int, first_seed: int) -> list[float]:
    """Write as many texts at a time; the seconds of the steps in which all of them draw, without the first."""
    for number in range(num_auctions):
        agents = tuple(AgentSpec(f"agent {i}", f"Brand {i}", "rooms", 1000 + 500 * i) for i in range(shapes.NUM_AGENTS))
        spec = AuctionSpec("a benchmark", agents, temperature=1.0, max_tokens=num_tokens, seed=first_seed + number)
        decoder.submit(spec, prompts_of(decoder.model.vocab_size, number), Policy(), f"{first_seed}-{number}")
    seconds: list[float] = []
    while decoder.scheduler.has_work:
        started = time.perf_counter()
        events = decoder.step()
        elapsed = time.perf_counter() - started
        failed = [event.fields for event in events if event.type == "error"]
        assert not failed, failed
        if sum(event.type == "auction.token" for event in events) == num_auctions:
            seconds.append(elapsed)
    return seconds[WARM_UP:]


def device_seconds(decoder: Decoder, num_auctions: int, device: str) -> tuple[float, float]:
    """The device's own time for one step and for its clearing, in the buffers that the last texts have left."""
    loop = decoder.device
    assert loop is not None, "the benchmark is of steps on the device"
    bucket = Bucket.of([shapes.NUM_AGENTS] * num_auctions, loop.buffers.most)
    repeats = REPLAYS if device != "cpu" else 2
    with torch.inference_mode():
        step = seconds_of(lambda: loop.device_step.run(bucket), device, repeats)
        logits = torch.randn(bucket.rows, decoder.model.vocab_size, device=device) * shapes.LOGIT_STD
        clear: Callable[[], Any] = lambda: loop.device_step.clear(logits, loop.buffers, bucket)  # noqa: E731
        if device != "cpu":
            clear()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                clear()
            clear = graph.replay
        return step, seconds_of(clear, device, repeats)


def summary(name: str, num_auctions: int, seconds: list[float]) -> dict[str, Any]:
    """How long the tokens of one way took."""
    ordered = sorted(seconds)
    return {
        "name": name,
        "auctions": num_auctions,
        "steps": len(seconds),
        "ms_p50": statistics.median(ordered) * 1e3,
        "ms_p99": ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))] * 1e3,
        "tokens_per_s": num_auctions * len(seconds) / sum(seconds),
    }


def measure_ours(network: Any, arguments: argparse.Namespace, device: str, speed: float) -> list[dict[str, Any]]:
    """Every number of auctions on our own runner."""
    tokenizer = IdTokenizer("ab")
    max_rows = shapes.NUM_AGENTS * max(arguments.auctions)
    if device == "cpu":
        model: Any = DeviceLlama(network, tokenizer, runner="packed", max_rows=max_rows)
    else:
        model = build_model(
            network, tokenizer, runner="cuda", numerics="bf16", max_rows=max_rows, cache_bytes=CACHE_BYTES
        )
    decoder = new_decoder(model, steps="device")
    rows = []
    for num_auctions in arguments.auctions:
        text_seconds(decoder, num_auctions, WARM_UP + 2, 0)  # captures
        seconds = text_seconds(decoder, num_auctions, arguments.tokens, 1)
        step, clearing = device_seconds(decoder, num_auctions, device)
        mean_length = len(prompts_of(model.vocab_size, 0)[0]) + arguments.tokens / 2
        floor = floor_bytes(network, shapes.NUM_AGENTS * num_auctions, mean_length) / speed
        row = summary("tokenauction", num_auctions, seconds)
        row |= {"device_ms": step * 1e3, "clearing_ms": clearing * 1e3, "auction_share": clearing / step}
        rows.append(row | {"floor_ms": floor * 1e3, "over_floor": row["ms_p50"] / (floor * 1e3)})
    return rows


def measure_peers(network: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The same numbers of auctions by transformers; one that fails is reported with its reason."""
    kinds = {kind.name: kind for kind in (Batched, Compiled)}
    rows = []
    for name in arguments.peers:
        for num_auctions in arguments.auctions:
            vocab_size = network.config.vocab_size
            prompts = [prompt for number in range(num_auctions) for prompt in prompts_of(vocab_size, number)]
            try:
                peer = kinds[name](network, shapes.NUM_AGENTS)
                peer.step_seconds(prompts, arguments.tokens)  # warms up
                seconds = peer.step_seconds(prompts, arguments.tokens)[WARM_UP:]
            except (RuntimeError, TypeError, ValueError) as error:
                rows.append({"name": name, "auctions": num_auctions, "skipped": str(error).partition("\n")[0]})
                continue
            rows.append(summary(name, num_auctions, seconds))
    return rows


def print_table(shape: str, rows: list[dict[str, Any]], title: str) -> None:
    """One shape's rows for people."""
    columns = ["ms_p50", "ms_p99", "tokens_per_s", "device_ms", "clearing_ms", "auction_share"]
    columns += ["floor_ms", "over_floor"]
    table = Table(
        Column("", no_wrap=True),
        "auctions",
        *(column.replace("_", " ") for column in columns),
        title=f"{shape}; {title}",
    )
    for row in rows:
        cells = (f"{row[column]:.3g}" if column in row else "" for column in columns)
        table.add_row(row["name"] + (" (skipped)" if "skipped" in row else ""), str(row["auctions"]), *cells)
    Console(file=sys.stdout, width=130).print(table)


def main() -> None:
    """Measure every shape and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", nargs="+", default=list(SHAPES), choices=list(shapes.SHAPES))
    parser.add_argument("--auctions", nargs="+", type=int, default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--tokens", type=int, default=256, help="of one text")
    parser.add_argument("--peers", nargs="*", default=[Batched.name, Compiled.name])
    parser.add_argument("--dry-run", action="store_true", help="on a CPU, tiny, without a compiled peer")
    arguments = parser.parse_args()
    device = "cuda"
    if arguments.dry_run:
        device, arguments.shape, arguments.tokens = "cpu", ["tiny"], WARM_UP + 6
        arguments.auctions, arguments.peers = [1, 3], [Batched.name]
    elif not torch.cuda.is_available():
        parser.error("this torch finds no CUDA device; --dry-run runs the same code on a CPU")
    name = "cpu, dry run" if device == "cpu" else torch.cuda.get_device_name()
    speed = bandwidth(device)
    results: dict[str, list[dict[str, Any]]] = {}
    for shape in arguments.shape:
        network = new_network(shape, device, torch.float32 if device == "cpu" else torch.bfloat16)
        results[shape] = measure_ours(network, arguments, device, speed) + measure_peers(network, arguments)
        print_table(shape, results[shape], f"{name}, {speed / 1e12:.2f} TB/s, torch {torch.__version__}")
    line = {"benchmark": Path(__file__).stem, "device": name, "bytes_per_s": speed, "torch": torch.__version__}
    print(json.dumps(line | {"dry_run": arguments.dry_run, "agents": shapes.NUM_AGENTS, "results": results}))


if __name__ == "__main__":
    main()

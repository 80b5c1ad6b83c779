"""What only a CUDA device can show: graphs against single steps, company against solitude, nothing that waits.

None of this runs without one. Weights are random, head widths those of real models. The kernels' own tests
(test_auction_kernels, test_paged_attention, test_llama_fused) use the device too where there is one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import pytest
import torch
import transformers

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.device_loop import DeviceLoop
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import Line
from tokenauction.engine.replay import replay
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.loading import build_model
from tokenauction.models.toy import ToyTokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this torch finds no CUDA device"),
]

SYMBOLS = "abcdefghijklmnopqrstuvwxyz ."
VOCAB_SIZE = 32_000


@cache
def network(dtype: torch.dtype) -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1024,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=512,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = transformers.LlamaForCausalLM(config)
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=2.5 * weight.shape[1] ** -0.5)
    return model.to("cuda", dtype)


def model_of(numerics: str, max_rows: int = 128) -> Any:
    dtype = torch.bfloat16 if numerics == "bf16" else torch.float32
    return build_model(network(dtype), ToyTokenizer(SYMBOLS), runner="cuda", numerics=numerics, max_rows=max_rows)


def decoder_of(numerics: str, *, capture: bool = True) -> Decoder:
    count = itertools.count()
    model = model_of(numerics)
    decoder = Decoder(model, stamp=lambda: (f"evt_{next(count)}", 0.0), entropy=lambda n: bytes(range(n)))
    assert decoder.device is not None, "a model on CUDA steps there"
    if not capture:
        decoder.device = DeviceLoop(model, capture=False)
    return decoder


def spec_of(seed: int, max_tokens: int = 40) -> AuctionSpec:
    pricing: Any = ("critical_bid", "expected", "first_price", "free")[seed % 4]
    budgets = (None, 20_000)
    agents = tuple(
        AgentSpec(f"agent{i}", f"Name{i}", "offer", 1000 + 700 * i, budgets[(seed + i) % 2])
        for i in range(1 + seed % 4)
    )
    return AuctionSpec(
        "query", agents, seed=seed, pricing=pricing, max_tokens=max_tokens, reference_weight_micros=300 * (seed % 2)
    )


def prompts_of(spec: AuctionSpec) -> list[list[int]]:
    return [[*range(100, 130), spec.seed or 0, 200 + row] for row in range(len(spec.row_ids))]


def write(decoder: Decoder, *specs: AuctionSpec) -> list[list[Line]]:
    """The receipts of these auctions, written together; each of them holds."""
    for number, spec in enumerate(specs):
        decoder.submit(spec, prompts_of(spec), Policy(), str(number))
    found = {}
    while decoder.scheduler.has_work:
        for event in decoder.step():
            if event.type == "auction.settled":
                found[int(event.auction_id)] = [dict(line) for line in event.receipt]
    for lines in found.values():
        verdict = verify(lines)
        assert verdict.holds, verdict
    return [found[number] for number in range(len(specs))]


def tokens(lines: list[Line]) -> list[int]:
    return [line["token"] for line in lines[1:-1]]


@pytest.mark.parametrize("numerics", ["float32", "bf16"])
def test_graphs_write_what_single_steps_write(numerics: str) -> None:
    specs = [spec_of(seed) for seed in range(7)]
    graphs = write(decoder_of(numerics), *specs)
    single = write(decoder_of(numerics, capture=False), *specs)
    for mine, theirs in zip(graphs, single, strict=True):
        assert tokens(mine) == tokens(theirs)
        for here, there in zip(mine[1:-1], theirs[1:-1], strict=True):
            assert here["owed"] == pytest.approx(there["owed"], rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("numerics", ["float32", "bf16"])
def test_receipts_of_the_device_hold_when_the_model_is_run_again(numerics: str) -> None:
    specs = [spec_of(seed) for seed in range(5)]
    for spec, lines in zip(specs, write(decoder_of(numerics), *specs), strict=True):
        assert lines[0]["clearing"] == "device"
        verdict = replay(lines, model_of(numerics), prompts_of(spec), Policy())
        assert verdict.holds, verdict


@pytest.mark.parametrize(("numerics", "tolerance"), [("float32", 1e-3), ("bf16", 5e-2)])
def test_auction_among_31_others_is_alone_up_to_rounding(numerics: str, tolerance: float, record_property: Any) -> None:
    specs = [spec_of(seed) for seed in range(32)]
    crowd = write(decoder_of(numerics), *specs)
    decoder = decoder_of(numerics)
    num_parted = 0
    for spec, among in zip(specs, crowd, strict=True):
        [alone] = write(decoder, spec)
        for here, there in zip(among[1:-1], alone[1:-1], strict=False):
            if here["token"] != there["token"]:  # the uniform fell between two sums: from here on, other texts
                num_parted += 1
                break
            assert here["p"] == pytest.approx(there["p"], abs=tolerance)
    record_property("share_of_texts_that_part", num_parted / len(specs))
    print(f"{numerics}: {num_parted} of {len(specs)} texts part from what they are alone")


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Whatever would make the host wait for the device raises; waiting for an event, as a result is read, does not."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_nothing_waits_for_the_device_once_a_step_is_captured() -> None:
    decoder = decoder_of("bf16")
    for seed in range(4):
        spec = spec_of(seed)
        decoder.submit(spec, prompts_of(spec), Policy(), str(seed))
    for _ in range(4):
        decoder.step()
    assert decoder.device is not None
    running = [performance for performance in decoder.scheduler.running if performance.is_elsewhere]
    with torch.inference_mode(), nothing_waits():
        before = decoder.device.step(running)
        for landed in before:
            decoder._take_in(landed.performance, landed.bids, landed.outcome)
        decoder.device.step([performance for performance in running if performance.gang is not None])
    assert len(before) == 4

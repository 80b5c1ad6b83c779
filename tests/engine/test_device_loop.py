"""Steps on the device, run here one by one on a CPU, against the ordinary decoder: the same texts, bills and receipts.

The model is a tiny Llama with random weights. Its two ways of computing part by rounding, so numbers are compared
within a tolerance, and tokens exactly.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.engine.auction import Auction
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.device_loop import DeviceLoop, is_covered
from tokenauction.engine.events import Event
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import Line
from tokenauction.engine.replay import replay
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.kv_cache import PAGE_SIZE
from tokenauction.models.llama_cuda import DeviceLlama
from tokenauction.models.toy import ToyTokenizer

VOCAB_SIZE, LAYERS, WIDTH = 13, 2, 16
PAGE_BYTES = 2 * LAYERS * WIDTH * 4 * PAGE_SIZE
SYMBOLS = "abcdefghij ."
PRICINGS = ("critical_bid", "expected", "first_price", "free")


@cache
def network() -> Any:
    config = transformers.LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=WIDTH,
        intermediate_size=24,
        num_hidden_layers=LAYERS,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: Any = transformers.LlamaForCausalLM(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.3) if weight.dim() > 1 else None
    return model


def model_of(num_pages: int = 1000, max_rows: int = 160) -> DeviceLlama:
    tokenizer = ToyTokenizer(SYMBOLS)
    options: dict[str, Any] = {"max_rows": max_rows, "cache_bytes": num_pages * PAGE_BYTES}
    return DeviceLlama(network(), tokenizer, runner="packed", **options)


def decoder_of(steps: Any, *, store_distributions: bool = False, **options: Any) -> Decoder:
    count = itertools.count()
    return Decoder(
        model_of(**options),
        stamp=lambda: (f"evt_{next(count)}", 0.0),
        entropy=lambda n: bytes(range(n)),
        steps=steps,
        store_distributions=store_distributions,
    )


def spec_of(*bids: int, seed: int = 7, budgets: tuple[int | None, ...] = (), **changes: Any) -> AuctionSpec:
    left = itertools.chain(budgets, itertools.repeat(None))
    agents = tuple(AgentSpec(f"agent{i}", f"Name{i}", "offer", bid, next(left)) for i, bid in enumerate(bids))
    return AuctionSpec("query", agents, seed=seed, **{"max_tokens": 12, "temperature": 1.0, **changes})


def prompts_of(spec: AuctionSpec) -> list[list[int]]:
    return [[1, 2, 3, *[4] * (PAGE_SIZE - 5), 5 + row % 7] for row in range(len(spec.row_ids))]


def submit(decoder: Decoder, spec: AuctionSpec, name: str = "auction", policy: Policy | None = None) -> Auction:
    return decoder.submit(spec, prompts_of(spec), policy or Policy(), name)


def finish(decoder: Decoder) -> list[Event]:
    events: list[Event] = []
    for _ in range(10_000):
        if not decoder.has_work:
            return events
        events += decoder.step()
    raise AssertionError("the decoder does not come to an end")


def receipts(events: list[Event]) -> dict[str, list[Line]]:
    """Every auction's receipt, which holds, and whose events are dense."""
    found, seqs = {}, defaultdict(list)
    for event in events:
        seqs[event.auction_id].append(event.seq)
        if event.type == "auction.settled":
            found[event.auction_id] = [dict(line) for line in event.receipt]
    assert all(seq == list(range(len(seq))) for seq in seqs.values())
    for lines in found.values():
        verdict = verify(lines)
        assert verdict.holds, verdict
    return found


def assert_alike(mine: list[Line], theirs: list[Line]) -> None:
    """Two receipts of one auction: what is exact is equal, what follows from logits is near."""
    assert [line["kind"] for line in mine] == [line["kind"] for line in theirs]
    for here, there in zip(mine[1:-1], theirs[1:-1], strict=True):
        for name in ("token", "text", "key", "bids", "status"):
            assert here[name] == there[name], (name, here["step"])
        assert here.keys() == there.keys()
        for name in ("p", "r", "effective"):
            assert here[name] == pytest.approx(there[name], rel=1e-4, abs=1e-5)
        for name in ("critical_bids", "owed", "payments"):
            assert here[name] == pytest.approx(there[name], abs=1e-3 * max(here["bids"]) + 1e-9)
    for name in ("finish_reason", "posted", "num_tokens", "text", "seed", "nonce"):
        assert mine[-1][name] == theirs[-1][name], name


def both(*specs: AuctionSpec, **options: Any) -> dict[str, list[Line]]:
    """These auctions on the device and by the ordinary decoder, and that they are alike; the device's receipts."""
    found = []
    for steps in ("device", "auto"):
        decoder = decoder_of(steps, **options)
        for number, spec in enumerate(specs):
            submit(decoder, spec, f"auction {number}")
        found.append(receipts(finish(decoder)))
    assert found[0].keys() == found[1].keys()
    for name in found[0]:
        assert_alike(found[0][name], found[1][name])
    return found[0]


@pytest.mark.parametrize("pricing", PRICINGS)
@pytest.mark.parametrize("reference", [0, 300])
def test_device_writes_the_texts_and_bills_of_the_ordinary_decoder(pricing: str, reference: int) -> None:
    specs = [spec_of(1000, 2500, 0, seed=s, pricing=pricing, reference_weight_micros=reference) for s in range(3)]
    for lines in both(*specs).values():
        assert lines[0]["clearing"] == "device"


@pytest.mark.slow
@pytest.mark.parametrize("num_auctions", [1, 2, 3, 5, 8, 17, 32])
def test_device_steps_any_number_of_auctions_of_any_sizes_together(num_auctions: int) -> None:
    bids = (1000, 2500, 700, 5, 900)
    both(*(spec_of(*bids[: 1 + s % 5], seed=s, pricing=PRICINGS[s % 4], max_tokens=6 + s) for s in range(num_auctions)))


def test_device_lets_budgets_run_out_as_the_ordinary_decoder_does() -> None:
    found = both(
        spec_of(1000, 2500, seed=1, budgets=(2500, None), pricing="first_price"),
        spec_of(1000, 2500, seed=2, budgets=(1700, 4000), pricing="first_price"),  # both
        spec_of(1000, 2500, seed=3, budgets=(100, 4000), pricing="critical_bid"),
        spec_of(1000, seed=4, budgets=(3000,), pricing="expected", reference_weight_micros=500),
    )
    assert found["auction 1"][-1]["finish_reason"] == "budget_spent"
    assert any(True in line["clipped"] or "budget_spent" in line["status"] for line in found["auction 0"][1:-1])


def test_device_ends_at_an_end_token_and_drops_the_step_that_was_under_way() -> None:
    found = both(*(spec_of(1000, 2500, seed=s, max_tokens=60) for s in range(6)))
    assert "end" in {lines[-1]["finish_reason"] for lines in found.values()}


def test_device_ends_at_the_sentence_limit() -> None:
    found = both(*(spec_of(1000, 2500, seed=s, max_tokens=60, max_sentences=1) for s in range(6)))
    assert "sentences" in {lines[-1]["finish_reason"] for lines in found.values()}


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
def test_device_writes_no_token_more_than_asked_for(max_tokens: int) -> None:
    both(*(spec_of(1000, 2500, seed=s, max_tokens=max_tokens) for s in range(3)))


def test_device_lets_auctions_come_and_go() -> None:
    decoder = decoder_of("device")
    alone = {}
    events: list[Event] = []
    for number in range(10):
        spec = spec_of(1000, *[2500] * (number % 3), seed=number, max_tokens=3 + 4 * (number % 4))
        submit(decoder, spec, f"auction {number}")
        events += [*decoder.step(), *decoder.step()]
        alone[f"auction {number}"] = both(spec)["auction 0"]
    found = receipts(events + finish(decoder))
    for name, lines in alone.items():
        assert_alike(found[name], lines)


def test_device_sends_the_youngest_away_when_memory_runs_short_and_nobody_sees_it() -> None:
    specs = [spec_of(1000, 2500, seed=s, max_tokens=3 * PAGE_SIZE, temperature=3.0) for s in range(4)]
    decoder = decoder_of("device", num_pages=14)
    for number, spec in enumerate(specs):
        submit(decoder, spec, f"auction {number}")
    found = receipts(finish(decoder))
    assert decoder.scheduler.num_preemptions > 0
    for number, spec in enumerate(specs):
        assert_alike(found[f"auction {number}"], both(spec)["auction 0"])


def by_hand(spec: AuctionSpec, lines: list[Line]) -> list[Line]:
    """The receipt of the ordinary decoder when before each step the bids are set that `lines` names."""
    decoder = decoder_of("auto")
    auction, events = submit(decoder, spec), []
    for line in lines[1:-1]:
        for agent, bid, status in zip(spec.agents, line["bids"], line["status"], strict=False):
            auction.set_bid(agent.id, bid)
            auction.set_absent(agent.id, is_absent=status == "absent")
        events += decoder.step()
    return receipts(events + finish(decoder))["auction"]


def test_device_counts_a_new_bid_from_the_next_step_that_is_started_and_says_so() -> None:
    spec = spec_of(1000, 2500, seed=1, max_tokens=8, temperature=3.0, budgets=(None, 9000), pricing="first_price")
    decoder = decoder_of("device")
    auction = submit(decoder, spec)
    events = decoder.step() + decoder.step() + decoder.step()  # the first token; the second is begun; and read
    assert auction.num_tokens == 2
    auction.set_bid("agent0", 4000)
    auction.set_absent("agent1", is_absent=True)
    events += decoder.step()
    auction.set_absent("agent1", is_absent=False)
    lines = receipts(events + finish(decoder))["auction"]
    assert [line["bids"][0] for line in lines[1:-1]] == [1000, 1000, 1000, 4000, 4000, 4000, 4000, 4000]
    assert [line["status"][1] for line in lines[1:5]] == ["bid", "bid", "bid", "absent"]
    assert_alike(lines, by_hand(spec, lines))


def test_device_settles_when_nobody_bids_any_more() -> None:
    decoder = decoder_of("device")
    auction = submit(decoder, spec_of(1000, 2500, max_tokens=40, temperature=3.0))
    events = decoder.step() + decoder.step() + decoder.step()
    for agent in ("agent0", "agent1"):
        auction.set_bid(agent, 0)
    [lines] = receipts(events + finish(decoder)).values()
    assert lines[-1]["finish_reason"] == "no_bid"


def test_device_settles_a_cancelled_auction_and_disturbs_no_other() -> None:
    decoder = decoder_of("device")
    specs = [spec_of(1000, 2500, seed=s, temperature=3.0) for s in range(3)]
    for number, spec in enumerate(specs):
        submit(decoder, spec, f"auction {number}")
    events = [event for _ in range(4) for event in decoder.step()]
    decoder.cancel("auction 1")
    found = receipts(events + finish(decoder))
    assert found["auction 1"][-1]["finish_reason"] == "cancelled"
    for number in (0, 2):
        assert_alike(found[f"auction {number}"], both(specs[number])["auction 0"])


def test_device_fails_an_auction_whose_logits_are_no_numbers_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = decoder_of("device")
    specs = [spec_of(1000, 2500, seed=s, temperature=3.0) for s in range(3)]
    for number, spec in enumerate(specs):
        submit(decoder, spec, f"auction {number}")
    events = decoder.step() + decoder.step()
    decode = decoder.model.decode  # type: ignore[attr-defined]

    def spoil(*arguments: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = decode(*arguments)
        logits[2] = torch.nan  # the second auction's first row
        return logits

    monkeypatch.setattr(decoder.model, "decode", spoil)
    events += decoder.step()
    monkeypatch.undo()
    events += finish(decoder)
    [error] = [event for event in events if event.type == "error"]
    assert (error.auction_id, error.fields["code"]) == ("auction 1", "invalid_distribution")
    found = receipts(events)
    for number in (0, 2):
        assert_alike(found[f"auction {number}"], both(specs[number])["auction 0"])


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "log_linear"},
        {"sampler": "race"},
        {"pricing": "kl_clarke"},
        {"top_k": 3},
        {"top_p": 0.9},
        {"floor": 0.1},
        {"top_tokens": 2},
    ],
    ids=str,
)
def test_device_leaves_what_it_does_not_cover_to_the_ordinary_steps(changes: dict[str, Any]) -> None:
    spec = spec_of(1000, 2500, **changes)
    assert not is_covered(spec, Policy())
    found = both(spec, spec_of(1000, 2500, seed=8))
    assert [found[f"auction {number}"][0]["clearing"] == "device" for number in (0, 1)] == [False, True]


def test_device_keeps_away_from_auctions_whose_distributions_are_stored() -> None:
    decoder = decoder_of("device", store_distributions=True)
    submit(decoder, spec_of(1000, 2500))
    [lines] = receipts(finish(decoder)).values()
    assert all("distributions" in line for line in lines[1:-1])


def test_receipt_of_the_device_holds_when_the_model_is_run_again() -> None:
    spec = spec_of(1000, 2500, 700, pricing="expected")
    lines = both(spec)["auction 0"]
    verdict = replay(lines, model_of(), prompts_of(spec), Policy())
    assert verdict.holds, verdict


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_device_and_ordinary_decoder_agree_whatever_bidders_do(data: st.DataObject) -> None:
    decoder = decoder_of("device", num_pages=data.draw(st.sampled_from([16, 1000])))
    specs, auctions, events = {}, {}, []
    for _ in range(data.draw(st.integers(1, 25), "moves")):
        move = data.draw(st.sampled_from(["join", "step", "step", "bid", "absent", "cancel"]))
        live = [name for name, auction in auctions.items() if auction.state in ("created", "running")]
        if move == "join":
            name = f"auction {len(specs)}"
            bids = data.draw(st.lists(st.sampled_from([0, 1, 700, 2500]), min_size=1, max_size=4).filter(any))
            budgets = tuple(data.draw(st.lists(st.sampled_from([None, 1, 900, 9000]), max_size=len(bids))))
            pricing = data.draw(st.sampled_from(PRICINGS))
            specs[name] = spec_of(*bids, seed=len(specs), budgets=budgets, pricing=pricing, max_tokens=10)
            auctions[name] = submit(decoder, specs[name], name)
        elif move == "step":
            events += decoder.step()
        elif live:
            name = data.draw(st.sampled_from(live))
            agent = data.draw(st.sampled_from(specs[name].agents)).id
            if move == "bid":
                auctions[name].set_bid(agent, data.draw(st.sampled_from([0, 3, 5000])))
            elif move == "absent":
                auctions[name].set_absent(agent, is_absent=data.draw(st.booleans()))
            else:
                decoder.cancel(name)
    for name, lines in receipts(events + finish(decoder)).items():
        if lines[-1]["finish_reason"] in ("end", "max_tokens"):
            assert_alike(lines, by_hand(specs[name], lines))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy, in Triton's interpreter, about padding
def test_device_steps_by_all_the_kernels_give_the_same_texts() -> None:
    pytest.importorskip("triton", None if torch.cuda.is_available() else "3.7", reason="no Triton that computes here")
    from tokenauction.engine.auction_kernels import clear_rows
    from tokenauction.models.paged_attention import PagedAttention

    if torch.cuda.is_available():
        pytest.skip("Triton compiles here: test_device_gpu does this on the device")
    specs = [
        spec_of(1000, 2500, 700, max_tokens=5, temperature=3.0, budgets=(1500, None), pricing="first_price"),
        spec_of(1000, 2500, seed=8, max_tokens=4, temperature=3.0, reference_weight_micros=400),
    ]
    model = DeviceLlama(network(), ToyTokenizer(SYMBOLS), runner="cuda", max_rows=16)
    model.attention = PagedAttention
    decoder = decoder_of("device")
    decoder.model = decoder.scheduler.model = model
    decoder.device = DeviceLoop(model, capture=False, clear=clear_rows)
    for number, spec in enumerate(specs):
        submit(decoder, spec, f"auction {number}")
    found = receipts(finish(decoder))
    for name, lines in both(*specs).items():
        assert_alike(found[name], lines)

"""The shipped checkpoint does what its card says, in small: transformers loads it, and it writes for unseen brands."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import transformers

from tokenauction import models
from tokenauction.clients.cli.app import DEMO_SEED
from tokenauction.clients.cli.compose import EXAMPLES, load_model, new_decoder, settle_all, submit
from tokenauction.clients.cli.spec_file import load_spec
from tokenauction.clients.cli.sweep import mention
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.weight_sweep import at_weight
from tokenauction.models.training.briefs import Brief, BriefWriter

DEFAULT = Path(models.__file__).parent / "default"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decoder() -> Any:
    return new_decoder(load_model(None, max_rows=128))


def texts(decoder: Any, specs: list[AuctionSpec]) -> list[str]:
    return [str(fields["text"]) for fields in settle_all(decoder, specs, lambda: None)]


def held_out(num: int, num_advertisers: int) -> list[Brief]:
    return [BriefWriter(held_out=True).brief(random.Random(f"test/{i}"), num_advertisers) for i in range(num)]


def spec_of(brief: Brief, seed: int) -> AuctionSpec:
    agents = tuple(AgentSpec(f"a{i}", a.name, a.offer, 1000) for i, a in enumerate(brief.advertisers))
    return AuctionSpec(brief.query, agents, pricing="free", seed=seed)


def events_of(decoder: Any, specs: list[AuctionSpec], asked: int) -> list[dict[str, Any]]:
    """Run all of `specs` at once; the events of one of them, without what no two runs share."""
    auctions = [submit(decoder, spec) for spec in specs]
    events = []
    while decoder.scheduler.has_work:
        events += decoder.step()
    volatile = {"event_id", "auction_id", "time", "latency_ms"}
    mine = [event.to_mapping() for event in events if event.auction_id == auctions[asked].auction_id]
    return [{name: value for name, value in event.items() if name not in volatile} for event in mine]


def test_an_auction_is_the_same_alone_and_among_31_others_that_contend_for_memory() -> None:
    specs = [spec_of(brief, seed) for seed, brief in enumerate(held_out(32, 2))]
    crowd = new_decoder(load_model(None, cache_bytes=2**25))
    among = events_of(crowd, specs, 9)
    assert crowd.scheduler.num_preemptions > 0
    alone = events_of(new_decoder(load_model(None)), [specs[9]], 0)
    assert [event["token_id"] for event in among[1:-1]] == [event["token_id"] for event in alone[1:-1]]
    if crowd.model.runner == "cpp":  # whose numbers do not depend on what else is computed, to the last bit
        assert among == alone


def test_checkpoint_loads_with_plain_transformers_and_stays_small() -> None:
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_pretrained(DEFAULT)
    assert type(model).__name__ == "LlamaForCausalLM"
    assert sum(file.stat().st_size for file in DEFAULT.iterdir()) < 40e6


def test_demo_names_both_brands(decoder: Any) -> None:
    [text] = texts(decoder, [load_spec(EXAMPLES / "hawaii.yaml", {"seed": DEMO_SEED})])
    assert "Alpha Airlines" in text
    assert "Beta Resort" in text


def test_checkpoint_spells_brands_it_has_never_seen(decoder: Any) -> None:
    briefs = held_out(40, 1)
    written = texts(decoder, [spec_of(brief, seed) for seed, brief in enumerate(briefs)])
    spelled = sum(brief.advertisers[0].name in text for brief, text in zip(briefs, written, strict=True))
    assert spelled >= 37


def test_checkpoint_names_its_own_brand_alone_or_both_as_the_weights_say(decoder: Any) -> None:
    briefs = held_out(40, 2)
    outcomes = {}
    for weight in (0.0, 0.5, 1.0):
        written = texts(decoder, [at_weight(spec_of(b, 0), "linear", weight, seed) for seed, b in enumerate(briefs)])
        names = [tuple(a.name for a in brief.advertisers) for brief in briefs]
        outcomes[weight] = Counter(mention(text, *pair) for text, pair in zip(written, names, strict=True))
    assert outcomes[1.0]["first_only"] >= 37
    assert outcomes[0.0]["second_only"] >= 37
    assert outcomes[0.5]["both"] >= 16
    assert outcomes[0.5]["none"] <= 3


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
def test_checkpoint_names_the_first_brand_the_more_weight_it_has(decoder: Any, rule: Any) -> None:
    spec = load_spec(EXAMPLES / "hawaii.yaml")
    first = spec.agents[0].name
    named = []
    for weight in (0.0, 0.5, 1.0):
        written = texts(decoder, [at_weight(spec, rule, weight, seed) for seed in range(30)])
        named.append(sum(first in text for text in written))
    assert named[0] <= 1
    assert named[0] < named[1] < named[2]
    assert named[2] >= 29

"""The loop on the toy world: shared batches, stop rules, bids and cancellations in mid-text, failures that stay
alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from tokenauction.engine.errors import CapacityError, InvalidInput
from tokenauction.engine.events import Event
from tokenauction.engine.guarantees import TABLE
from tokenauction.engine.policy import Policy
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.base import NoRoom

World = Any  # tests/engine/conftest.py
Spec = Callable[..., AuctionSpec]
VOLATILE = {"event_id", "auction_id", "time", "latency_ms"}


def of_auction(events: Iterable[Event], auction_id: str = "auction") -> list[Event]:
    return [event for event in events if event.auction_id == auction_id]


def stable(event: Event) -> dict[str, Any]:
    return {name: value for name, value in event.to_mapping().items() if name not in VOLATILE}


def test_decoder_gives_the_same_events_for_the_same_seed(world: World, spec_of: Spec) -> None:
    first, second = world.run(spec_of(1000, 2000)), world.run(spec_of(1000, 2000))
    assert [stable(e) for e in first] == [stable(e) for e in second]
    assert len(first) > 3


def test_decoder_gives_another_text_for_another_seed(world: World, spec_of: Spec) -> None:
    texts = {world.run(spec_of(1000, 2000, seed=seed))[-1].fields["text"] for seed in range(5)}
    assert len(texts) > 1


def test_decoder_fails_an_auction_that_memory_never_holds(
    world: World, spec_of: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = world()

    def refuse(prompts: list[list[int]], max_new_tokens: int) -> Any:
        raise NoRoom("the memory is full")

    monkeypatch.setattr(full.decoder.model, "admit", refuse)
    full.submit(spec_of(1000, 2000))
    assert [event.type for event in full.finish()] == ["auction.created", "error", "auction.settled"]


@pytest.mark.parametrize("clearing", ["auto", "torch"])
@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.rule}-{row.sampler}-{row.pricing}")
def test_decoder_writes_receipts_that_hold_for_every_row_of_the_guarantees(
    world: World, spec_of: Spec, row: Any, clearing: str
) -> None:
    spec = spec_of(
        1000, 2500, 700, rule=row.rule, sampler=row.sampler, pricing=row.pricing, reference_weight_micros=300
    )
    for store in (False, True):
        settled = world.run(spec, store_distributions=store, clearing=clearing)[-1]
        verdict = verify([dict(line) for line in settled.receipt])
        assert verdict.holds, verdict
        assert verdict.level == ("distributions" if store else "arithmetic")


@pytest.mark.parametrize("clearing", ["auto", "torch"])
def test_decoder_draws_for_an_auction_alone_what_it_draws_among_31_others(
    world: World, spec_of: Spec, clearing: str
) -> None:
    rules = ({}, {"rule": "log_linear"}, {"sampler": "race"}, {"pricing": "expected"}, {"reference_weight_micros": 500})
    mine = spec_of(1000, 2000, 1500)
    alone = world.run(mine, clearing=clearing)
    crowd = world(clearing=clearing)
    for number in range(15):
        crowd.submit(
            spec_of(*range(500, 900 + 100 * (number % 4), 200), seed=number, **rules[number % 5]), f"before {number}"
        )
    crowd.submit(mine)
    for number in range(16):
        crowd.submit(spec_of(700, seed=number, **rules[number % 5]), f"after {number}")
    among = of_auction(crowd.finish())
    assert [stable(e) for e in among] == [stable(e) for e in alone]


def test_decoder_keeps_an_auction_the_same_when_rows_are_scarce_and_it_has_to_wait(world: World, spec_of: Spec) -> None:
    decoder = world(max_rows=3)
    for number in range(5):
        decoder.submit(spec_of(1000, 2000, seed=number), f"a{number}")
    events = decoder.finish()
    for number in range(5):
        alone = world.run(spec_of(1000, 2000, seed=number))
        assert [stable(e) for e in of_auction(events, f"a{number}")] == [stable(e) for e in alone]


def test_paced_auction_rests_behind_every_token_and_holds_up_no_other(world: World, spec_of: Spec) -> None:
    busy = world()
    spec = spec_of(1000, 2000)
    paced = busy.decoder.prepare(spec, busy.prompts(spec), Policy(), "paced", is_paced=True)
    busy.decoder.enqueue(paced)
    busy.submit(spec_of(700, seed=3), "other")
    events = busy.finish()
    assert len(of_auction(events, "paced")) == 2 and of_auction(events, "other")[-1].type == "auction.settled"
    paced.wake()
    events += busy.finish()
    assert len(of_auction(events, "paced")) == 3
    paced.hurry()
    events += busy.finish()
    assert [stable(e) for e in of_auction(events, "paced")] == [stable(e) for e in world.run(spec)]


def test_paced_auction_that_is_cancelled_ends_in_its_rest(world: World, spec_of: Spec) -> None:
    slow = world()
    spec = spec_of(1000, 2000)
    slow.decoder.enqueue(slow.decoder.prepare(spec, slow.prompts(spec), Policy(), "paced", is_paced=True))
    slow.finish()
    slow.decoder.cancel("paced")
    assert [event.type for event in slow.finish()] == ["auction.settled"]


def test_decoder_numbers_the_events_of_an_auction_densely_from_zero(world: World, spec_of: Spec) -> None:
    events = world.run(spec_of(1000, 2000))
    assert [event.seq for event in events] == list(range(len(events)))
    assert [e.type for e in events[:1] + events[-1:]] == ["auction.created", "auction.settled"]


def test_decoder_joins_the_deltas_to_the_settled_text(world: World, spec_of: Spec) -> None:
    events = world.run(spec_of(1000, 2000))
    assert "".join(e.fields["text"] for e in events if e.type == "auction.token") == events[-1].fields["text"]


def test_decoder_counts_a_new_bid_from_the_next_token(world: World, spec_of: Spec) -> None:
    decoder = world()
    auction = decoder.submit(spec_of(1000, 2000, seed=1))
    decoder.decoder.step()
    auction.set_bid("agent0", 9000)
    [token] = [e for e in decoder.decoder.step() if e.type == "auction.token"]
    assert [agent["bid_micros"] for agent in token.fields["agents"]] == [9000, 2000]
    assert token.seq == 2
    assert verify([dict(line) for line in decoder.finish()[-1].receipt]).holds


def test_decoder_settles_a_cancelled_auction_and_disturbs_no_other(world: World, spec_of: Spec) -> None:
    decoder = world()
    spec = spec_of(1000, 2000, seed=1)
    decoder.submit(spec, "kept")
    decoder.submit(replace(spec, seed=2), "cancelled")
    events = decoder.decoder.step() + decoder.decoder.step()
    decoder.decoder.cancel("cancelled")
    events += decoder.finish()
    cancelled = of_auction(events, "cancelled")
    assert cancelled[-1].fields["finish_reason"] == "cancelled"
    assert cancelled[-1].fields["num_tokens"] == 2
    assert verify([dict(line) for line in cancelled[-1].receipt]).holds
    assert [stable(e) for e in of_auction(events, "kept")] == [stable(e) for e in world.run(spec)]
    assert decoder.decoder.model.free_rows == decoder.decoder.model.max_rows


@pytest.mark.parametrize("method", ["launch", "step", "prefill"])
def test_decoder_goes_on_where_a_model_that_failed_works_again(
    method: str, world: World, spec_of: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = [spec_of(1000, 2000, seed=seed) for seed in range(2)]
    broken = world()
    model = broken.decoder.model
    works, calls = getattr(model, method), iter(range(99))

    def works_now_and_then(*arguments: Any) -> Any:
        if next(calls) % 3 == (0 if method == "prefill" else 2):
            raise RuntimeError("the device is lost")
        return works(*arguments)

    monkeypatch.setattr(model, method, works_now_and_then)
    for number, spec in enumerate(specs):
        broken.submit(spec, f"auction{number}")
    events: list[Event] = []
    num_failures = 0
    while broken.decoder.scheduler.has_work:
        try:
            events += broken.decoder.step()
        except RuntimeError:
            num_failures += 1
    assert num_failures > 0
    for number, spec in enumerate(specs):
        mine = of_auction(events, f"auction{number}")
        assert [stable(e) for e in mine] == [stable(e) for e in world.run(spec)]
        assert verify([dict(line) for line in mine[-1].receipt]).holds
    assert model.free_rows == model.max_rows


def test_decoder_settles_what_a_broken_model_left(world: World, spec_of: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = world()
    broken.submit(spec_of(1000, 2000), "auction")
    events = broken.decoder.step() + broken.decoder.step()

    def fail(*arguments: Any) -> Any:
        raise RuntimeError("the device is lost")

    monkeypatch.setattr(broken.decoder.model, "step", fail)
    with pytest.raises(RuntimeError, match="the device is lost"):
        broken.decoder.step()
    broken.decoder.cancel("auction")
    events += broken.decoder.step()
    settled = events[-1]
    assert settled.fields["finish_reason"] == "cancelled"
    assert verify([dict(line) for line in settled.receipt]).holds
    assert not broken.decoder.scheduler.has_work


def test_decoder_finds_an_auction_at_every_moment(world: World, spec_of: Spec, monkeypatch: pytest.MonkeyPatch) -> None:
    running = world()
    running.submit(spec_of(1000, 2000), "auction")
    prefill = running.decoder.model.prefill

    def prefill_while_somebody_cancels(gangs: Any) -> Any:
        running.decoder.cancel("auction")
        assert running.decoder.scheduler.has_work
        return prefill(gangs)

    monkeypatch.setattr(running.decoder.model, "prefill", prefill_while_somebody_cancels)
    assert running.finish()[-1].fields["finish_reason"] == "cancelled"


def test_decoder_tells_of_an_auction_before_its_tokens_whenever_it_comes(
    world: World, spec_of: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = world()
    running.submit(spec_of(1000, 2000), "first")
    admit = running.decoder.scheduler.admit

    def admit_while_somebody_submits() -> Any:
        monkeypatch.setattr(running.decoder.scheduler, "admit", admit)
        running.submit(spec_of(1000, 2000, seed=3), "second")
        return admit()

    monkeypatch.setattr(running.decoder.scheduler, "admit", admit_while_somebody_submits)
    second = of_auction(running.finish(), "second")
    assert [event.type for event in second[:2]] == ["auction.created", "auction.token"]


def test_decoder_cancels_an_auction_that_still_waits(world: World, spec_of: Spec) -> None:
    decoder = world(max_rows=2)
    decoder.submit(spec_of(1000, 2000), "runs")
    decoder.submit(spec_of(1000, 2000), "waits")
    decoder.decoder.step()
    decoder.decoder.cancel("waits")
    events = decoder.finish()
    assert of_auction(events, "waits")[-1].fields["num_tokens"] == 0
    with pytest.raises(InvalidInput, match="waits"):
        decoder.decoder.cancel("waits")


def test_decoder_stops_at_max_tokens_at_the_end_token_and_after_sentences(world: World, spec_of: Spec) -> None:
    reasons = {}
    for seed in range(40):
        settled = world.run(spec_of(1000, 2000, seed=seed, max_tokens=30, max_sentences=1))[-1].fields
        reasons[settled["finish_reason"]] = settled
    assert set(reasons) >= {"end", "sentences"}
    assert reasons["sentences"]["text"].endswith(".")
    short = world.run(spec_of(1000, 2000, seed=4, max_tokens=1))[-1].fields
    assert short["num_tokens"] == 1


def test_decoder_settles_when_every_budget_is_spent(world: World, spec_of: Spec) -> None:
    agents = tuple(AgentSpec(f"agent{i}", f"N{i}", "o", 1000, budget_micros=2500) for i in range(2))
    spec = AuctionSpec("query", agents, pricing="first_price", seed=5, max_tokens=50)
    settled = world.run(spec)[-1]
    assert settled.fields["finish_reason"] in ("budget_spent", "end")
    assert [agent["total_micros"] for agent in settled.fields["agents"]] <= [2500, 2500]
    assert verify([dict(line) for line in settled.receipt]).holds


def test_decoder_lets_the_reference_go_on_for_nothing_when_nobody_bids(world: World, spec_of: Spec) -> None:
    decoder = world()
    auction = decoder.submit(spec_of(1000, reference_weight_micros=500, seed=2))
    decoder.decoder.step()
    auction.set_bid("agent0", 0)
    settled = decoder.finish()[-1]
    assert settled.fields["finish_reason"] in ("end", "max_tokens")
    assert verify([dict(line) for line in settled.receipt]).holds


def test_decoder_settles_when_every_bid_is_withdrawn_and_there_is_no_reference(world: World, spec_of: Spec) -> None:
    decoder = world()
    auction = decoder.submit(spec_of(1000, seed=2))
    decoder.decoder.step()
    auction.set_bid("agent0", 0)
    assert decoder.finish()[-1].fields["finish_reason"] == "no_bid"


def test_decoder_fails_one_auction_alone_and_charges_it_nothing(world: World, spec_of: Spec) -> None:
    decoder = world()
    everything = Policy(sequences=tuple((token,) for token in range(len(world.symbols) + 1)))
    long_prompt = [[0] * 600]
    decoder.decoder.submit(spec_of(1000), long_prompt, Policy(), "too long")
    decoder.submit(spec_of(1000, 2000), "sound")
    decoder.submit(spec_of(1000, 2000), "banned", everything)
    events = decoder.finish()
    for auction_id, code in (("too long", "prompt_too_long"), ("banned", "invalid_input")):
        failed = of_auction(events, auction_id)
        assert [e.type for e in failed] == ["auction.created", "error", "auction.settled"]
        assert failed[1].fields["code"] == code
        assert failed[2].fields["posted"] is False
        assert failed[2].fields["total_micros"] == 0
        assert verify([dict(line) for line in failed[2].receipt]).holds
    assert [stable(e) for e in of_auction(events, "sound")] == [stable(e) for e in world.run(spec_of(1000, 2000))]


def test_decoder_obeys_the_policy_in_every_row(world: World, spec_of: Spec) -> None:
    texts = (*world.symbols, "")
    policy = Policy(words=("a", "b"), token_texts=texts)
    decoder = world()
    for seed in range(10):
        decoder.submit(spec_of(1000, 2000, seed=seed, max_tokens=30, top_tokens=3), f"{seed}", policy)
    events = decoder.finish()
    for event in events:
        if event.type == "auction.settled":
            words = event.fields["text"].replace(".", " ").split()
            assert not any(word.startswith(("a", "b")) for word in words)
        if event.type == "auction.token":
            assert event.distributions is not None
            assert event.distributions.shape == (2, len(world.symbols) + 1)


@pytest.mark.parametrize("clearing", ["auto", "torch"])
def test_decoder_shows_the_likeliest_tokens_of_every_distribution(world: World, spec_of: Spec, clearing: str) -> None:
    token = world.run(spec_of(1000, 2000, top_tokens=4), clearing=clearing)[1]
    top = token.fields["top_tokens"]
    draw = token.fields["draw"]
    assert draw["cdf_below"] <= draw["uniform"] < draw["cdf_below"] + token.fields["probability"]
    assert draw["price_threshold"] == draw["price_uniform"] * token.fields["probability"]
    assert token.aggregate is not None
    assert set(top["agents"]) == {"agent0", "agent1"}
    for table, row in ((top["aggregate"], token.aggregate), (top["agents"]["agent1"], token.distributions[1])):  # type: ignore[index]
        assert [entry["probability"] for entry in table] == sorted(row.tolist(), reverse=True)[:4]


def test_decoder_marks_where_a_seed_came_from_and_commits_to_it(world: World, spec_of: Spec) -> None:
    given, drawn = world.run(spec_of(1000)), world.run(spec_of(1000, seed=None))
    assert given[0].fields["seed_source"] == "caller"
    assert drawn[0].fields["seed_source"] == "drawn"
    assert drawn[-1].fields["seed"] == bytes(range(32)).hex()
    for events in (given, drawn):
        assert events[0].fields["spec"]["seed"] is None
        assert events[-1].fields["seed"] not in str(events[0].fields)


def test_decoder_refuses_what_can_never_run(world: World, spec_of: Spec) -> None:
    decoder = world(max_rows=1)
    with pytest.raises(CapacityError, match="max_rows"):
        decoder.submit(spec_of(1, 2))
    with pytest.raises(InvalidInput, match="prompts"):
        decoder.decoder.submit(spec_of(1), [], Policy(), "none")


async def test_decoder_run_yields_the_events_of_all_auctions(world: World, spec_of: Spec) -> None:
    decoder = world()
    for number in range(3):
        decoder.submit(spec_of(1000, 2000, seed=number), f"a{number}")
    seen = [event async for event in decoder.decoder.run()]
    assert {e.auction_id for e in seen if e.type == "auction.settled"} == {"a0", "a1", "a2"}

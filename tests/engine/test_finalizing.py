"""Softmax auctions in the decoder: what they tell, what they cost, and that nobody beside them notices."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from tokenauction.engine.auction import State
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.choice import decide
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.ensemble import PROGRESS_STEPS, Ensemble
from tokenauction.engine.errors import CapacityError, InvalidInput, ReceiptError
from tokenauction.engine.events import Event
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.policy import Policy
from tokenauction.engine.reward import Callback
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.models.toy_laws import text_log_prob

World = Any  # tests/engine/conftest.py


def softmax_spec(num_agents: int = 2, seed: int | None = 7, max_tokens: int = 12, **changes: Any) -> AuctionSpec:
    """A softmax auction of agents who value a nat at 1, 2, …; `changes` of the finalizer and of the spec."""
    of_finalizer = {k: changes.pop(k) for k in list(changes) if k in FinalizerSpec.__dataclass_fields__}
    agents = tuple(
        AgentSpec(f"agent{i}", f"Name{i}", "offer", 0, value_micros=(i + 1) * 10**6) for i in range(num_agents)
    )
    finalizer = FinalizerSpec(**{"num_candidates": 5, **of_finalizer})
    return AuctionSpec(
        "query", agents, seed=seed, max_tokens=max_tokens, finalizer=finalizer, **{"temperature": 1.0, **changes}
    )


def prompts(decoder: Decoder, spec: AuctionSpec) -> list[list[int]]:
    return [decoder.model.tokenizer.encode_prompt(f"{spec.query} for {row_id}") for row_id in spec.hosted_ids]


def submit(decoder: Decoder, spec: AuctionSpec, auction_id: str = "auction", **options: Any) -> Ensemble:
    performance = decoder.prepare(spec, prompts(decoder, spec), Policy(), auction_id, **options)
    decoder.enqueue(performance)
    assert isinstance(performance, Ensemble)
    return performance


def finish(decoder: Decoder) -> list[Event]:
    events: list[Event] = []
    for _ in range(10_000):
        if not decoder.has_work:
            return events
        events += decoder.step()
    raise AssertionError("the decoder does not come to an end")


@pytest.fixture
def play(world: type[World]) -> Callable[..., list[Event]]:
    """`play(spec)`: the events of one softmax auction alone on a fresh toy world."""

    def run(spec: AuctionSpec, **options: Any) -> list[Event]:
        decoder = world().decoder
        submit(decoder, spec, **options)
        return finish(decoder)

    return run


Play = Callable[..., list[Event]]


def of(events: list[Event], kind: str) -> list[Event]:
    return [event for event in events if event.type == kind]


def essence(events: list[Event]) -> list[dict[str, Any]]:
    """The receipt, which is the same for one seed."""
    [settled] = of(events, "auction.settled")
    return [dict(line) for line in settled.receipt]


def test_stream_tells_candidates_then_the_choice_then_the_settlement(play: Play) -> None:
    events = play(softmax_spec(show_candidates=True))
    kinds = [event.type for event in events]
    assert kinds[0] == "auction.created" and kinds[-2:] == ["auction.finalized", "auction.settled"]
    assert [event.fields["index"] for event in of(events, "candidate.completed")] == [0, 1, 2, 3, 4]
    assert set(kinds) == {
        "auction.created", "candidates.progress", "candidate.completed", "auction.finalized", "auction.settled"
    }  # fmt: skip
    assert [event.seq for event in events] == list(range(len(events)))
    last = of(events, "candidates.progress")[-1].fields
    assert last == {"num_done": 5, "num_candidates": 5, "num_tokens": last["num_tokens"]}


@pytest.mark.parametrize("proposal", ["reference", "context_aware", "token_auction"])
def test_proposals_know_the_exact_probability_of_their_candidates(world: type[World], proposal: Any) -> None:
    decoder = world().decoder
    spec = softmax_spec(proposal=proposal, temperature=0.8, top_p=0.9)
    submit(decoder, spec)
    receipt = essence(finish(decoder))
    tables = dict(
        zip(spec.hosted_ids, [decoder.model.world.table(p) for p in prompts(decoder, spec)], strict=True)  # type: ignore[attr-defined]
    )

    def law(table: torch.Tensor) -> torch.Tensor:
        """The table's distributions at temperature 0.8, cut to the likeliest tokens that reach 0.9."""
        p = torch.softmax(table / 0.8, -1)
        ordered, places = torch.sort(p, dim=-1, descending=True, stable=True)
        kept = torch.where(ordered.cumsum(-1) - ordered < 0.9, ordered, 0.0)
        shaped = torch.zeros_like(p).scatter(-1, places, kept)
        return shaped / shaped.sum(-1, keepdim=True)

    rows = [law(tables[i]) for i in (spec.hosted_ids[:3] if proposal == "token_auction" else [spec.hosted_ids[-1]])]
    q = torch.stack(rows).mean(0).log()
    for line in receipt[1:6]:
        end = q.shape[-1] - 1
        expected = text_log_prob(lambda ids: q[ids[-1] if ids else end], line["token_ids"])  # noqa: B023
        assert line["log_proposal"] == pytest.approx(expected, abs=1e-9)


def test_rewards_are_log_ratios_of_the_agents_models(world: type[World]) -> None:
    decoder = world().decoder
    spec = softmax_spec(proposal="reference")
    submit(decoder, spec)
    receipt = essence(finish(decoder))
    tables = [decoder.model.world.table(p) for p in prompts(decoder, spec)]  # type: ignore[attr-defined]
    end = tables[0].shape[-1] - 1

    def score(table: torch.Tensor, ids: list[int]) -> float:
        return text_log_prob(lambda before: table[before[-1] if before else end], ids)

    choice = receipt[-2]
    for line in receipt[1:-2]:
        j, ids = line["index"], line["token_ids"]
        reference = score(tables[2], ids)
        assert choice["log_reference"][j] == pytest.approx(reference, abs=1e-9)
        for agent in range(2):
            assert choice["rewards"][agent][j] == pytest.approx(score(tables[agent], ids) - reference, abs=1e-9)
        assert line["log_proposal"] == pytest.approx(reference, abs=1e-9)  # temperature 1: the reference itself


def test_choice_follows_from_what_is_recorded(play: Play) -> None:
    spec = softmax_spec(tau_micros=2_500_000)
    events = play(spec)
    receipt = essence(events)
    choice, candidates = receipt[-2], receipt[1:-2]
    nats = torch.tensor(choice["rewards"], dtype=torch.float64)
    again = decide(spec, 7, choice["log_reference"], [c["log_proposal"] for c in candidates], nats)
    assert list(again.probabilities) == choice["probabilities"] and again.chosen == choice["chosen"]
    assert list(again.owed) == choice["owed"] == choice["payments"]
    [finalized], [settled] = of(events, "auction.finalized"), of(events, "auction.settled")
    assert finalized.fields["text"] == settled.fields["text"] == candidates[choice["chosen"]]["text"]
    assert [agent["total_micros"] for agent in settled.fields["agents"]] == [math.floor(x) for x in choice["owed"]]
    assert [agent["payment_micros"] for agent in finalized.fields["agents"]] == choice["charges"]
    assert all(len(agent["probabilities_without"]) == 5 for agent in finalized.fields["agents"])


def test_texts_of_candidates_are_told_only_if_the_spec_asks(play: Play) -> None:
    for shows in (False, True):
        events = play(softmax_spec(show_candidates=shows))
        told = [event.fields for event in of(events, "candidate.completed")]
        told += of(events, "auction.finalized")[0].fields["candidates"]
        assert all(("text" in fields) == shows for fields in told)


def test_budget_caps_what_is_paid_and_voids_the_guarantee(play: Play) -> None:
    spec = softmax_spec()
    free = of(play(spec), "auction.finalized")[0].fields["agents"]
    cap = free[1]["payment_micros"] // 2
    capped = replace(spec, agents=(spec.agents[0], replace(spec.agents[1], budget_micros=cap)))
    events = play(capped)
    [finalized], [settled] = of(events, "auction.finalized"), of(events, "auction.settled")
    assert [agent["payment_micros"] for agent in finalized.fields["agents"]] == [free[0]["payment_micros"], cap]
    assert [agent["clipped"] for agent in finalized.fields["agents"]] == [False, True]
    assert settled.fields["voids"] == ["a payment was clipped to a budget"]


def test_agent_that_values_nothing_pays_nothing_and_moves_nothing(play: Play) -> None:
    spec = softmax_spec(num_agents=3)
    idle = replace(spec, agents=(*spec.agents[:2], replace(spec.agents[2], value_micros=0)))
    with_idle = of(play(idle), "auction.finalized")[0].fields
    assert with_idle["agents"][2]["exact_payment_micros"] == 0.0
    assert with_idle["agents"][2]["probabilities_without"] == pytest.approx(
        [candidate["probability"] for candidate in with_idle["candidates"]], abs=1e-12
    )


def test_receipt_of_a_seed_is_the_same_whatever_runs_beside_it(world: type[World], play: Play) -> None:
    alone = essence(play(softmax_spec()))
    crowded = world()
    for number in range(4):
        crowded.submit(world_spec(number), f"token {number}")
    submit(crowded.decoder, softmax_spec(seed=1, num_agents=1), "other")
    submit(crowded.decoder, softmax_spec())
    mine = [event for event in finish(crowded.decoder) if event.auction_id == "auction"]
    assert essence(mine) == alone
    few = world(max_rows=2)  # three waves
    submit(few.decoder, softmax_spec())
    assert essence(finish(few.decoder)) == alone


def world_spec(seed: int) -> AuctionSpec:
    agents = (AgentSpec("agent0", "Name0", "offer", 1000), AgentSpec("agent1", "Name1", "offer", 2000))
    return AuctionSpec("query", agents, seed=seed, max_tokens=30)


def test_token_auctions_beside_it_write_what_they_write_alone(world: type[World]) -> None:
    alone = world()
    alone.submit(world_spec(3), "token")
    expected = of(finish(alone.decoder), "auction.settled")[0].fields["text"]
    beside = world()
    submit(beside.decoder, softmax_spec())
    beside.submit(world_spec(3), "token")
    [settled] = [e for e in finish(beside.decoder) if e.type == "auction.settled" and e.auction_id == "token"]
    assert settled.fields["text"] == expected


def test_scoring_is_shared_out_over_steps_while_others_wait(
    world: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenauction.engine.ensemble.SHARE_TOKENS", 40)
    decoder = world().decoder
    passes: list[int] = []
    score = decoder.model.score
    monkeypatch.setattr(
        decoder.model, "score", lambda prefixes, texts: passes.append(len(texts)) or score(prefixes, texts)
    )
    submit(decoder, softmax_spec(num_candidates=8, max_tokens=6))
    decoder.submit(replace(world_spec(3), max_tokens=60), [[1], [2]], Policy(), "token")
    finish(decoder)
    assert len(passes) > 2 and max(passes) < 8
    passes.clear()
    submit(decoder, softmax_spec(num_candidates=8, max_tokens=6), "alone")
    finish(decoder)
    assert len(passes) == 1  # nobody waits: one batch


def test_progress_comes_every_few_steps(play: Play) -> None:
    progress = of(play(softmax_spec(max_tokens=40, seed=3)), "candidates.progress")
    num_tokens = [event.fields["num_tokens"] for event in progress]
    assert num_tokens == sorted(num_tokens) and num_tokens[0] <= 5 * PROGRESS_STEPS


def test_cancelled_auction_charges_nothing_and_frees_its_rows(world: type[World]) -> None:
    decoder = world().decoder
    ensemble = submit(decoder, softmax_spec(max_tokens=40))
    events = [*decoder.step(), *decoder.step()]
    decoder.cancel("auction")
    events += finish(decoder)
    [settled] = of(events, "auction.settled")
    assert (settled.fields["finish_reason"], settled.fields["total_micros"]) == ("cancelled", 0)
    assert (settled.fields["text"], ensemble.auction.state) == ("", State.CANCELLED)
    assert decoder.model.free_rows == decoder.model.max_rows
    assert not decoder.finalizing.ensembles and not decoder.has_work


def test_cancelled_before_its_first_step_it_tells_its_first_and_last_event(world: type[World]) -> None:
    decoder = world().decoder
    submit(decoder, softmax_spec())
    decoder.cancel("auction")
    assert [event.type for event in finish(decoder)] == ["auction.created", "auction.settled"]


def test_failing_candidate_fails_the_auction_and_no_other(world: type[World]) -> None:
    decoder = world().decoder
    spec = softmax_spec(max_tokens=600)  # longer than the model's context: no gang is ever admitted
    submit(decoder, spec)
    submit(decoder, softmax_spec(), "sound")
    events = finish(decoder)
    [error] = of(events, "error")
    assert (error.auction_id, error.fields["code"]) == ("auction", "prompt_too_long")
    ends = {event.auction_id: event.fields["finish_reason"] for event in of(events, "auction.settled")}
    assert ends["auction"] == "error" and ends["sound"] != "error"


def test_rewards_from_a_function_choose_and_rule_out(play: Play) -> None:
    def likes(agent_id: str, text: str) -> float:
        return -math.inf if agent_id == "agent0" and len(text) % 2 else float(text.count("a"))

    events = play(softmax_spec(num_candidates=12), rewards=Callback(likes))
    [finalized] = of(events, "auction.finalized")
    receipt = essence(events)
    assert receipt[0]["reward"] == "callback"
    for line, candidate in zip(receipt[1:13], finalized.fields["candidates"], strict=True):
        assert (candidate["probability"] == 0) == bool(len(line["text"]) % 2)
    assert receipt[-2]["rewards"][0].count(None) == sum(len(line["text"]) % 2 for line in receipt[1:13])


def test_rewards_that_rule_everything_out_fail_the_auction(play: Play) -> None:
    events = play(softmax_spec(), rewards=Callback(lambda agent_id, text: -math.inf))
    assert of(events, "error")[0].fields["code"] == "no_common_support"
    assert of(events, "auction.settled")[0].fields["posted"] is False


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_rewards_that_are_no_numbers_fail_the_auction(play: Play, number: float) -> None:
    events = play(softmax_spec(), rewards=Callback(lambda agent_id, text: number))
    assert of(events, "error")[0].fields["code"] == "invalid_input"


def test_rewards_are_not_for_token_auctions(world: type[World]) -> None:
    decoder = world().decoder
    with pytest.raises(InvalidInput, match="softmax"):
        decoder.prepare(world_spec(1), [[1], [2]], Policy(), "token", rewards=Callback(lambda a, t: 0.0))


def test_one_candidate_of_one_agent_costs_nothing(play: Play) -> None:
    [finalized] = of(play(softmax_spec(num_agents=1, num_candidates=1)), "auction.finalized")
    assert finalized.fields["candidates"][0]["probability"] == 1.0
    assert finalized.fields["agents"][0]["exact_payment_micros"] == 0.0
    assert finalized.fields["effective_sample_size"] == 1.0


def test_queue_takes_all_candidates_or_none(world: type[World], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokenauction.engine.finalizing.MAX_WAITING", 4)
    decoder = world().decoder
    with pytest.raises(CapacityError, match="4 texts"):
        submit(decoder, softmax_spec(num_candidates=5))
    assert not decoder.has_work and not decoder.scheduler.waiting


def test_auction_goes_on_behind_the_candidates_that_are_on_record(world: type[World], play: Play) -> None:
    whole = essence(play(softmax_spec()))
    for num_lines in range(1, len(whole)):
        decoder = world().decoder
        spec = softmax_spec()
        performance = decoder.prepare(spec, prompts(decoder, spec), Policy(), "auction")
        ended = decoder.resume(performance, whole[:num_lines])
        assert (len(ended) == 1) == (num_lines == len(whole) - 1)  # the choice is on record: nothing is left to do
        events = [*ended, *finish(decoder)]
        assert essence(events) == whole


def test_auction_does_not_go_on_behind_a_receipt_that_is_not_its_own(world: type[World], play: Play) -> None:
    whole = essence(play(softmax_spec()))
    other = softmax_spec(tau_micros=5)
    decoder = world().decoder
    for spec, lines in (
        (other, whole[:2]),
        (softmax_spec(), []),
        (softmax_spec(), [whole[0], whole[2]]),
        (softmax_spec(), [whole[0], {**whole[1], "text": "z"}]),
    ):
        performance = decoder.prepare(spec, prompts(decoder, spec), Policy(), "auction")
        with pytest.raises(ReceiptError):
            decoder.resume(performance, lines)


def test_candidate_is_read_back_as_it_was_written() -> None:
    candidate = Candidate(3, (1, 2), "ab", "end", (0.5, 0.25), (0.0, 0.125))
    assert candidate.log_proposal == pytest.approx(math.log(0.125), abs=1e-15)
    assert Candidate.from_line(candidate.to_mapping()) == candidate

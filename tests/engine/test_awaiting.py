"""Agents with models of their own in the loop: their rows among the hosted ones, silence, and everybody else's pace."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tokenauction.engine.errors import InvalidDistribution, InvalidInput, InvalidSpec
from tokenauction.engine.events import Event
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import content_hash
from tokenauction.engine.replay import replay
from tokenauction.engine.report import Report
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify

World = Any  # tests/engine/conftest.py
Spec = Callable[..., AuctionSpec]
Says = Callable[[int, Sequence[int]], Mapping[str, Report] | None]  # step and text -> reports; None: not now


def outside(spec: AuctionSpec, *agent_ids: str) -> AuctionSpec:
    """The same auction, in which these agents run their own models."""
    agents = tuple(replace(agent, own_model=agent.id in agent_ids) for agent in spec.agents)
    return replace(spec, agents=agents)


def own_report(world: World, spec: AuctionSpec, agent_id: str, text: Sequence[int]) -> Report:
    """What the platform's model would say for this agent: the toy's row, sent from outside."""
    toy = world.decoder.model
    prompt = toy.tokenizer.encode_prompt(f"{spec.query} for {agent_id}")
    return Report(toy.world.table(prompt)[[toy.world.end, *text][-1]].numpy().astype(np.float32))


def finish(world: World, says: Says) -> list[Event]:
    """Run to the end; whatever step is opened gets what `says` answers."""
    events: list[Event] = []
    open_steps: list[tuple[str, int]] = []
    while world.decoder.has_work or open_steps:
        for event in world.decoder.step() if world.decoder.has_work else ():
            if event.type == "step.awaited":
                open_steps.append((event.auction_id, event.fields["step"]))
            else:
                events.append(event)
        for auction_id, step in list(open_steps):
            [performance] = [p for p in world.decoder.scheduler.everybody() if p.auction.auction_id == auction_id]
            reports = says(step, performance.token_ids)
            if reports is not None:
                world.decoder.supply(auction_id, step, reports)
                open_steps.remove((auction_id, step))
    return events


def run(world: World, spec: AuctionSpec, says: Says | None = None) -> list[Event]:
    world.submit(spec)
    ids = sorted(spec.own_model_ids)
    return finish(world, says or (lambda step, text: {i: own_report(world, spec, i, text) for i in ids}))


def texts(events: Sequence[Event]) -> list[str]:
    return [event.fields["text"] for event in events if event.type == "auction.token"]


@pytest.mark.parametrize("rule", ["linear", "log_linear"])
@pytest.mark.parametrize("clearing", ["auto", "torch"])
def test_agent_that_reports_what_the_platform_would_compute_changes_nothing(
    world: World, spec_of: Spec, rule: str, clearing: str
) -> None:
    spec = spec_of(1000, 2500, 700, rule=rule, reference_weight_micros=300)
    hosted = world.run(spec, clearing=clearing)
    mixed = run(world(clearing=clearing), outside(spec, "agent1"))
    assert texts(mixed) == texts(hosted)
    exact = [[agent["exact_total_micros"] for agent in events[-1].fields["agents"]] for events in (hosted, mixed)]
    assert exact[1] == pytest.approx(exact[0], rel=1e-4, abs=1e-3)


def test_receipt_with_reports_holds_also_when_the_model_is_run_again(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 2500, reference_weight_micros=300), "agent0")
    settled = run(here, spec)[-1]
    lines = [dict(line) for line in settled.receipt]
    assert verify(lines).holds
    assert lines[0]["prompt_hashes"][0] is None and lines[1]["report_hashes"][1:] == [None, None]
    assert settled.fields["voids"] == ["an agent reported its own distribution"]
    assert replay(lines, here.decoder.model, here.prompts(spec), Policy()).holds


def test_report_that_was_exchanged_afterwards_is_named(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 2500), "agent0")
    lines = [dict(line) for line in run(here, spec)[-1].receipt]
    other = own_report(here, spec, "agent1", [])
    lines[2] = {**lines[2], "reports": [other.to_mapping(), None]}
    verdict = verify(lines)
    assert (verdict.where, verdict.holds) == ("step 1", False) and "stored report of agent0" in verdict.problem
    lines[2]["report_hashes"] = [other.hash, None]
    previous = lines[1]["hash"]
    for line in lines[2:]:
        line["previous"] = previous
        previous = line["hash"] = content_hash(line)
    assert verify(lines).holds  # arithmetic alone cannot see what a model would have said
    verdict = replay(lines, here.decoder.model, here.prompts(spec), Policy())
    assert (verdict.where, verdict.holds) == ("step 1", False)


def test_silent_agent_is_absent_for_that_token_alone(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 2500), "agent1")
    events = run(
        here, spec, lambda step, text: {} if step % 3 == 1 else {"agent1": own_report(here, spec, "agent1", text)}
    )
    tokens = [event.fields for event in events if event.type == "auction.token"]
    for fields in tokens:
        silent = fields["step"] % 3 == 1
        agent = fields["agents"][1]
        assert agent["status"] == ("absent" if silent else "bid")
        assert ("report_hash" in agent) != silent
        assert not (silent and (agent["effective_bid_micros"] or agent["exact_payment_micros"] or agent["influence"]))
    assert verify([dict(line) for line in events[-1].receipt]).holds
    assert "an agent was absent" in events[-1].fields["voids"]


def test_auction_that_waits_holds_up_no_other(world: World, spec_of: Spec) -> None:
    here = world()
    slow = outside(spec_of(1000, 2500, seed=1), "agent0")
    here.submit(slow, "slow")
    here.submit(spec_of(1000, 2500, seed=2), "quick")
    events = here.finish()  # nobody reports
    quick = [event for event in events if event.auction_id == "quick"]
    assert [e.fields for e in quick if e.type == "auction.settled"]
    assert [e.type for e in events if e.auction_id == "slow"] == ["auction.created", "step.awaited"]
    alone = world.run(spec_of(1000, 2500, seed=2))
    assert texts(quick) == texts(alone)
    assert not here.decoder.has_work
    rest = finish(here, lambda step, text: {})
    assert rest == []  # the one step that was opened has been told of above
    here.decoder.supply("slow", 0, {})
    assert finish(here, lambda step, text: {})[-1].type == "auction.settled"


def test_auction_that_waits_can_be_cancelled(world: World, spec_of: Spec) -> None:
    here = world()
    here.submit(outside(spec_of(1000, 2500), "agent0"))
    here.finish()
    here.decoder.cancel("auction")
    assert here.finish()[-1].fields["finish_reason"] == "cancelled"


def test_auction_that_waits_and_loses_its_rows_goes_on_as_it_was(world: World, spec_of: Spec) -> None:
    spec = outside(spec_of(1000, 2500), "agent0")
    undisturbed, here = run(world(), spec), world()
    here.submit(spec)

    def says(step: int, text: Sequence[int]) -> Mapping[str, Report]:
        [performance] = here.decoder.scheduler.running
        reports = {"agent0": own_report(here, spec, "agent0", text)}
        if step == 3:  # its rows go, as when memory runs short, and come back only once the reports are there
            here.decoder.scheduler.running.clear()
            here.decoder.model.release(performance.gang)
            performance.gang = None
            here.decoder.scheduler.waiting.append(performance)
        return reports

    events = finish(here, says)
    assert texts(events)[:4] == texts(undisturbed)[:4]  # a toy model reads the text behind a prompt as prompt
    assert verify([dict(line) for line in events[-1].receipt]).holds


def test_bid_that_changes_while_reports_are_awaited_counts_for_that_token(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 2500), "agent1")
    auction = here.submit(spec)
    here.finish()
    auction.set_bid("agent0", 7000)
    here.decoder.supply("auction", 0, {"agent1": own_report(here, spec, "agent1", [])})
    [token] = [event for event in here.finish() if event.type == "auction.token"]
    assert token.fields["agents"][0]["bid_micros"] == 7000


def test_supply_refuses_what_does_not_belong_and_the_step_stays_open(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 2500), "agent1")
    here.submit(spec)
    here.finish()
    good = own_report(here, spec, "agent1", [])
    for auction_id, step, reports, error in (
        ("nobody", 0, {}, InvalidInput),
        ("auction", 1, {}, InvalidInput),
        ("auction", 0, {"agent0": good}, InvalidInput),
        ("auction", 0, {"agent1": Report(good.log_probs[:-1])}, InvalidDistribution),
        ("auction", 0, {"agent1": Report(good.log_probs * 0)}, InvalidDistribution),
    ):
        with pytest.raises(error):
            here.decoder.supply(auction_id, step, reports)
    here.decoder.supply("auction", 0, {"agent1": good})
    with pytest.raises(InvalidInput, match="awaits nothing"):
        here.decoder.supply("auction", 0, {"agent1": good})


def test_policy_binds_agents_with_their_own_models_too(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 250_000), "agent1")
    mostly_a = Report(np.log(np.array([0.9])), (0,), 0.1)
    here.submit(spec, policy=Policy(sequences=((0,),)))
    events = finish(here, lambda step, text: {"agent1": mostly_a})
    tokens = [event.fields["token_id"] for event in events if event.type == "auction.token"]
    assert tokens and 0 not in tokens


def test_agent_that_wants_nothing_but_what_is_banned_is_silent(world: World, spec_of: Spec) -> None:
    here, spec = world(), outside(spec_of(1000, 250_000), "agent1")
    only_a = Report(np.array([0.0]), (0,), 0.0)
    here.submit(spec, policy=Policy(sequences=((0,),)))
    events = finish(here, lambda step, text: {"agent1": only_a})
    agents = [event.fields["agents"][1] for event in events if event.type == "auction.token"]
    assert agents and {agent["status"] for agent in agents} == {"absent"}
    assert verify([dict(line) for line in events[-1].receipt]).holds


def test_spec_in_which_every_agent_runs_its_own_model_needs_a_reference(spec_of: Spec) -> None:
    with pytest.raises(InvalidSpec, match="reference_weight"):
        outside(spec_of(1000), "agent0")
    assert outside(spec_of(1000, reference_weight_micros=1), "agent0").hosted_ids == ("reference",)


def test_agent_with_its_own_model_is_read_back_from_its_mapping_and_takes_no_prompt(spec_of: Spec) -> None:
    spec = outside(spec_of(1000, 2000), "agent1")
    assert AuctionSpec.from_mapping(spec.to_mapping()) == spec
    assert "own_model" not in spec.to_mapping()["agents"][0]
    for fields in ({"own_model": 1}, {"own_model": "yes"}, {"own_model": True, "prompt": "say this"}):
        with pytest.raises(InvalidSpec):
            agent = AgentSpec.from_mapping({"name": "A", "offer": "o", "bid": 1, **fields}, "agents[0]")
            replace(spec, agents=(agent, *spec.agents))

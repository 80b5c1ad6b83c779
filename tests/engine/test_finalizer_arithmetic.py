"""A softmax auction's receipt holds at every level, and whatever is changed in it is found where it stands."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.engine.candidate import Candidate
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import Line, content_hash
from tokenauction.engine.replay import replay
from tokenauction.engine.reward import Callback
from tokenauction.engine.spec import AgentSpec, AuctionSpec
from tokenauction.engine.verification import verify
from tokenauction.models.toy import ToyModel, ToyWorld

World = Any  # tests/engine/conftest.py
SYMBOLS = "abcdefghij ."


def spec_of(**changes: Any) -> AuctionSpec:
    """A softmax auction of two agents, the second with a budget that caps it."""
    finalizer = FinalizerSpec(**{"num_candidates": 4, **changes.pop("finalizer", {})})
    agents = (
        AgentSpec("agent0", "Name0", "offer", 0, value_micros=2_000_000),
        AgentSpec("agent1", "Name1", "offer", 0, budget_micros=changes.pop("budget", 50_000)),
    )
    return AuctionSpec("query", agents, seed=7, max_tokens=12, finalizer=finalizer, **{"temperature": 0.9, **changes})


def prompts(world: Any, spec: AuctionSpec) -> list[list[int]]:
    return [world.decoder.model.tokenizer.encode_prompt(f"{spec.query} for {row_id}") for row_id in spec.hosted_ids]


@pytest.fixture
def receipt_of(world: type[World]) -> Callable[..., list[Line]]:
    """`receipt_of(spec)`: the lines of one softmax auction on the toy world."""

    def run(spec: AuctionSpec, **options: Any) -> list[Line]:
        made = world()
        made.decoder.enqueue(made.decoder.prepare(spec, prompts(made, spec), Policy(), "auction", **options))
        while made.decoder.has_work:
            events = made.decoder.step()
        return [dict(line) for line in events[-1].receipt]

    return run


Receipt = Callable[..., list[Line]]


def chained(lines: list[Line]) -> list[Line]:
    """The lines with hashes that are right again: what a cheat would write."""
    for number, line in enumerate(lines):
        if number:
            line["previous"] = lines[number - 1]["hash"]
        line["hash"] = content_hash(line)
    return lines


SPECS: dict[str, AuctionSpec] = {
    "context_aware": spec_of(),
    "reference": spec_of(finalizer={"proposal": "reference", "tau_micros": 300_000}, budget=None),
    "token_auction": spec_of(finalizer={"proposal": "token_auction", "num_candidates": 2}, top_p=0.9),
    "log_linear": spec_of(finalizer={"proposal": "token_auction"}, rule="log_linear", max_sentences=1),
    "one candidate": spec_of(finalizer={"num_candidates": 1}),
    "banned": spec_of(top_k=5),
}


@pytest.mark.parametrize("name", SPECS)
def test_receipt_holds_at_the_levels_of_arithmetic_and_model(
    world: type[World], receipt_of: Receipt, name: str
) -> None:
    spec = SPECS[name]
    lines = receipt_of(spec)
    verdict = verify(lines)
    assert verdict.holds, verdict
    assert str(verdict) == f"holds: {spec.finalizer.num_candidates} candidates, checked at the level of arithmetic"  # type: ignore[union-attr]
    again = replay(lines, ToyModel(ToyWorld(3, SYMBOLS)), prompts(world(), spec), Policy())
    assert again.holds and again.level == "model", again


def test_receipt_with_rewards_of_a_function_holds(world: type[World], receipt_of: Receipt) -> None:
    def likes(agent_id: str, text: str) -> float:
        return -math.inf if len(text) % 3 == 1 else text.count("a") - text.count(agent_id[-1])

    spec = spec_of(finalizer={"num_candidates": 12})
    lines = receipt_of(spec, rewards=Callback(likes))
    assert any(None in row for row in lines[-2]["rewards"])
    assert verify(lines).holds, verify(lines)
    assert replay(lines, ToyModel(ToyWorld(3, SYMBOLS)), prompts(world(), spec), Policy()).holds


def test_receipt_of_a_cancelled_auction_holds(world: type[World]) -> None:
    made, spec = world(), spec_of()
    made.decoder.enqueue(made.decoder.prepare(spec, prompts(made, spec), Policy(), "auction"))
    made.decoder.step()
    made.decoder.cancel("auction")
    lines = [dict(line) for line in made.decoder.step()[-1].receipt]
    assert verify(lines).holds, verify(lines)
    assert lines[-1]["finish_reason"] == "cancelled" and lines[-1]["totals_micros"] == [0, 0]


def change(*path: Any, to: Any) -> Callable[[list[Line]], None]:
    """Puts a value, or what a function makes of the old one, at a place of the receipt."""

    def apply(lines: list[Line]) -> None:
        place: Any = lines
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = to(place[path[-1]]) if callable(to) else to

    return apply


def more(by: float) -> Callable[[Any], Any]:
    return lambda old: old + by


CHEATS: dict[str, tuple[Callable[[list[Line]], None], str, str]] = {
    "a token's probability": (change(1, "q", 2, to=lambda q: q / 3), "candidate 0", ""),
    "a token's place": (change(2, "cdf_below", 0, to=more(0.4)), "candidate 1", "uniform"),
    "log_proposal": (change(1, "log_proposal", to=more(-1e-6)), "candidate 0", "log_proposal"),
    "a token is left out": (lambda lines: lines[1]["q"].pop(), "candidate 0", ""),
    "an index": (change(2, "index", to=5), "candidate 1", "out of place"),
    "its end": (change(1, "finish_reason", to="sentences"), "candidate 0", "reason"),
    "its end is nonsense": (change(1, "finish_reason", to="magic"), "candidate 0", "reason"),
    "its text is a number": (change(1, "text", to=7), "candidate 0", "text"),
    "a candidate is left out": (lambda lines: lines.pop(4), "choice", "3 of 4"),
    "two candidates swapped": (lambda lines: lines.insert(1, lines.pop(2)), "candidate 0", "out of place"),
    "two choices": (lambda lines: lines.insert(6, copy.deepcopy(lines[5])), "choice", "behind the choice"),
    "a candidate behind the choice": (
        lambda lines: lines.insert(6, copy.deepcopy(lines[1])),
        "candidate",
        "behind the choice",
    ),
    "a step among candidates": (change(1, "kind", to="step"), "step 0", "out of place"),
    "no choice": (lambda lines: lines.pop(5), "settlement", "no candidate was chosen"),
    "the key": (change(5, "key", to="00" * 32), "choice", "key"),
    "the winner": (change(5, "chosen", to=lambda old: (old + 1) % 4), "choice", "draws another"),
    "a winner that is none": (change(5, "chosen", to=4), "choice", "can win"),
    "a winner that is text": (change(5, "chosen", to="0"), "choice", "can win"),
    "a reward": (change(5, "rewards", 0, 1, to=more(1e-3)), "choice", "probabilities"),
    "a probability": (change(5, "probabilities", 0, to=more(1e-6)), "choice", "probabilities[0]"),
    "the reference": (change(5, "log_reference", 2, to=more(-0.1)), "choice", "probabilities"),
    "a reference above 0": (change(5, "log_reference", 2, to=0.5), "choice", "above 0"),
    "what is owed": (change(5, "owed", 0, to=more(1.0)), "choice", "owed[0]"),
    "a payment": (change(5, "payments", 0, to=more(-1.0)), "choice", "payments"),
    "a charge": (change(5, "charges", 1, to=more(1)), "choice", "charges"),
    "the clip": (change(5, "clipped", 1, to=False), "choice", "clipped"),
    "a utility": (change(5, "utilities", 1, to=more(1.0)), "choice", "utilities[1]"),
    "rewards of one agent": (lambda lines: lines[5]["rewards"].pop(), "choice", ""),
    "rewards are nan": (change(5, "rewards", 0, 0, to="nan"), "choice", ""),
    "the text": (change(6, "text", to="zzz"), "settlement", "text"),
    "the end": (change(6, "finish_reason", to="cancelled"), "settlement", ""),
    "the end is another's": (change(6, "finish_reason", to="no_bid"), "settlement", "finish_reason"),
    "the total": (change(6, "totals_micros", 0, to=more(1)), "settlement", "totals_micros"),
    "the void": (change(6, "voids", to=[]), "settlement", "voids"),
    "the seed": (change(6, "seed", to="11" * 32), "auction", "committed"),
    "tau": (change(0, "spec", "tau", to="2"), "auction", "committed"),
    "a value per nat": (change(0, "spec", "agents", 0, "value_per_nat", to="9"), "auction", "committed"),
    "the mechanism": (change(0, "spec", "mechanism", to="token"), "auction", ""),
    "the limits": (change(0, "limits", to=[]), "auction", "limits"),
    "the spec is a list": (change(0, "spec", to=[]), "auction", ""),
}


@pytest.mark.parametrize("name", CHEATS)
def test_cheat_is_found_where_it_stands(receipt_of: Receipt, name: str) -> None:
    cheat, where, fragment = CHEATS[name]
    lines = receipt_of(spec_of())
    assert lines[5]["clipped"] == [False, True]  # the table above says what is there
    cheat(lines)
    verdict = verify(chained(lines))
    assert (verdict.holds, verdict.where) == (False, where), verdict
    assert fragment in verdict.problem, verdict


@pytest.mark.parametrize("number", range(7))
def test_line_that_was_changed_without_its_hash_is_found(receipt_of: Receipt, number: int) -> None:
    lines = receipt_of(spec_of())
    lines[number]["extra"] = 1
    assert not verify(lines).holds


def test_model_of_another_seed_is_found(world: type[World], receipt_of: Receipt) -> None:
    spec = spec_of()
    lines = receipt_of(spec)
    verdict = replay(lines, ToyModel(ToyWorld(4, SYMBOLS)), prompts(world(), spec), Policy())
    assert (verdict.holds, verdict.where) == (False, "auction")


def scaled(line: Line) -> Line:
    """A candidate whose probabilities are those of no model, though they add up."""
    candidate = Candidate.from_line(line)
    q = tuple(min(1.0, p + 0.01) for p in candidate.q)
    return {**line, **Candidate(**{**vars(candidate), "q": q}).to_mapping()}


MODEL_CHEATS: dict[str, tuple[Callable[[list[Line]], None], str]] = {
    "probabilities": (lambda lines: lines.__setitem__(2, scaled(lines[2])), "candidate 1"),
    "a text": (change(1, "text", to="zzz"), "candidate 0"),
    "a token": (change(1, "token_ids", 0, to=lambda token: (token + 1) % 12), "candidate 0"),
    "a token of no vocabulary": (change(1, "token_ids", 0, to=99), "candidate 0"),
    "a reward": (change(5, "rewards", 1, 0, to=more(0.01)), "choice"),
    "a reference": (change(5, "log_reference", 1, to=more(-0.01)), "choice"),
    "a prompt": (change(0, "prompt_hashes", 3, to="00" * 32), "auction"),
}


@pytest.mark.parametrize("name", MODEL_CHEATS)
def test_cheat_that_adds_up_is_found_by_the_model(world: type[World], receipt_of: Receipt, name: str) -> None:
    cheat, where = MODEL_CHEATS[name]
    spec = spec_of()
    lines = receipt_of(spec)
    cheat(lines)
    verdict = replay(chained(lines), ToyModel(ToyWorld(3, SYMBOLS)), prompts(world(), spec), Policy())
    assert (verdict.holds, verdict.where) == (False, where), verdict


JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=2)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.text(max_size=2), inner, max_size=2)),
    max_leaves=4,
)


@pytest.fixture
def lines(receipt_of: Receipt) -> list[Line]:
    return receipt_of(spec_of())


@pytest.mark.slow
@settings(max_examples=300, suppress_health_check=[])
@given(st.integers(1, 6), st.data())
def test_verification_never_raises_for_what_a_receipt_may_hold(number: int, data: st.DataObject) -> None:
    changed = copy.deepcopy(SOUND)
    name = data.draw(st.sampled_from(sorted(changed[number])))
    changed[number][name] = data.draw(JUNK)
    same = changed[number][name] == SOUND[number][name]
    assert verify(changed).holds is False or same
    assert isinstance(verify(chained(changed)).problem, str)


def _sound() -> list[Line]:
    from tokenauction.engine.decoder import Decoder

    decoder = Decoder(ToyModel(ToyWorld(3, SYMBOLS)), stamp=lambda: ("e", 0.0), entropy=lambda n: bytes(n))
    spec = spec_of()
    ids = [decoder.model.tokenizer.encode_prompt(row_id) for row_id in spec.hosted_ids]
    decoder.enqueue(decoder.prepare(spec, ids, Policy(), "auction"))
    while decoder.has_work:
        events = decoder.step()
    return [dict(line) for line in events[-1].receipt]


SOUND = _sound()

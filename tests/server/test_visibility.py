"""Nobody sees a field that the table does not give them; a rival's number changes nothing that a bidder sees."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import commitment
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.toy import ToyModel, ToyWorld
from tokenauction.server import wire
from tokenauction.server.visibility import AUDIENCES, FIELDS, Audience, view

SYMBOLS = "abcdefghij ."
ENVELOPE = {"type", "event_id", "auction_id", "seq", "epoch", "durable_seq", "time", "disclosure"}
DISCLOSURE = {"sponsored": True, "by": [{"id": "a0", "name": "Name a0"}, {"id": "a1", "name": "Name a1"}]}
HOUSE_EVENTS: list[dict[str, Any]] = [  # the house's own
    {"type": "agent.left", "agent_id": "a1", "from_step": 3},
    {"type": "stream.reset", "after_seq": 3},
    {"type": "error", "code": "no_weight", "message": "every bid is 0"},
]
OWN = "a0"


@cache
def events(rule: str = "linear", num_agents: int = 2) -> tuple[dict[str, Any], ...]:
    """The events of one auction on the toy model and those that only the house tells, as the server numbers them."""
    model = ToyModel(ToyWorld(3, SYMBOLS), max_rows=8)
    count = itertools.count()
    decoder = Decoder(model, stamp=lambda: (f"evt_{next(count)}", 1.5), entropy=bytes)
    briefs = [
        {
            "id": f"a{i}",
            "name": f"Name a{i}",
            "offer": f"offer {i}",
            "bid": f"0.00{i + 1}7",
            "budget": "0.5",
            "system_prompt": f"system {i}",
            "prompt": f"prompt {i}",
        }
        for i in range(num_agents)
    ]
    source = {"query": "q", "agents": briefs, "rule": rule, "top_tokens": 2, "seed": 4, "reference_weight": "0.0009"}
    if rule == "softmax":
        briefs = [{**brief, "value_per_nat": f"0.00{i + 3}7"} for i, brief in enumerate(briefs)]
        source |= {"rule": "linear", "mechanism": "softmax", "show_candidates": True, "agents": briefs, "tau": "0.003"}
    spec = AuctionSpec.from_mapping({**source, "max_tokens": 12})
    decoder.submit(spec, [model.tokenizer.encode_prompt(row) for row in spec.hosted_ids], Policy(), "auc_1")
    told = []
    while decoder.has_work:
        told += [
            {**event.to_mapping(), **({"line": event.receipt[-1]} if event.receipt else {})} for event in decoder.step()
        ]
    told[1:1] = [{**event, "event_id": "evt_h", "auction_id": "auc_1", "time": 1.5} for event in HOUSE_EVENTS]
    for seq, event in enumerate(told):
        event |= {"seq": seq, "epoch": 1, "durable_seq": seq - 1}
    for event in (told[0], told[-1]):
        event["disclosure"] = DISCLOSURE
    return tuple(told)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is neither an object nor a list of objects, with its path."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list) and value and isinstance(value[0], Mapping):
        for place, inner in enumerate(value):
            yield from leaves(inner, f"{path}[{inner.get('id', place)}]")
    else:
        yield path, value


def paths(seen: Mapping[str, Any]) -> set[str]:
    return {path for path, _ in leaves(seen)}


@pytest.mark.parametrize("rule", ["linear", "log_linear", "softmax"])
def test_table_has_a_row_for_every_field_there_is(rule: str) -> None:
    for event in events(rule):
        shown = {name: value for name, value in event.items() if name != "line"}  # which is the receipt's
        assert view(event, "admin", None, True) == shown


def test_table_names_no_field_twice_and_has_two_signs_a_cell() -> None:
    named = [(row.event, name) for row in FIELDS for name in row.fields.split()]
    assert len(named) == len(set(named))
    assert {cell for row in FIELDS for cell in row[2:]} <= {"++", "--", "oo", "-+", "o+"}
    assert not any("o" in cell for row in FIELDS for cell in (row.public, row.owner, row.admin))


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("audience", AUDIENCES)
def test_everybody_gets_every_event(audience: Audience, settled: bool) -> None:
    for event in events():
        seen = view(event, audience, OWN, settled)
        assert {name: seen[name] for name in ENVELOPE & set(event)} == {n: event[n] for n in ENVELOPE & set(event)}


@pytest.mark.parametrize("audience", AUDIENCES)
def test_first_and_last_event_say_to_everybody_who_paid(audience: Audience) -> None:
    assert [view(event, audience, None, False).get("disclosure") for event in (events()[0], events()[-1])] == [
        DISCLOSURE,
        DISCLOSURE,
    ]


@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize(
    ("less", "more"), [("public", "bidder"), ("public", "owner"), ("bidder", "owner"), ("owner", "admin")]
)
def test_audience_sees_what_the_lesser_one_sees(less: Audience, more: Audience, settled: bool) -> None:
    for event in (*events(num_agents=3), *events("softmax")):
        missing = paths(view(event, less, OWN, settled)) - paths(view(event, more, OWN, settled)) - {"agents"}
        assert missing <= {f"spec.agents[{OWN}].budget"}  # its own; the owner learns it with the settlement


@pytest.mark.parametrize("audience", AUDIENCES)
def test_audience_sees_no_less_once_the_auction_has_settled(audience: Audience) -> None:
    for event in (*events(num_agents=3), *events("softmax")):
        assert paths(view(event, audience, OWN, False)) <= paths(view(event, audience, OWN, True))


@pytest.mark.parametrize("audience", AUDIENCES)
def test_view_fits_the_struct_of_its_type(audience: Audience) -> None:
    for event, settled in itertools.product((*events(), *events("log_linear"), *events("softmax")), (False, True)):
        seen = view(event, audience, OWN, settled)
        message = wire.decode_server(msgspec.json.encode(seen))
        assert message is not None and json.loads(wire.encode(message)) == json.loads(json.dumps(seen))


def test_public_sees_no_number_of_any_agent() -> None:
    for event in (*events(), *events("softmax")):
        seen = view(event, "public", None, True)
        assert {path for path in paths(seen) if "agents" in path} <= {
            "agents",
            *(f"spec.agents[a{i}].{name}" for i in range(2) for name in ("id", "name")),
        }


def test_bidder_sees_its_own_numbers_to_the_last_digit() -> None:
    tokens = [event for event in events() if event["type"] == "auction.token"]
    for token in tokens:
        [seen] = view(token, "bidder", OWN, False)["agents"]
        own = next(agent for agent in token["agents"] if agent["id"] == OWN)
        hidden = {"probability", "probability_without", "tv", "counterfactual_token_id", "counterfactual_text"}
        assert seen == {name: value for name, value in own.items() if name not in hidden}
    [total] = view(events()[-1], "bidder", OWN, True)["agents"]
    assert total == events()[-1]["agents"][0]


@pytest.mark.parametrize("agent_id", [None, "", "nobody", "a"])
def test_bidder_who_takes_no_part_sees_what_the_public_sees(agent_id: str | None) -> None:
    for event, settled in itertools.product(events(), (False, True)):
        if event["type"] != "agent.left":
            assert view(event, "bidder", agent_id, settled) == view(event, "public", None, settled)


def test_event_without_an_agent_is_not_that_of_a_bidder_without_a_name() -> None:
    left = {"type": "agent.left", "seq": 1, "from_step": 3}
    assert view(left, "bidder", None, False) == {"type": "agent.left", "seq": 1}


def test_who_left_is_known_to_itself_at_once_and_to_others_when_it_is_over() -> None:
    left = next(event for event in events() if event["type"] == "agent.left")
    assert "agent_id" in view(left, "bidder", "a1", False)
    assert "agent_id" not in view(left, "bidder", "a0", False)
    assert "agent_id" in view(left, "public", None, True)


def test_unknown_event_shows_its_envelope_alone() -> None:
    event = {"type": "auction.audited", "event_id": "e", "auction_id": "a", "seq": 1, "time": 0.0, "bids": [1, 2]}
    for audience in AUDIENCES:
        assert set(view(event, audience, OWN, True)) == set(event) - {"bids"}


def test_unknown_field_and_the_line_of_the_receipt_are_hidden_from_everybody() -> None:
    event = {**events()[5], "line": {"bids": [1, 2]}, "secret": 7}
    for audience in AUDIENCES:
        assert not {"line", "secret"} & set(view(event, audience, OWN, True))


def test_bidder_of_a_softmax_auction_sees_what_texts_are_worth_to_itself_alone() -> None:
    finalized = next(event for event in events("softmax") if event["type"] == "auction.finalized")
    seen = view(finalized, "bidder", OWN, True)
    [own] = seen["agents"]
    hidden = {
        "exact_expected_reward_micros", "exact_utility_micros", "probabilities_without", "chosen_without"
    }  # fmt: skip
    assert own == {name: value for name, value in finalized["agents"][0].items() if name not in hidden}
    assert all(set(candidate) == {"index", "text"} for candidate in seen["candidates"])
    assert not {"effective_sample_size", "divergence", "log_mean_weight", "key"} & set(seen)


@pytest.mark.slow
@pytest.mark.parametrize("settled", [False, True])
@pytest.mark.parametrize("num_agents", [2, 3])
@given(data=st.data())
def test_what_a_bidder_sees_does_not_depend_on_any_number_of_a_rival(
    num_agents: int, settled: bool, data: st.DataObject
) -> None:
    """Change every number of the others and every number of all together: the view stays the same."""
    event = data.draw(st.sampled_from(events(num_agents=num_agents)))
    changed = copy.deepcopy(event)
    shown = {"id", "name"}  # of a rival
    entries = [*changed.get("agents", []), *changed.get("spec", {}).get("agents", [])]
    for entry in entries:
        if entry["id"] != OWN:
            for name in entry.keys() - shown:
                entry[name] = data.draw(st.integers() | st.floats() | st.text())
    for name in {"probability", "top_tokens", "total_micros", "total", "seed", "nonce", "prompt_hashes", "line"}:
        if name in changed:
            changed[name] = data.draw(st.integers())
    for entry in changed.get("agents", []):
        for name in ("probability", "probability_without", "tv", "counterfactual_token_id", "counterfactual_text"):
            if name in entry:
                entry[name] = data.draw(st.floats())
    assert view(changed, "bidder", OWN, settled) == view(event, "bidder", OWN, settled)
    assert view(changed, "public", None, settled) == view(event, "public", None, settled)


# --- Why the hidden is hidden -------------------------------------------------------------------------------------


def test_probability_of_the_token_would_give_the_sum_of_the_others_bids_away() -> None:
    """share = b p / (B q): with p from an own model, b and the share known, q gives B."""
    token = next(event for event in events() if event["type"] == "auction.token" and event["agents"][0]["influence"])
    own, *others = token["agents"]
    everything = own["effective_bid_micros"] * own["probability"] / (own["influence"] * token["probability"])
    rest = sum(agent["effective_bid_micros"] for agent in others)
    assert everything - own["effective_bid_micros"] == pytest.approx(rest, rel=1e-9)
    assert not {"probability", "top_tokens"} & set(view(token, "bidder", OWN, True))


def test_seed_and_nonce_would_tell_whether_a_guess_at_a_bid_is_right() -> None:
    """The commitment covers the spec with every bid; whoever can compute it can try bids one by one."""
    created, settled = events()[0], events()[-1]
    header = {name: value for name, value in created["line"].items() if name not in ("commitment", "hash")}
    seed, nonce = int(settled["seed"], 16), bytes.fromhex(settled["nonce"])
    right = []
    for guess in ("0.0026", "0.0027", "0.0028"):
        guessed = copy.deepcopy(header)
        guessed["spec"]["agents"][1]["bid"] = guess
        if commitment(seed, nonce, guessed) == created["commitment"]:
            right.append(guess)
    assert right == [created["spec"]["agents"][1]["bid"]]
    for audience in ("public", "bidder"):
        assert not {"seed", "nonce"} & set(view(settled, audience, OWN, True))
    assert {"seed", "nonce"} <= set(view(settled, "owner", None, False))  # the event itself says that it is over

"""Whatever is given to `clear`, it answers, or says in one line what is wrong and exits with 2."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenauction.engine.errors import TokenAuctionError

Cli = Callable[..., Any]

GOOD: dict[str, Any] = {
    "agents": [
        {"id": "a", "bid": 1, "distribution": [0.25, 0.75]},
        {"id": "b", "bid": 2, "distribution": [0.5, 0.5]},
    ]
}


def with_agent(**fields: Any) -> dict[str, Any]:
    """A good request but for some fields of its second agent; `...` leaves one out."""
    agent = {name: value for name, value in {**GOOD["agents"][1], **fields}.items() if value is not ...}
    return {"agents": [GOOD["agents"][0], agent]}


REFUSED: dict[str, tuple[Any, str, str]] = {
    "list": ([], "invalid_input", "must be a JSON object, not list"),
    "number": (7, "invalid_input", "must be a JSON object"),
    "null": (None, "invalid_input", "must be a JSON object"),
    "text": ("agents", "invalid_input", "must be a JSON object"),
    "empty object": ({}, "invalid_input", "agents must be a list"),
    "unknown field": ({**GOOD, "prices": 1}, "invalid_input", "no field 'prices'"),
    "no agents": ({"agents": []}, "invalid_input", "at least one agent"),
    "agents is an object": ({"agents": {"a": 1}}, "invalid_input", "agents must be a list"),
    "agents is text": ({"agents": "ab"}, "invalid_input", "agents must be a list"),
    "agent is a number": ({"agents": [1]}, "invalid_input", "agents[0] must be a JSON object"),
    "unknown field of an agent": (with_agent(budget=1), "invalid_input", "agents[1] has no field 'budget'"),
    "no id": (with_agent(id=...), "invalid_input", "agents[1]: id"),
    "empty id": (with_agent(id=""), "invalid_input", "agents[1]: id"),
    "id is a number": (with_agent(id=7), "invalid_input", "agents[1]: id"),
    "id is a list": (with_agent(id=["b"]), "invalid_input", "agents[1]: id"),
    "id is half a character": (with_agent(id="\ud83d"), "invalid_input", r"'\ud83d'"),
    "id twice": (with_agent(id="a"), "invalid_input", "its own"),
    "id of the reference": (with_agent(id="reference"), "invalid_input", "reference"),
    "no bid": (with_agent(bid=...), "invalid_bid", "agents[1]: bid must be a finite number"),
    "negative bid": (with_agent(bid=-1), "invalid_bid", "not -1"),
    "bid is nan": (with_agent(bid=math.nan), "invalid_bid", "not nan"),
    "bid is infinite": (with_agent(bid=math.inf), "invalid_bid", "not inf"),
    "bid is text": (with_agent(bid="2"), "invalid_bid", "not '2'"),
    "bid is true": (with_agent(bid=True), "invalid_bid", "not True"),
    "bid is null": (with_agent(bid=None), "invalid_bid", "not None"),
    "bid is a list": (with_agent(bid=[2]), "invalid_bid", "[2]"),
    "bid beyond any float": (with_agent(bid=10**400), "invalid_bid", "finite number"),
    "bid beyond any ratio": (with_agent(bid=1e200), "invalid_bid", "1e+100"),
    "bid below any ratio": (with_agent(bid=1e-200), "invalid_bid", "1e-100"),
    "all bids zero": ({"agents": [{**agent, "bid": 0} for agent in GOOD["agents"]]}, "no_weight", "every weight is 0"),
    "no distribution": (with_agent(distribution=...), "invalid_distribution", "must be a list of numbers"),
    "empty distribution": (with_agent(distribution=[]), "invalid_distribution", "must be a list of numbers"),
    "distribution is text": (with_agent(distribution="01"), "invalid_distribution", "must be a list of numbers"),
    "distribution is an object": (with_agent(distribution={"0": 1}), "invalid_distribution", "list of numbers"),
    "distribution too long": (with_agent(distribution=[0.5, 0.25, 0.25]), "invalid_distribution", "has 3 entries"),
    "distribution too short": (with_agent(distribution=[1.0]), "invalid_distribution", "has 1 entries"),
    "nested distribution": (with_agent(distribution=[[0.5], [0.5]]), "invalid_distribution", "[0.5]"),
    "probability is nan": (with_agent(distribution=[math.nan, 1]), "invalid_distribution", "nan"),
    "probability is infinite": (with_agent(distribution=[math.inf, 0]), "invalid_distribution", "inf"),
    "probability is text": (with_agent(distribution=["0.5", 0.5]), "invalid_distribution", "'0.5'"),
    "probability is true": (with_agent(distribution=[True, 0]), "invalid_distribution", "True"),
    "probability is null": (with_agent(distribution=[None, 1]), "invalid_distribution", "None"),
    "probability beyond any float": (with_agent(distribution=[10**400, 0]), "invalid_distribution", "no probability"),
    "negative probability": (with_agent(distribution=[1.5, -0.5]), "invalid_distribution", "'b' holds a negative"),
    "sum below 1": (with_agent(distribution=[0.5, 0.4]), "invalid_distribution", "'b' sums to 0.9"),
    "sum above 1": (with_agent(distribution=[1e300, 1e300]), "invalid_distribution", "'b' sums to 2e+300"),
    "sum is 0": (with_agent(distribution=[0, 0]), "invalid_distribution", "'b' sums to 0.0"),
    "unknown rule": ({**GOOD, "rule": "quadratic"}, "invalid_spec", "'quadratic'"),
    "empty rule": ({**GOOD, "rule": ""}, "invalid_spec", "rule ''"),
    "rule is a list": ({**GOOD, "rule": ["linear"]}, "invalid_spec", "['linear']"),
    "rule is null": ({**GOOD, "rule": None}, "invalid_spec", "None"),
    "unknown sampler": ({**GOOD, "sampler": "greedy"}, "invalid_spec", "'greedy'"),
    "unknown pricing": ({**GOOD, "pricing": {"a": 1}}, "invalid_spec", "'a'"),
    "unsafe": ({**GOOD, "rule": "log_linear", "sampler": "race", "pricing": "free"}, "unsafe_combination", "allow"),
    "unsafe in any case": (
        {**GOOD, "rule": "log_linear", "sampler": "race", "allow_unsafe": True},
        "unsafe_combination",
        "critical bid",
    ),
    "allow_unsafe is text": ({**GOOD, "allow_unsafe": "no"}, "invalid_input", "true or false"),
    "negative seed": ({**GOOD, "seed": -1}, "invalid_input", "seed -1"),
    "seed of 257 bits": ({**GOOD, "seed": 2**256}, "invalid_input", "out of range"),
    "seed is a fraction": ({**GOOD, "seed": 0.5}, "invalid_input", "whole number"),
    "seed is text": ({**GOOD, "seed": "7"}, "invalid_input", "whole number"),
    "seed is true": ({**GOOD, "seed": True}, "invalid_input", "whole number"),
    "seed is null": ({**GOOD, "seed": None}, "invalid_input", "whole number"),
    "step of 65 bits": ({**GOOD, "step": 2**64}, "invalid_input", "step"),
    "negative step": ({**GOOD, "step": -1}, "invalid_input", "step -1"),
    "reference is a number": ({**GOOD, "reference": 1}, "invalid_input", "reference must be a JSON object"),
    "reference with an id": ({**GOOD, "reference": {"id": "x"}}, "invalid_input", "no field 'id'"),
    "reference without weight": ({**GOOD, "reference": {"distribution": [1, 0]}}, "invalid_bid", "weight"),
    "reference without distribution": ({**GOOD, "reference": {"weight": 1}}, "invalid_distribution", "reference"),
    "ragged reference": (
        {**GOOD, "reference": {"weight": 1, "distribution": [1]}},
        "invalid_distribution",
        "reference: distribution has 1 entries",
    ),
    "uniforms is a list": ({**GOOD, "uniforms": [0.5]}, "invalid_input", "uniforms must be a JSON object"),
    "unknown uniform": ({**GOOD, "uniforms": {"tokens": 0.5}}, "invalid_input", "no field 'tokens'"),
    "uniform of 1": ({**GOOD, "uniforms": {"token": 1}}, "invalid_input", "below 1"),
    "negative uniform": ({**GOOD, "uniforms": {"price": -0.1}}, "invalid_input", "price"),
    "uniform is nan": ({**GOOD, "uniforms": {"price": math.nan}}, "invalid_input", "price"),
    "uniform is text": ({**GOOD, "uniforms": {"counterfactual": "0"}}, "invalid_input", "counterfactual"),
    "uniforms in a race": ({**GOOD, "sampler": "race", "uniforms": {"token": 0.5}}, "invalid_input", "race"),
    "floor above 1": ({**GOOD, "floor": 1.5}, "invalid_input", "floor"),
    "negative floor": ({**GOOD, "floor": -0.5}, "invalid_input", "floor"),
    "floor is text": ({**GOOD, "floor": "0.1"}, "invalid_input", "floor"),
    "many lines and escapes": ({"\x1b[31mred\nand\u2028more\r\x07": 1}, "invalid_input", r"\x1b"),
    "endless field name": ({"x" * 100_000: 1}, "invalid_input", "has no field"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_clear_refuses_in_one_line(cli: Cli, case: str) -> None:
    content, code, fragment = REFUSED[case]
    found, message = cli("clear", stdin=json.dumps(content).encode("utf-8")).refusal
    assert (found, fragment in message) == (code, True), message


NOT_JSON: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "not JSON"),
    "words": (b"hello", "not JSON"),
    "cut off": (b'{"agents": [', "not JSON"),
    "two objects": (b"{} {}", "not JSON"),
    "single quotes": (b"{'agents': []}", "not JSON"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not UTF-8"),
    "UTF-16": ('{"agents": []}'.encode("utf-16"), "not UTF-8"),
    "zeros": (bytes(100), "not JSON"),
    "deep nesting": (b"[" * 200_000, "not JSON"),
    "deep objects": (b'{"a":' * 200_000, "not JSON"),
    "endless number": (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
    "field twice": (b'{"seed": 1, "seed": 2}', "'seed' is given more than once"),
    "field of an agent twice": (b'{"agents": [{"id": "a", "bid": 1, "bid": 2}]}', "'bid' is given more than once"),
}


@pytest.mark.parametrize("case", NOT_JSON)
def test_clear_refuses_what_is_not_json_in_one_line(cli: Cli, tmp_path: Path, case: str) -> None:
    content, fragment = NOT_JSON[case]
    path = tmp_path / "request.json"
    path.write_bytes(content)
    for result in (cli("clear", stdin=content), cli("clear", path)):
        code, message = result.refusal
        assert (code, fragment in message) == ("invalid_input", True), message


def test_clear_refuses_a_place_it_cannot_read(cli: Cli, tmp_path: Path) -> None:
    for place, fragment in (
        (tmp_path / "missing.json", "No such file"),
        (tmp_path, "Is a directory"),
        ("", "cannot be read"),
        ("x" * 5000, "name too long"),
        (tmp_path / "\udcff\n.json", "No such file"),
    ):
        code, message = cli("clear", place).refusal
        assert (code, fragment in message) == ("invalid_input", True), message


def test_clear_reads_no_more_than_its_limit(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tokenauction.clients.cli.json_request.MAX_BYTES", 1000)
    path = tmp_path / "request.json"
    path.write_bytes(b" " * 1001)
    for result in (cli("clear", path), cli("clear", stdin=b" " * 1001), cli("clear", "/dev/zero")):
        assert "larger than 1000 bytes" in result.refusal[1]


def test_clear_refuses_a_closed_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenauction.clients.cli.clear import clear_file

    monkeypatch.setattr("sys.stdin", None)  # what Python makes of `<&-`
    with pytest.raises(TokenAuctionError, match="standard input is closed"):
        clear_file("-")


def test_clear_takes_one_file(cli: Cli) -> None:
    assert "unexpected extra argument" in cli("clear", "a", "b").usage_error


numbers = st.floats() | st.integers() | st.sampled_from([0, 1, 0.5, 1e-300, 1e300, 10**400])
scalars = st.none() | st.booleans() | numbers | st.text(max_size=5)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
rows = st.sampled_from([[0.5, 0.5], [1, 0], [0.25, 0.75], [1e-300, 1.0]]) | st.lists(numbers, max_size=3)
agents = st.fixed_dictionaries({"id": st.text(max_size=2), "bid": numbers | scalars, "distribution": rows | anything})
requests = st.fixed_dictionaries(
    {"agents": st.lists(agents, max_size=3) | anything},
    optional={
        "rule": st.sampled_from(["linear", "log_linear"]) | scalars,
        "sampler": st.sampled_from(["coupled", "race"]) | scalars,
        "pricing": st.sampled_from(["critical_bid", "expected", "kl_clarke", "first_price", "free"]) | scalars,
        "seed": scalars,
        "step": scalars,
        "floor": scalars,
        "allow_unsafe": scalars,
        "reference": st.fixed_dictionaries({"weight": numbers, "distribution": rows}) | anything,
        "uniforms": st.dictionaries(st.sampled_from(["token", "price", "counterfactual"]), numbers) | anything,
    },
)


def answer_or_refuse(request: Any) -> None:
    """Either a strict JSON answer whose payments are numbers from 0, or an error of ours with a message."""
    from tokenauction.clients.cli.clear import clear_request

    try:
        answer = clear_request(request)
    except TokenAuctionError as error:
        assert str(error) and error.code != "error"
        return
    json.dumps(answer, allow_nan=False).encode()
    assert math.fsum(answer["aggregate"]) == pytest.approx(1)
    for agent, asked in zip(answer["agents"], request["agents"], strict=True):
        assert 0 <= agent["payment"] < math.inf
        assert 0 <= agent["influence"] <= 1 + 1e-9
        assert request.get("pricing") == "kl_clarke" or agent["payment"] <= asked["bid"]


@pytest.mark.slow
@settings(max_examples=120, deadline=None)
@given(request=requests | anything)
def test_clear_answers_or_refuses_anything(request: Any) -> None:
    answer_or_refuse(request)


bids = st.sampled_from([0, 1e-100, 1e-12, 1e-6, 1, 3, 1e6, 1e12, 1e100]) | st.floats(0, 1e100)
shares = st.lists(st.sampled_from([0.0, 1e-300, 1e-9, 1.0]) | st.floats(0, 1), min_size=3, max_size=3)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(
    table=st.lists(st.tuples(bids, shares.filter(lambda row: sum(row) > 1e-200)), min_size=1, max_size=4),
    combination=st.sampled_from(
        [(r, s, p) for r, s in (("linear", "coupled"), ("linear", "race"), ("log_linear", "coupled"))
         for p in ("critical_bid", "expected", "kl_clarke", "first_price", "free")]
    ),
    uniforms=st.tuples(*[st.floats(0, 1, exclude_max=True)] * 2),
)  # fmt: skip
def test_clear_answers_or_refuses_any_bids_and_distributions(
    table: list[tuple[float, list[float]]], combination: tuple[str, str, str], uniforms: tuple[float, float]
) -> None:
    rule, sampler, pricing = combination
    listed = [
        {"id": str(i), "bid": bid, "distribution": [x / sum(row) for x in row]} for i, (bid, row) in enumerate(table)
    ]
    request: dict[str, Any] = {"rule": rule, "sampler": sampler, "pricing": pricing, "agents": listed}
    if sampler == "coupled":
        request["uniforms"] = {"token": uniforms[0], "price": uniforms[1]}
    answer_or_refuse(request)

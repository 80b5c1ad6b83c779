"""`finalize` gives the published numbers; whatever it is given, it answers or says in one line what is wrong."""

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

# Vector C of docs/mechanism.md, with ln(π_ref/π_gen) = (0, -.2, .1).
GOOD: dict[str, Any] = {
    "tau": 1,
    "seed": 7,
    "log_reference": [-3.0, -3.2, -2.9],
    "log_proposal": [-3.0, -3.0, -3.0],
    "agents": [{"id": "a", "rewards": [1, 0, -1]}, {"id": "b", "rewards": [0, 0.5, 0]}],
}


def with_agent(**fields: Any) -> dict[str, Any]:
    """A good request but for some fields of its second agent; `...` leaves one out."""
    agent = {name: value for name, value in {**GOOD["agents"][1], **fields}.items() if value is not ...}
    return {**GOOD, "agents": [GOOD["agents"][0], agent]}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in GOOD.items() if key != name}


@pytest.fixture
def finalize(cli: Cli) -> Callable[[Any], dict[str, Any]]:
    """`finalize(request)`: what the command answers to a request on standard input."""

    def run(request: Any) -> dict[str, Any]:
        answer = cli("finalize", stdin=json.dumps(request).encode()).json
        assert isinstance(answer, dict)
        return answer

    return run


Finalize = Callable[[Any], dict[str, Any]]


def column(answer: dict[str, Any], name: str) -> list[Any]:
    return [agent[name] for agent in answer["agents"]]


def close(*expected: float) -> Any:
    return pytest.approx(list(expected), abs=1e-9, rel=0)


def test_finalize_gives_the_published_numbers(finalize: Finalize) -> None:
    answer = finalize(GOOD)
    assert answer["probabilities"] == close(0.6074766072, 0.3016639555, 0.0908594373)
    assert column(answer, "utility") == close(0.2586105504, 0.1263521027)
    assert column(answer, "payment") == close(0.2580066194, 0.0244798750)
    assert answer["effective_sample_size"] == pytest.approx(1 / sum(p * p for p in answer["probabilities"]))
    assert column(answer, "id") == ["a", "b"]


def test_finalize_reads_a_file(cli: Cli, finalize: Finalize, tmp_path: Path) -> None:
    file = tmp_path / "candidates.json"
    file.write_text(json.dumps(GOOD), encoding="utf-8")
    assert cli("finalize", file).json == finalize(GOOD)


def test_finalize_reads_tau_and_seed_as_1_and_0_where_they_are_left_out(finalize: Finalize) -> None:
    shorter = {name: GOOD[name] for name in ("log_reference", "log_proposal", "agents")}
    assert finalize(shorter) == finalize({**GOOD, "tau": 1, "seed": 0})


def test_finalize_multiplies_rewards_by_the_value_per_nat(finalize: Finalize) -> None:
    answer = finalize(with_agent(rewards=[0, 50, 0], value_per_nat=0.01))
    assert column(answer, "payment") == close(0.2580066194, 0.0244798750)
    assert column(answer, "value_per_nat") == [1.0, 0.01]


def test_finalize_lets_nobody_who_values_nothing_rule_a_candidate_out(finalize: Finalize) -> None:
    answer = finalize(with_agent(rewards=["-inf", "-inf", "-inf"], value_per_nat=0))
    assert answer["agents"][1]["payment"] == 0
    assert min(answer["probabilities"]) > 0


@pytest.mark.parametrize("gone", ["-inf", -math.inf])
def test_finalize_reads_minus_infinity(finalize: Finalize, gone: Any) -> None:
    answer = finalize({**with_agent(rewards=[gone, 0.5, 0]), "log_reference": [-3.0, -3.2, gone]})
    assert answer["probabilities"] == [0.0, 1.0, 0.0]
    assert answer["chosen"] == 1


def test_finalize_draws_each_candidate_as_often_as_its_probability_says(finalize: Finalize) -> None:
    drawn = [finalize({**GOOD, "seed": seed})["chosen"] for seed in range(60)]
    assert {0, 1, 2} == set(drawn)
    assert 22 <= drawn.count(0) <= 52  # of 60 at .607: four standard deviations
    assert drawn[:5] == [finalize({**GOOD, "seed": seed})["chosen"] for seed in range(5)]


def test_finalize_says_what_would_have_been_chosen_without_each_agent(finalize: Finalize) -> None:
    answer = finalize(GOOD)
    first = finalize({**GOOD, "agents": [GOOD["agents"][1]]})
    assert answer["agents"][0]["probabilities_without"] == pytest.approx(first["probabilities"], abs=1e-12)
    assert answer["agents"][0]["chosen_without"] == first["chosen"]


def test_finalize_of_ten_thousand_candidates_and_ten_thousand_nats(finalize: Finalize) -> None:
    j = range(10_000)
    agents = [{"id": "a", "rewards": [1e4 * (-1) ** k for k in j]}, {"id": "b", "rewards": [0] * 10_000}]
    answer = finalize({"log_reference": [-1e4] * 10_000, "log_proposal": [-5.0] * 10_000, "agents": agents})
    assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-12)
    assert answer["agents"][0]["payment"] == pytest.approx(math.log(2), abs=1e-10)
    assert answer["agents"][1]["payment"] == 0


REFUSED: dict[str, tuple[Any, str, str]] = {
    "list": ([], "invalid_input", "must be a JSON object, not list"),
    "empty object": ({}, "invalid_input", "log_reference must be a list"),
    "unknown field": ({**GOOD, "bids": 1}, "invalid_input", "no field 'bids'"),
    "no agents": ({**GOOD, "agents": []}, "invalid_input", "at least one agent"),
    "agents left out": (without("agents"), "invalid_input", "agents must be a list"),
    "agents is text": ({**GOOD, "agents": "ab"}, "invalid_input", "agents must be a list"),
    "agent is a number": ({**GOOD, "agents": [1]}, "invalid_input", "agents[0] must be a JSON object"),
    "a bid": (with_agent(bid=1), "invalid_input", "agents[1] has no field 'bid'"),
    "no id": (with_agent(id=...), "invalid_input", "agents[1]: id"),
    "id twice": (with_agent(id="a"), "invalid_input", "its own"),
    "id of the reference": (with_agent(id="reference"), "invalid_input", "reference"),
    "no rewards": (with_agent(rewards=...), "invalid_input", "agents[1]: rewards"),
    "empty rewards": (with_agent(rewards=[]), "invalid_input", "agents[1]: rewards"),
    "rewards too short": (with_agent(rewards=[1, 2]), "invalid_input", "rewards has 2 entries"),
    "rewards too long": (with_agent(rewards=[1, 2, 3, 4]), "invalid_input", "rewards has 4 entries"),
    "reward is nan": (with_agent(rewards=[math.nan, 0, 0]), "invalid_input", "nan"),
    "reward is infinite": (with_agent(rewards=[math.inf, 0, 0]), "invalid_input", "inf"),
    "reward is text": (with_agent(rewards=["1", 0, 0]), "invalid_input", "'1'"),
    "reward is true": (with_agent(rewards=[True, 0, 0]), "invalid_input", "True"),
    "reward is null": (with_agent(rewards=[None, 0, 0]), "invalid_input", "None"),
    "reward is a list": (with_agent(rewards=[[1], 0, 0]), "invalid_input", "[1]"),
    "reward beyond any float": (with_agent(rewards=[10**400, 0, 0]), "invalid_input", "finite"),
    "value times reward overflows": (with_agent(rewards=[1e300, 0, 0], value_per_nat=1e300), "invalid_input", "+inf"),
    "negative value": (with_agent(value_per_nat=-1), "invalid_input", "value_per_nat"),
    "value is nan": (with_agent(value_per_nat=math.nan), "invalid_input", "nan"),
    "value is null": (with_agent(value_per_nat=None), "invalid_input", "None"),
    "value is text": (with_agent(value_per_nat="1"), "invalid_input", "'1'"),
    "tau of 0": ({**GOOD, "tau": 0}, "invalid_input", "tau"),
    "negative tau": ({**GOOD, "tau": -1}, "invalid_input", "tau"),
    "tau is nan": ({**GOOD, "tau": math.nan}, "invalid_input", "tau"),
    "tau is infinite": ({**GOOD, "tau": math.inf}, "invalid_input", "tau"),
    "tau is text": ({**GOOD, "tau": "1"}, "invalid_input", "tau"),
    "tau is null": ({**GOOD, "tau": None}, "invalid_input", "tau"),
    "tau is true": ({**GOOD, "tau": True}, "invalid_input", "tau"),
    "tau too small for the rewards": ({**GOOD, "tau": 1e-305}, "invalid_input", "tau"),
    "seed is a fraction": ({**GOOD, "seed": 0.5}, "invalid_input", "whole number"),
    "negative seed": ({**GOOD, "seed": -1}, "invalid_input", "seed -1"),
    "seed of 257 bits": ({**GOOD, "seed": 2**256}, "invalid_input", "out of range"),
    "no candidates": ({**GOOD, "log_reference": [], "log_proposal": []}, "invalid_input", "one a candidate"),
    "no reference": (without("log_reference"), "invalid_input", "log_reference must be a list"),
    "no proposal": (without("log_proposal"), "invalid_input", "log_proposal must be a list"),
    "lengths differ": ({**GOOD, "log_reference": [-1, -1]}, "invalid_input", "log_reference has 2"),
    "log probability above 0": ({**GOOD, "log_reference": [0.1, -1, -1]}, "invalid_input", "0.1"),
    "proposal above 0": ({**GOOD, "log_proposal": [-1, 1e-9, -1]}, "invalid_input", "at most 0"),
    "log probability is nan": ({**GOOD, "log_reference": [math.nan, -1, -1]}, "invalid_input", "nan"),
    "drawn with probability 0": ({**GOOD, "log_proposal": ["-inf", -1, -1]}, "invalid_input", "above 0"),
    "log probability is text": ({**GOOD, "log_proposal": ["-1", -1, -1]}, "invalid_input", "'-1'"),
    "all ruled out": (with_agent(rewards=["-inf"] * 3), "no_common_support", "every candidate is ruled out"),
    "all ruled out by the reference": ({**GOOD, "log_reference": ["-inf"] * 3}, "no_common_support", "every candidate"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_finalize_refuses_in_one_line(cli: Cli, case: str) -> None:
    content, code, fragment = REFUSED[case]
    found, message = cli("finalize", stdin=json.dumps(content).encode("utf-8")).refusal
    assert (found, fragment in message) == (code, True), message


@pytest.mark.parametrize("content", [b"", b"hello", b"{} {}", b"\xff", b"[" * 200_000, b'{"tau": 1, "tau": 2}'])
def test_finalize_refuses_what_is_not_json(cli: Cli, content: bytes) -> None:
    assert cli("finalize", stdin=content).refusal[0] == "invalid_input"


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), st.text(max_size=3), st.just("-inf")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["id", "rewards"]), inner)),
    max_leaves=6,
)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.sampled_from([*GOOD, "agents[1].rewards", "agents[1].value_per_nat", "agents[1].id"]), JSON)
def test_finalize_answers_or_refuses_whatever_it_is_given(name: str, value: Any) -> None:
    from tokenauction.clients.cli.finalize import finalize_request

    request = with_agent(**{name.rpartition(".")[2]: value}) if "." in name else {**GOOD, name: value}
    try:
        answer = finalize_request(request)
    except TokenAuctionError as error:
        assert str(error)
    else:
        assert sum(answer["probabilities"]) == pytest.approx(1, abs=1e-9)
        json.dumps(answer, allow_nan=False)

"""A spec file may be anything: `run` uses it, or says in one line what is wrong with it, before a model is loaded."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tokenauction.engine.errors import InvalidSpec

Cli = Callable[..., Any]
WriteSpec = Callable[..., Path]

AGENTS = "agents: [{name: Alpha Airlines, offer: flights, bid: 0.002}]\n"
GOOD = "query: Vacations in Hawaii\n" + AGENTS

BOMB = (
    "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "query: *i\n"
)

NOT_A_SPEC: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "not NoneType"),
    "a comment": ("# later\n", "not NoneType"),
    "a word": ("hawaii", "not str"),
    "a list": ("- query: x\n", "not list"),
    "two documents": (GOOD + "---\n" + GOOD, "another document in line 3"),
    "not YAML": ("query: [x", "not YAML"),
    "a tab": ("query: x\n\tagents: []\n", "in line 2"),
    "a bare colon": ("query: a: b: c\n", "not YAML"),
    "binary": (b"\x89PNG\r\n\x1a\n\x00\xff", "not UTF-8"),
    "Latin-1": ("query: Grüße\n".encode("latin-1"), "not UTF-8"),
    "half a character": ("query: \ud800\n" + AGENTS, "not UTF-8"),
    "half a character, escaped": ('query: "\\ud800"\n' + AGENTS, "lone surrogate"),
    "zeros": (bytes(100), "special characters are not allowed"),
    "bomb": (BOMB, "an alias (*) in line 2"),
    "recursion": ("query: &q [*q]\n", "an alias (*) in line 1"),
    "undefined alias": ("query: *q\n", "alias"),
    "merged alias": ("base: &b {query: x}\n<<: *b\n", "an alias (*) in line 2"),
    "deep lists": ("query: " + "[" * 600, "nested too deeply"),
    "deep mappings": ("{a: " * 600, "nested too deeply"),
    "a key twice": (GOOD + "query: y\n", "'query' is given 2 times (mapping in line 1)"),
    "a bid twice": ("query: x\nagents:\n- name: a\n  bid: 1\n  bid: 2\n", "'bid' is given 2 times"),
    "a list as a key": (GOOD + "? [a, b]\n: c\n", "unhashable key"),
    "a Python object": (GOOD + "seed: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    "a month 13": (GOOD + "seed: 2024-13-45\n", "month must be in 1..12"),
    "a date that is none": (GOOD + "seed: !!timestamp soon\n", "does not allow"),
    "a truth that is none": (GOOD + "allow_unsafe: !!bool perhaps\n", "does not allow"),
    "a number that is none": (GOOD + 'seed: !!int ""\n', "does not allow"),
    "an endless number": (GOOD + "seed: " + "9" * 10_000 + "\n", "a number of 10000 digits in line 3"),
    "an endless hexadecimal number": (GOOD + "seed: 0x" + "f" * 10_000 + "\n", "a number of 10002 digits"),
    "an endless file": ("#" * 1_000_001, "more than 1000000 characters"),
}


@pytest.mark.parametrize("case", NOT_A_SPEC)
def test_run_refuses_a_file_that_holds_no_spec(cli: Cli, write_spec: WriteSpec, case: str) -> None:
    content, fragment = NOT_A_SPEC[case]
    code, message = cli("run", write_spec(content)).refusal
    assert (code, fragment in message) == ("invalid_spec", True), message


LONG = "x" * 4001

WRONG_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no query": ({"query": ...}, "spec.query is missing"),
    "empty query": ({"query": ""}, "spec.query"),
    "blank query": ({"query": " \t"}, "spec.query"),
    "query in two lines": ({"query": "a\nb"}, "line break"),
    "query with an escape": ({"query": "\x1b[2J"}, "control character"),
    "query is a number": ({"query": 7}, "spec.query is 7"),
    "query is null": ({"query": None}, "spec.query is None"),
    "query too long": ({"query": LONG}, "4001 characters"),
    "unknown field": ({"colour": "red"}, "spec.colour is not a field"),
    "field with an escape": ({"\x1b[31m\n": 1}, r"\x1b[31m"),
    "no agents": ({"agents": ...}, "spec.agents must be a list"),
    "agents is empty": ({"agents": []}, "1 to 64 agents, not 0"),
    "agents is text": ({"agents": "alpha"}, "spec.agents must be a list"),
    "agents is a mapping": ({"agents": {"alpha": 1}}, "spec.agents must be a list"),
    "an agent is text": ({"agents": ["alpha"]}, "agents[0] must be a mapping"),
    "too many agents": (
        {"agents": [{"name": f"a{i}", "offer": "x", "bid": 1} for i in range(65)]},
        "1 to 64 agents, not 65",
    ),
    "unknown rule": ({"rule": "quadratic"}, "'quadratic'"),
    "rule is a list": ({"rule": ["linear"]}, "spec.rule"),
    "unknown sampler": ({"sampler": ""}, "spec.sampler is ''"),
    "unknown pricing": ({"pricing": None}, "spec.pricing is None"),
    "cold": ({"temperature": 0}, "spec.temperature"),
    "temperature is text": ({"temperature": "warm"}, "spec.temperature"),
    "temperature is true": ({"temperature": True}, "spec.temperature"),
    "too many tokens": ({"max_tokens": 100_001}, "spec.max_tokens"),
    "no tokens": ({"max_tokens": 0}, "spec.max_tokens"),
    "a fraction of a token": ({"max_tokens": 1.5}, "spec.max_tokens"),
    "top_k of 0": ({"top_k": 0}, "spec.top_k"),
    "top_p above 1": ({"top_p": 1.01}, "spec.top_p"),
    "top_k with log_linear": ({"rule": "log_linear", "top_k": 5}, "floor"),
    "floor of 0": ({"floor": 0}, "spec.floor"),
    "top_tokens": ({"top_tokens": 101}, "spec.top_tokens"),
    "seed of 257 bits": ({"seed": 2**256}, "spec.seed"),
    "negative seed": ({"seed": -1}, "spec.seed"),
    "seed is text": ({"seed": "7"}, "spec.seed"),
    "currency": ({"currency": "dollars"}, "spec.currency"),
    "banned words is text": ({"banned_words": "beach"}, "spec.banned_words"),
    "a banned word is blank": ({"banned_words": [" "]}, "spec.banned_words"),
    "a banned word is half a character": ({"banned_words": ["\ud800"]}, r"'\ud800'"),
    "allow_unsafe is text": ({"allow_unsafe": "yes"}, "spec.allow_unsafe"),
    "micros": ({"reference_weight_micros": 5}, "give reference_weight"),
}


@pytest.mark.parametrize("case", WRONG_FIELDS)
def test_run_refuses_a_wrong_field(cli: Cli, write_spec: WriteSpec, case: str) -> None:
    fields, fragment = WRONG_FIELDS[case]
    code, message = cli("run", write_spec(**fields)).refusal
    assert (code, fragment in message) == ("invalid_spec", True), message


WRONG_AGENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no name": ({"name": ...}, "invalid_spec", "agents[0].name is missing"),
    "no bid": ({"bid": ...}, "invalid_spec", "agents[0].bid is missing"),
    "no offer": ({"offer": ...}, "invalid_spec", "agents[0].offer is missing"),
    "id of the reference": ({"id": "reference"}, "invalid_spec", "house model"),
    "id twice": ({"id": "beta"}, "invalid_spec", "two agents"),
    "id is a number": ({"id": 5}, "invalid_spec", "agents[0].id"),
    "unknown field": ({"wallet": 1}, "invalid_spec", "agents[0].wallet"),
    "negative bid": ({"bid": -1}, "invalid_bid", "agents[0].bid"),
    "bid of half a micro": ({"bid": "0.0000005"}, "invalid_bid", "finer than one micro"),
    "bid a hair above a micro": ({"bid": "0.000001" + "0" * 30 + "1"}, "invalid_bid", "finer than one micro"),
    "bid that vanishes": ({"bid": "1e-99999999"}, "invalid_bid", "finer than one micro"),
    "bid without end": ({"bid": "1e999999999"}, "invalid_bid", "largest amount"),
    "bid is nan": ({"bid": "nan"}, "invalid_bid", "agents[0].bid"),
    "bid is infinite": ({"bid": "-inf"}, "invalid_bid", "agents[0].bid"),
    "bid is text": ({"bid": "much"}, "invalid_bid", "agents[0].bid"),
    "bid is true": ({"bid": True}, "invalid_bid", "agents[0].bid"),
    "bid is null": ({"bid": None}, "invalid_bid", "agents[0].bid"),
    "bid is a list": ({"bid": [1]}, "invalid_bid", "agents[0].bid"),
    "budget is text": ({"budget": "all"}, "invalid_bid", "agents[0].budget"),
    "prompt is blank": ({"prompt": ""}, "invalid_spec", "agents[0].prompt"),
    "system prompt is a number": ({"system_prompt": 1}, "invalid_spec", "agents[0].system_prompt"),
}


@pytest.mark.parametrize("case", WRONG_AGENTS)
def test_run_refuses_a_wrong_agent(cli: Cli, write_spec: WriteSpec, case: str) -> None:
    fields, code, fragment = WRONG_AGENTS[case]
    agents = [{"id": i, "name": i, "offer": "an offer", "bid": 1} for i in ("alpha", "beta")]
    agents[0] = {name: value for name, value in {**agents[0], **fields}.items() if value is not ...}
    found, message = cli("run", write_spec(agents=agents)).refusal
    assert (found, fragment in message) == (code, True), message


WRONG_OPTIONS: dict[str, tuple[list[str], str, str]] = {
    "unknown rule": (["--rule", "quadratic"], "invalid_spec", "'quadratic'"),
    "empty rule": (["--rule", ""], "invalid_spec", "''"),
    "race with log_linear": (["--rule", "log_linear", "--sampler", "race"], "unsafe_combination", "critical bid"),
    "seed of 257 bits": (["--seed", str(2**256)], "invalid_spec", "spec.seed"),
    "negative seed": (["--seed=-1"], "invalid_spec", "spec.seed"),
    "endless seed": (["--seed", "9" * 10_000], "invalid_input", "--seed"),
    "seed is a word": (["--seed", "seven"], "invalid_input", "whole number"),
    "empty seed": (["--seed", ""], "invalid_input", "--seed is ''"),
    "temperature is nan": (["--temperature", "nan"], "invalid_spec", "spec.temperature"),
    "temperature is infinite": (["--temperature", "inf"], "invalid_spec", "spec.temperature"),
    "top_p of 0": (["--top-p", "0"], "invalid_spec", "spec.top_p"),
    "negative top_k": (["--top-k=-1"], "invalid_spec", "spec.top_k"),
    "no tokens": (["--max-tokens", "0"], "invalid_spec", "spec.max_tokens"),
    "no sentences": (["--max-sentences", "0"], "invalid_spec", "spec.max_sentences"),
    "negative weight": (["--reference-weight=-1"], "invalid_bid", "spec.reference_weight"),
    "bid of nobody": (["--bid", "gamma=1"], "invalid_spec", "'gamma'; the agents are alpha, beta"),
    "bid of an escape": (["--bid", "\x1b[31m=1"], "invalid_spec", r"\x1b"),
    "bid in no known encoding": (["--bid", "\udcff=1"], "invalid_spec", r"\udcff"),
    "bid without an agent": (["--bid", "=1"], "invalid_input", "AGENT=AMOUNT"),
    "bid without an amount": (["--bid", "alpha"], "invalid_input", "AGENT=AMOUNT"),
    "empty bid": (["--bid", ""], "invalid_input", "AGENT=AMOUNT"),
    "bid of nothing": (["--bid", "alpha="], "invalid_bid", "agents[0].bid"),
    "bid is a word": (["--bid", "alpha=much"], "invalid_bid", "agents[0].bid"),
    "bid is nan": (["--bid", "alpha=nan"], "invalid_bid", "agents[0].bid"),
    "bid finer than a micro": (["--bid", "alpha=0.0000001"], "invalid_bid", "finer than one micro"),
    "nobody bids": (["--bid", "alpha=0", "--bid", "beta=0"], "invalid_spec", "nothing has weight"),
}


@pytest.mark.parametrize("case", WRONG_OPTIONS)
def test_run_refuses_a_wrong_option(cli: Cli, hawaii: Path, case: str) -> None:
    options, code, fragment = WRONG_OPTIONS[case]
    found, message = cli("run", hawaii, *options).refusal
    assert (found, fragment in message) == (code, True), message


@pytest.mark.parametrize(
    "options", [["--temperature", "warm"], ["--max-tokens", "1.5"], ["--format", "xml"], ["--no-such"], ["x", "y"]]
)
def test_run_leaves_what_is_no_option_to_typer(cli: Cli, hawaii: Path, options: list[str]) -> None:
    assert cli("run", hawaii, *options).usage_error


def test_run_refuses_a_place_without_a_file(cli: Cli, tmp_path: Path) -> None:
    for place, fragment in (
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "Is a directory"),
        (tmp_path / "x" / ("y" * 300), "cannot be read"),
        ("", "cannot be read"),
        ("/dev/zero", "more than"),
    ):
        code, message = cli("run", place).refusal
        assert (code, fragment in message) == ("invalid_spec", True), message


def test_spec_file_is_refused_in_time_however_it_is_built(write_spec: WriteSpec) -> None:
    """A bomb's value would take hours to print; what is refused must not be expanded first."""
    from tokenauction.clients.cli.spec_file import load_spec

    started = time.monotonic()
    with pytest.raises(InvalidSpec, match="alias"):
        load_spec(write_spec(BOMB))
    assert time.monotonic() - started < 5


def test_spec_file_may_be_json(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    assert load_spec(write_spec()).agents[1].bid_micros == 1000


def test_spec_file_may_be_a_pipe(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    reader, writer = os.pipe()
    with os.fdopen(reader), os.fdopen(writer, "wb") as file:
        file.write(write_spec().read_bytes())
        file.close()
        assert load_spec(Path(f"/dev/fd/{reader}")).query == "Vacations in Hawaii"


def test_spec_file_reads_amounts_as_they_are_written(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    lines = ["0.1", '"0.1"', "1e-1", "1.0e-1", "+0.1", "0.10"]
    agents = "".join(f"- {{name: a{i}, offer: x, bid: {line}}}\n" for i, line in enumerate(lines))
    spec = load_spec(write_spec("query: x\nagents:\n" + agents))
    assert {agent.bid_micros for agent in spec.agents} == {100_000}


def test_spec_file_takes_fields_and_bids_from_options(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    path = write_spec()
    spec = load_spec(path, {"rule": "log_linear", "seed": 2**256 - 1}, {"beta": "0.5"})
    assert (spec.rule, spec.seed, spec.agents[1].bid_micros) == ("log_linear", 2**256 - 1, 500_000)
    assert load_spec(path).agents[1].bid_micros == 1000


def test_spec_file_finds_an_agent_without_an_id_by_its_name(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    agents = [{"name": " Alpha Airlines ", "offer": "flights", "bid": 1}]
    assert load_spec(write_spec(agents=agents), bids={"Alpha Airlines": "2"}).agents[0].bid_micros == 2_000_000


def test_spec_file_with_options_but_without_agents_says_so(write_spec: WriteSpec) -> None:
    from tokenauction.clients.cli.spec_file import load_spec

    for agents in (None, 5, [5], "alpha", []):
        with pytest.raises(InvalidSpec, match="the agents are none"):
            load_spec(write_spec(json.dumps({"query": "x", "agents": agents})), bids={"alpha": "1"})

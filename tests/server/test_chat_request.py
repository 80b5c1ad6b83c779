"""What a chat front end asks for becomes an auction, or a refusal that names the field."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tests.server.toy_server import spec_of

from tokenauction.engine.errors import InvalidSpec
from tokenauction.server.chat_request import ChatRequest, Wish, query_of, wish_of
from tokenauction.server.presets import Presets
from tokenauction.server.refusal import Refused

PRESETS = Presets.of({"hawaii": spec_of("0.002", "0.001", max_tokens=20, seed=None, temperature=0.7)})


def wish(model: str = "auction/hawaii", content: Any = "Where to?", **fields: Any) -> Wish:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": content}]
    return wish_of(ChatRequest.model_validate({"model": model, "messages": messages, **fields}), PRESETS)


def test_query_is_the_last_user_message_on_one_line() -> None:
    turns = [("user", "first"), ("assistant", "answer"), ("user", "  Vacations\n in\tHawaii "), ("assistant", "mm")]
    messages = [{"role": role, "content": content} for role, content in turns]
    request = ChatRequest.model_validate({"model": "auction/hawaii", "messages": messages})
    assert wish_of(request, PRESETS).spec["query"] == "Vacations in Hawaii"


def test_parts_of_text_are_one_query() -> None:
    assert wish(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]).spec["query"] == "a b"


@pytest.mark.parametrize("model", ["auction/hawaii", "hawaii"])
def test_model_names_a_preset(model: str) -> None:
    asked = wish(model)
    assert not asked.is_own
    assert asked.spec == {**PRESETS.by_name["hawaii"].spec, "query": "Where to?"}


def test_auction_field_names_a_preset_whatever_the_model() -> None:
    assert wish("gpt-9", auction="hawaii").spec["agents"] == PRESETS.by_name["hawaii"].spec["agents"]


def test_auction_field_may_be_a_whole_auction() -> None:
    own = {name: value for name, value in spec_of("0.5").items() if name != "query"}
    asked = wish("gpt-9", auction=own)
    assert asked.is_own and asked.spec == {**own, "query": "Where to?"}


def test_shaping_that_is_asked_for_replaces_the_presets() -> None:
    spec = wish(temperature=0, top_p=0.5, max_completion_tokens=7, seed=3).spec
    assert (spec["temperature"], spec["top_p"], spec["max_tokens"], spec["seed"]) == (0.001, 0.5, 7, 3)
    assert wish(top_p=1.0).spec["top_p"] is None  # all of the distribution


def test_a_text_is_never_longer_than_the_preset_allows() -> None:
    assert wish(max_tokens=10_000).spec["max_tokens"] == 20


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"model": "auction/nowhere"}, "model_not_found"),
        ({"auction": "nowhere"}, "model_not_found"),
        ({"auction": {"query": "mine", "agents": []}}, "invalid_field"),
        ({"content": "  \n "}, "invalid_field"),
        ({"content": None}, "invalid_field"),
        ({"content": []}, "invalid_field"),
        ({"content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}, "invalid_field"),
        ({"content": [{"type": "text", "text": 1}]}, "invalid_field"),
        ({"n": 2}, "unsupported"),
        ({"n": True}, None),
        ({"stop": ["."]}, "unsupported"),
        ({"stop": []}, None),
        ({"tools": [{"type": "function"}]}, "unsupported"),
        ({"response_format": {"type": "json_object"}}, "unsupported"),
        ({"response_format": {"type": "text"}}, None),
        ({"logprobs": True}, "unsupported"),
        ({"presence_penalty": 0.5}, "unsupported"),
        ({"user": "u", "metadata": {}, "something_new": [1]}, None),
    ],
)
def test_what_cannot_be_had_is_refused_and_the_rest_ignored(fields: dict[str, Any], code: str | None) -> None:
    if code is None:
        assert wish(**fields).spec["query"] == "Where to?"
        return
    with pytest.raises(Refused) as caught:
        wish(**fields)
    assert caught.value.code == code


def test_conversation_without_a_user_has_no_query() -> None:
    with pytest.raises(Refused):
        query_of(ChatRequest.model_validate({"model": "m", "messages": [{"role": "system", "content": "x"}]}).messages)


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": [{"role": "user", "content": 5}]},
        {"messages": [{"content": "no role"}]},
        {"model": ""},
        {"model": 4},
        {"stream": "yes"},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"temperature": "0.5"},
        {"max_tokens": 0},
        {"max_tokens": 1.5},
        {"auction": 7},
        {"seed": "x"},
    ],
)
def test_field_of_the_wrong_kind_is_refused(fields: dict[str, Any]) -> None:
    valid = {"model": "auction/hawaii", "messages": [{"role": "user", "content": "x"}]}
    with pytest.raises(ValidationError):
        ChatRequest.model_validate({**valid, **fields})


@given(st.text())
def test_whatever_text_is_asked_gives_one_line_or_a_refusal(text: str) -> None:
    try:
        query = wish(content=text).spec["query"]
    except Refused as refused:
        assert not text.split() and refused.code == "invalid_field"
    else:
        assert query.split() == text.split() and "\n" not in query


def test_preset_that_cannot_run_is_refused_when_it_is_made() -> None:
    with pytest.raises(InvalidSpec):
        Presets.of({"bad": {**spec_of("0.002"), "rule": "majority"}})

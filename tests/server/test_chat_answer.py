"""Events become chunks that say the text once, and the bill at the end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.server.chat_answer import AuctionBroke, ChatAnswer

BY = {"sponsored": True, "by": [{"id": "a", "name": "Alpha"}, {"id": "b", "name": "Beta"}]}


def created() -> dict[str, Any]:
    return {"type": "auction.created", "disclosure": BY}


def token(text: str) -> dict[str, Any]:
    return {"type": "auction.token", "text": text}


def settled(text: str, finish_reason: str = "end") -> dict[str, Any]:
    agents = [{"id": "a", "total_micros": 3, "total": "0.000003"}, {"id": "b", "total_micros": 0, "total": "0"}]
    owed = {"agents": agents, "total_micros": 3, "total": "0.000003", "currency": "USD"}
    end = {"finish_reason": finish_reason, "posted": True, "num_tokens": 5, "text": text, "disclosure": BY}
    return {"type": "auction.settled", **owed, **end, "receipt_head": "h", "seed": "5"}


def chunks_of(answer: ChatAnswer, *events: dict[str, Any]) -> list[dict[str, Any]]:
    return [chunk for event in events for chunk in answer.chunks(event)]


def text_of(chunks: list[dict[str, Any]]) -> str:
    return "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])


def test_stream_says_role_sponsors_text_and_bill() -> None:
    chunks = chunks_of(
        ChatAnswer("auc_1", "m", 9), created(), token("Hi"), token(""), token(" you"), settled("Hi you.")
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, *({"content": part} for part in ("Hi", " you", ".")), {}]
    assert chunks[0]["auction"] == {"id": "auc_1", "disclosure": BY}
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-auc_1"} and {chunk["created"] for chunk in chunks} == {9}
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None] * 4 + ["stop"]
    bill = chunks[-1]["auction"]
    assert bill["bill"][0] == {"agent_id": "a", "name": "Alpha", "total_micros": 3, "total": "0.000003"}
    assert (bill["total_micros"], bill["disclosure"], bill["receipt"]) == (3, BY, "/v1/auctions/auc_1/receipt")
    assert "seed" not in bill


def test_usage_is_a_chunk_of_its_own_where_it_is_asked_for() -> None:
    chunks = chunks_of(ChatAnswer("auc_1", "m", 9, has_usage=True), created(), settled("Hi"))
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["completion_tokens"] == 5
    assert chunks[-1]["auction"] == chunks[-2]["auction"]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("end", "stop"), ("sentences", "stop"), ("max_tokens", "length"), ("budget_spent", "length"), ("no_bid", "stop")],
)
def test_finish_reason_is_one_that_openai_has(reason: str, finish: str) -> None:
    answer = ChatAnswer("auc_1", "m", 9)
    assert chunks_of(answer, created(), settled("x", reason))[-1]["choices"][0]["finish_reason"] == finish
    assert answer.whole()["choices"][0]["finish_reason"] == finish
    assert answer.whole()["auction"]["finish_reason"] == reason


def test_auction_that_fails_is_an_error_with_its_code() -> None:
    failed = {"type": "error", "code": "no_common_support", "message": "why"}
    with pytest.raises(AuctionBroke, match="why") as caught:
        chunks_of(ChatAnswer("auc_1", "m", 9), created(), failed, settled("", "error"))
    assert caught.value.code == "no_common_support"


@given(st.lists(st.text(), max_size=8), st.text())
def test_chunks_and_the_whole_answer_are_the_settled_text(parts: list[str], rest: str) -> None:
    whole = "".join(parts) + rest
    answer = ChatAnswer("auc_1", "m", 9)
    chunks = chunks_of(answer, created(), *map(token, parts), {"type": "stream.reset"}, settled(whole))
    assert text_of(chunks) == whole == answer.whole()["choices"][0]["message"]["content"]

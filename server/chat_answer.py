"""An auction's events as a chat completion, in OpenAI's words: chunks as they come, or one answer at the end. Pure.

`auction` beside OpenAI's own fields says what a completion cannot: who sponsors the text (first and last chunk), and in
the last one the bill and where the receipt is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

FINISH: Mapping[str, str] = MappingProxyType({"max_tokens": "length", "budget_spent": "length"})  # others: "stop"


class AuctionBroke(Exception):
    """The text failed; nobody pays. `code` is the auction's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(eq=False)
class ChatAnswer:
    """One completion in the making."""

    auction_id: str
    model: str  # as it was asked for
    created: int  # seconds since 1970
    has_usage: bool = False  # the stream ends with a chunk of it
    text: str = ""
    names: dict[str, str] = field(default_factory=dict)  # of the agents
    failure: tuple[str, str] = ("error", "the auction failed")
    end: Mapping[str, Any] | None = None  # its `auction.settled`

    def chunks(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """What a stream says of one event, which the auction's owner sees; raises AuctionBroke."""
        kind = event["type"]
        if kind == "auction.created":
            self._sponsors(event)
            about = {"id": self.auction_id, "disclosure": event.get("disclosure")}
            yield self._chunk({"role": "assistant", "content": ""}, None, auction=about)
        elif kind == "auction.token" and event["text"]:
            self.text += event["text"]
            yield self._chunk({"content": event["text"]}, None)
        elif kind == "error":
            self.failure = (event["code"], event.get("message", "the auction failed"))
        elif kind == "auction.settled":
            yield from self._last(event)

    def whole(self) -> dict[str, Any]:
        """The answer that is not streamed, once the auction has settled."""
        assert self.end is not None, "it has settled"
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.text, "refusal": None},
            "logprobs": None,
            "finish_reason": FINISH.get(self.end["finish_reason"], "stop"),
        }
        head = {**self._head("chat.completion"), "choices": [choice]}
        return {**head, "usage": self._usage(self.end), "auction": self._bill(self.end)}

    def _last(self, settled: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        if settled["finish_reason"] == "error":
            code, message = self.failure
            raise AuctionBroke(code, f"auction {self.auction_id}: {message}")
        self._sponsors(settled)
        rest = settled["text"][len(self.text) :]
        if rest:
            self.text = settled["text"]
            yield self._chunk({"content": rest}, None)
        self.end = settled
        bill, finish = self._bill(settled), FINISH.get(settled["finish_reason"], "stop")
        if not self.has_usage:
            yield self._chunk({}, finish, auction=bill)
            return
        yield self._chunk({}, finish, usage=None, auction=bill)
        last = {**self._head("chat.completion.chunk"), "choices": []}
        yield {**last, "usage": self._usage(settled), "auction": bill}

    def _sponsors(self, event: Mapping[str, Any]) -> None:
        self.names |= {by["id"]: by["name"] for by in event.get("disclosure", {}).get("by", ())}

    def _bill(self, settled: Mapping[str, Any]) -> dict[str, Any]:
        owed = ("total_micros", "total")
        bill = [
            {"agent_id": agent["id"], "name": self.names.get(agent["id"]), **{name: agent[name] for name in owed}}
            for agent in settled["agents"]
            if agent["id"] in self.names
        ]
        seen = ("disclosure", "finish_reason", "posted", "num_tokens", "currency", "total_micros", "total")
        about = {name: settled[name] for name in seen if name in settled}
        where = {"receipt_head": settled["receipt_head"], "receipt": f"/v1/auctions/{self.auction_id}/receipt"}
        return {"id": self.auction_id, **about, "bill": bill, **where}

    def _usage(self, settled: Mapping[str, Any]) -> dict[str, int]:
        """Prompts are the advertisers' own, and count for nothing here."""
        return {"prompt_tokens": 0, "completion_tokens": settled["num_tokens"], "total_tokens": settled["num_tokens"]}

    def _chunk(self, delta: Mapping[str, Any], finish_reason: str | None, **more: Any) -> dict[str, Any]:
        choice = {"index": 0, "delta": dict(delta), "logprobs": None, "finish_reason": finish_reason}
        return {**self._head("chat.completion.chunk"), "choices": [choice], **more}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": f"chatcmpl-{self.auction_id}", "object": kind, "created": self.created, "model": self.model}

"""What a chat front end may ask for, in OpenAI's words, and the auction that it means. Pure.

The query is the last user message, on one line. Who bids and by which rule comes from a preset, named by `model`
(auction/NAME) or by `auction`; or, for who may begin any auction, from `auction` as an object: a spec with no query.
What would change the text and cannot be had (stop, tools, n > 1 …) is refused; fields that nobody knows are ignored, as
front ends send all kinds of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from tokenauction.server.client_messages import MAX_ID
from tokenauction.server.presets import Presets
from tokenauction.server.refusal import Refused

MODEL_PREFIX = "auction/"
MAX_MESSAGES = 1_000
COLDEST = 0.001  # the engine's lowest temperature, which stands in for 0

NOT_TO_BE_HAD: Mapping[str, tuple[Any, ...]] = MappingProxyType(  # fields with the values that change nothing
    {
        "n": (None, 1),
        "stop": (None, "", []),
        "tools": (None, []),
        "functions": (None, []),
        "response_format": (None, {"type": "text"}),
        "logprobs": (None, False),
        "presence_penalty": (None, 0),
        "frequency_penalty": (None, 0),
        "logit_bias": (None, {}),
        "modalities": (None, ["text"]),
        "audio": (None,),
    }
)


class ChatMessage(BaseModel):
    """One turn of the conversation; its text, or parts of type "text"."""

    model_config = ConfigDict(strict=True)

    role: Annotated[str, Field(min_length=1, max_length=32)]
    content: str | list[dict[str, Any]] | None = None


class StreamOptions(BaseModel):
    """What a stream should have besides the text."""

    model_config = ConfigDict(strict=True)

    include_usage: bool | None = None


class ChatRequest(BaseModel):
    """A chat completion to be written by an auction."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=MAX_ID)]
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)]
    auction: Annotated[str, Field(max_length=MAX_ID)] | dict[str, Any] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Wish:
    """A chat request, understood."""

    spec: Mapping[str, Any]  # of the auction to begin
    is_own: bool  # the spec was written by whoever asks: no preset's


def wish_of(request: ChatRequest, presets: Presets) -> Wish:
    """The auction that is asked for; raises Refused (model_not_found, invalid_field, unsupported)."""
    for name, harmless in NOT_TO_BE_HAD.items():
        if (value := (request.model_extra or {}).get(name)) not in harmless:
            raise Refused("unsupported", f"{name} is {value!r:.60}, which an auction cannot do; leave it out")
    base, is_own = _base(request, presets)
    spec: dict[str, Any] = {**base, "query": query_of(request.messages)}
    if request.temperature is not None:
        spec["temperature"] = max(COLDEST, request.temperature)
    if request.top_p is not None:
        spec["top_p"] = None if request.top_p == 1 else request.top_p
    if request.seed is not None:
        spec["seed"] = request.seed
    most = [count for count in (request.max_tokens, request.max_completion_tokens) if count is not None]
    if most:  # never more than those who pay have agreed to
        spec["max_tokens"] = min([*most, spec["max_tokens"]] if isinstance(spec.get("max_tokens"), int) else most)
    return Wish(spec, is_own)


def _base(request: ChatRequest, presets: Presets) -> tuple[Mapping[str, Any], bool]:
    if isinstance(request.auction, dict):
        if "query" in request.auction:
            raise Refused("invalid_field", "auction.query is the last user message; leave it out")
        return request.auction, True
    name = request.model.removeprefix(MODEL_PREFIX) if request.auction is None else request.auction
    preset = presets.find(name)
    if preset is None:
        known = ", ".join(MODEL_PREFIX + known for known in presets.by_name) or "none"
        raise Refused("model_not_found", f"there is no auction {name!r:.140}; the models are {known}")
    return preset.spec, False


def query_of(messages: list[ChatMessage]) -> str:
    """The last user message as one line; Refused (invalid_field) where it has no text, or more than text."""
    last = next((message for message in reversed(messages) if message.role == "user"), None)
    if last is None:
        raise Refused("invalid_field", 'messages has no message whose role is "user": the last one is the query')
    parts = last.content if isinstance(last.content, list) else [{"type": "text", "text": last.content or ""}]
    for part in parts:
        if part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise Refused("invalid_field", 'the query is text: its parts are {"type": "text", "text": …}')
    query = " ".join(" ".join(part["text"] for part in parts).split())
    if not query:
        raise Refused("invalid_field", "the last user message is empty: there is no query")
    return query

"""A brief becomes a prompt: who advertises what, for which query, and whom this row writes for.

The shared part (query, every advertiser) comes first and the row's own part last, so that rows of one auction share
their prefix and every row can spell every brand: an agent whose prompt knows only its own brand spells hybrids when two
mix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tokenauction.models.base import Tokenizer

NOBODY: Final = "nobody"  # the reference writes a neutral sentence that names no advertiser
EVERYONE: Final = "everyone"  # the context-aware proposal names all of them

CHAT_SYSTEM = (
    "You write one short, fluent advertising sentence in answer to a query. The sentence is written together with "
    "other writers: continue it smoothly from wherever it stands, and end it once it is complete."
)


@dataclass(frozen=True)
class Advertiser:
    """What a prompt says of one advertiser: the brand's name and its offer, a noun phrase."""

    name: str
    offer: str


# Whom a row writes for: an advertiser's place in the list, or NOBODY, or EVERYONE.
WritesFor = int | Literal["nobody", "everyone"]


def shared_part(query: str, advertisers: Sequence[Advertiser]) -> str:
    """The prefix that every row of one auction shares, in the shipped model's format.

    Advertisers are numbered: a small model binds a brand to its own offer far sooner by a number than by the name.
    """
    listed = [f"{number} {_brief(advertiser)}" for number, advertiser in enumerate(advertisers, start=1)]
    return "\n".join([f"Query: {query}", "Advertisers:", *listed])


def own_part(advertisers: Sequence[Advertiser], writes_for: WritesFor) -> str:
    """The last line of a prompt, which the text follows with a space."""
    if isinstance(writes_for, int):
        return f"\nWrite for {writes_for + 1} {_brief(advertisers[writes_for])}."
    return f"\nWrite for {writes_for}."


def _brief(advertiser: Advertiser) -> str:
    return f"{advertiser.name}: {advertiser.offer}" if advertiser.offer else advertiser.name


def chat_user_message(query: str, advertisers: Sequence[Advertiser], writes_for: WritesFor) -> str:
    """The same brief in words, for instruction-tuned models with a chat template."""
    if isinstance(writes_for, int):
        name = advertisers[writes_for].name
        task = f"You write for {name}: make sure that {name} is mentioned."
    else:
        task = {
            NOBODY: "Name no advertiser: answer the query in a neutral voice.",
            EVERYONE: "Mention every advertiser.",
        }[writes_for]
    return f"{shared_part(query, advertisers)}\n\nWrite one advertising sentence that answers the query. {task}"


def prompt_ids(
    tokenizer: Tokenizer,
    query: str,
    advertisers: Sequence[Advertiser],
    writes_for: WritesFor,
    *,
    system_prompt: str | None = None,
    prompt: str | None = None,
) -> list[int]:
    """Token ids of one row's prompt.

    `prompt` is taken verbatim (as the user's message where the tokenizer has a chat template); otherwise the brief is
    written in the chat form where there is a template and in the shipped model's form where there is none.
    `system_prompt` replaces the default system message; without a chat template it stands in front of the prompt.
    """
    if tokenizer.has_chat_template:
        user = prompt if prompt is not None else chat_user_message(query, advertisers, writes_for)
        return tokenizer.encode_chat(system_prompt if system_prompt is not None else CHAT_SYSTEM, user)
    text = prompt if prompt is not None else shared_part(query, advertisers) + own_part(advertisers, writes_for)
    return tokenizer.encode_prompt(text if system_prompt is None else f"{system_prompt}\n{text}")

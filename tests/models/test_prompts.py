"""Briefs become prompts: the shared part first, the row's own part last."""

from __future__ import annotations

from typing import Any

import pytest

from tokenauction.models.prompts import (
    EVERYONE,
    NOBODY,
    Advertiser,
    WritesFor,
    own_part,
    prompt_ids,
    shared_part,
)

TWO = (Advertiser("Alpha Airlines", "flights to Hawaii"), Advertiser("Beta Resort", "a beach resort"))


class Recorder:
    """A tokenizer that gives back what it was asked to encode, as code points."""

    def __init__(self, has_chat_template: bool) -> None:
        self.has_chat_template = has_chat_template

    def encode_prompt(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_chat(self, system: str, user: str) -> list[int]:
        return [ord(c) for c in f"<{system}>{user}"]


def prompt(writes_for: WritesFor, *, chat: bool = False, **options: Any) -> str:
    recorder: Any = Recorder(chat)
    return "".join(map(chr, prompt_ids(recorder, "Vacations in Hawaii", TWO, writes_for, **options)))


def test_prompt_of_the_shipped_model_reads_exactly_so() -> None:
    assert prompt(1) == (
        "Query: Vacations in Hawaii\n"
        "Advertisers:\n"
        "1 Alpha Airlines: flights to Hawaii\n"
        "2 Beta Resort: a beach resort\n"
        "Write for 2 Beta Resort: a beach resort."
    )
    assert prompt(NOBODY).endswith("\nWrite for nobody.")


@pytest.mark.parametrize("writes_for", [0, 1, NOBODY, EVERYONE])
def test_prompts_of_one_auction_share_everything_but_their_last_line(writes_for: WritesFor) -> None:
    shared = shared_part("Vacations in Hawaii", TWO)
    assert prompt(writes_for) == shared + own_part(TWO, writes_for)
    assert own_part(TWO, writes_for).count("\n") == 1


def test_prompt_names_an_advertiser_without_an_offer_alone() -> None:
    assert shared_part("q", [Advertiser("Gamma", "")]).endswith("\n1 Gamma")


def test_prompt_takes_a_verbatim_prompt_and_a_system_prompt() -> None:
    assert prompt(1, prompt="Write!") == "Write!"
    assert prompt(1, prompt="Write!", system_prompt="Be brief.") == "Be brief.\nWrite!"
    assert prompt(1, prompt="Write!", system_prompt="Be brief.", chat=True) == "<Be brief.>Write!"


@pytest.mark.parametrize(
    ("writes_for", "says"),
    [(1, "You write for Beta Resort"), (NOBODY, "no advertiser"), (EVERYONE, "every advertiser")],
)
def test_chat_prompt_says_for_whom_to_write_and_who_else_advertises(writes_for: WritesFor, says: str) -> None:
    text = prompt(writes_for, chat=True)
    assert says in text
    assert all(a.name in text and a.offer in text for a in TWO)

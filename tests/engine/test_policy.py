"""Banned words are found in the text, however it is spelled in tokens; and banned sequences of ids."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.policy import Policy

TEXTS = (
    "h",
    "a",
    "w",
    "i",
    " ",
    " h",
    "Haw",
    "aii",
    " Hawaii",
    " hawaiian",
    "xhawaii",
    ".",
    " Ha",
    "waii",
    " art",
    "p",
    "art",
)
IDS = {text: token for token, text in enumerate(TEXTS)}


def spelled(*texts: str) -> list[int]:
    return [IDS[text] for text in texts]


def forbidden(policy: Policy, *texts: str) -> set[str]:
    return {TEXTS[token] for token in policy.forbidden(spelled(*texts))}


@pytest.mark.parametrize(
    ("generated", "banned"),
    [
        ((), {" Hawaii", " hawaiian"}),
        (("Haw",), {"aii", " Hawaii", " hawaiian"}),
        (("Haw", "a", "i"), {"i", " Hawaii", " hawaiian"}),
        ((" ", "Haw"), {"aii", " Hawaii", " hawaiian"}),
        ((" Ha",), {"waii", " Hawaii", " hawaiian"}),
        (("p", "Haw"), {" Hawaii", " hawaiian"}),  # "pHawaii" is another word
        (("h", "a", "w"), {"aii", " Hawaii", " hawaiian"}),
    ],
)
def test_policy_forbids_what_would_complete_a_word_in_any_spelling(
    generated: tuple[str, ...], banned: set[str]
) -> None:
    assert forbidden(Policy(("Hawaii",), TEXTS), *generated) == banned


def test_policy_bans_words_that_start_alike_but_not_words_that_end_alike() -> None:
    policy = Policy(("art",), TEXTS)
    assert forbidden(policy, "p") == {" art"}
    assert forbidden(policy, ".") == {" art", "art"}


@given(st.lists(st.integers(0, len(TEXTS) - 1), max_size=30))
def test_policy_lets_no_text_hold_a_banned_word(choices: list[int]) -> None:
    policy = Policy(("hawaii", "art"), TEXTS)
    generated: list[int] = []
    for token in choices:
        if token not in policy.forbidden(generated):
            generated.append(token)
    text = "".join(TEXTS[token] for token in generated).casefold()
    for word in ("hawaii", "art"):
        places = [i for i in range(len(text)) if text.startswith(word, i)]
        assert all(i > 0 and text[i - 1].isalnum() for i in places)


@pytest.mark.parametrize(
    ("generated", "banned"),
    [([], {5}), ([1], {5}), ([1, 2], {3, 5}), ([9, 1, 2], {3, 5}), ([2, 1], {5}), ([1, 2, 3], {5})],
)
def test_policy_forbids_the_last_id_of_a_banned_sequence(generated: list[int], banned: set[int]) -> None:
    assert Policy(sequences=((1, 2, 3), (5,))).forbidden(generated) == banned


def test_policy_masks_exactly_what_it_forbids() -> None:
    mask = Policy(sequences=((5,), (99,))).allowed([], vocab_size=8)
    assert mask.tolist() == [True] * 5 + [False] + [True] * 2


def test_policy_without_bans_says_so() -> None:
    assert not Policy().has_bans
    assert Policy().forbidden([1, 2]) == frozenset()


def test_policy_refuses_what_cannot_be_looked_for() -> None:
    with pytest.raises(InvalidSpec):
        Policy(("word",))
    with pytest.raises(InvalidSpec):
        Policy((" ",), TEXTS)
    with pytest.raises(InvalidSpec):
        Policy(sequences=((),))
    with pytest.raises(InvalidSpec):
        Policy(sequences=((1, -2),))

"""The live view: on a terminal it is redrawn with every token, and it shows the same numbers as the events."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from rich.console import Console

from tokenauction.clients.cli.view import COLOURS, RichView
from tokenauction.engine.events import Event


def agent_fields(name: str, influence: float, payment: float, total: int) -> dict[str, Any]:
    return {
        "id": name,
        "influence": influence,
        "bid_micros": 2000,
        "exact_payment_micros": payment,
        "total_micros": total,
    }


def event(kind: str, **fields: Any) -> Event:
    return Event(kind, "auc", 0, "evt", 0.0, fields)


def created(*rows: str) -> Event:
    spec = {
        "query": "Vacations in Hawaii",
        "rule": "linear",
        "sampler": "coupled",
        "pricing": "critical_bid",
        "agents": [{"id": "alpha", "name": "Alpha Airlines"}, {"id": "beta", "name": "Beta Resort"}],
    }
    return event("auction.created", spec=spec, rows=list(rows), guarantee={"summary": "a promise"})


def token(text: str, *influences: float) -> Event:
    agents = [agent_fields(f"agent{i}", share, 12.5, 40 + i) for i, share in enumerate(influences)]
    return event("auction.token", text=text, agents=agents)


def settled(text: str, *totals: int, reason: str = "end") -> Event:
    agents = [{"total_micros": total} for total in totals]
    return event(
        "auction.settled", text=text, agents=agents, currency="USD", total_micros=sum(totals), num_tokens=2,
        finish_reason=reason, voids=[], receipt_head="0123456789abcdef" * 4,
    )  # fmt: skip


@pytest.fixture
def show() -> Callable[..., str]:
    """`show(events, is_terminal=True)`: what the view writes."""

    def run(events: Sequence[Event], is_terminal: bool = False) -> str:
        console = Console(
            file=io.StringIO(), width=100, force_terminal=is_terminal, color_system="standard" if is_terminal else None
        )
        view = RichView(console)
        for one in events:
            view.show(one)
        view.close()
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    return run


Show = Callable[..., str]

STORY = [
    created("alpha", "beta"),
    token("Fly", 0.9, 0.1),
    token(" there", 0.5, 0.5),
    token(".", 0.1, 0.9),
    settled("Fly there.", 1234, 0),
]


def test_view_prints_once_without_a_terminal(show: Show) -> None:
    shown = show(STORY)
    assert shown.count("Fly there.") == 1
    assert "\x1b" not in shown
    for text in ("Vacations in Hawaii", "Bill", "0.001234", "0.000000", "a promise", "0123456789abcdef…", "by end"):
        assert text in shown


def test_view_redraws_with_every_token_on_a_terminal(show: Show) -> None:
    shown = show(STORY, is_terminal=True)
    assert shown.count("Vacations in Hawaii") >= len(STORY)
    assert "running total" in shown and "0.000041" in shown
    assert "\x1b[" in shown


@pytest.mark.parametrize(("influences", "code"), [((0.9, 0.1), "1;36"), ((0.1, 0.9), "1;35")])
def test_view_tints_a_token_by_who_wrote_it(show: Show, influences: tuple[float, float], code: str) -> None:
    assert f"\x1b[{code}mword" in show([created("alpha", "beta"), token("word", *influences)], is_terminal=True)


def test_view_leaves_a_shared_token_and_the_reference_without_a_colour_of_theirs(show: Show) -> None:
    shared = show([created("alpha", "beta"), token("word", 0.5, 0.5)], is_terminal=True)
    reference = show([created("alpha", "reference"), token("word", 0.1, 0.9)], is_terminal=True)
    assert "\x1b[39mword" in shared
    assert "\x1b[1;90mword" in reference


def test_view_shows_what_only_the_settlement_says_of_the_text(show: Show) -> None:
    """Bytes that no character was made of are told at the end."""
    shown = show([created("alpha", "beta"), token("Fly", 1, 0), settled("Fly\ufffd", 1, 1)])
    assert "Fly\ufffd" in shown


def test_view_shows_control_characters_without_obeying_them(show: Show) -> None:
    shown = show([created("alpha", "beta"), token("\x1b[2J\x07x", 1, 0), settled("\x1b[2J\x07x", 1, 1)])
    assert "\ufffd[2J\ufffdx" in shown


def test_view_names_what_went_wrong(show: Show) -> None:
    failed = [created("alpha", "beta"), event("error", code="prompt_too_long", message="too\nlong \x1b[2J")]
    for end in ([], [settled("", 0, 0, reason="error")]):
        assert r"error (prompt_too_long): too long \x1b[2J" in show([*failed, *end])


def test_view_of_nothing_is_nothing(show: Show) -> None:
    assert show([]) == ""


def test_view_has_a_colour_for_every_row(show: Show) -> None:
    rows = [f"agent{i}" for i in range(3 * len(COLOURS))]
    shown = show([created(*rows), token("word", *[1 / len(rows)] * len(rows)), settled("word", *[1] * len(rows))])
    assert all(row in shown for row in rows)

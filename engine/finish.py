"""Does the last line of a receipt follow from the steps before it: text, totals, and why the auction ended there?

It must not know how a step was priced; `verification.py` has checked every step by the time it asks here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tokenauction.engine.auction import Auction
from tokenauction.engine.receipt import Line


class Fault(Exception):
    """A line that does not hold; carries its name and what is wrong. Only verification and its checks raise it."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(problem)
        self.where = where
        self.problem = problem


def check_settlement(auction: Auction, lines: Sequence[Line], voids: set[str]) -> None:
    """Raise Fault at the first field of the settlement that the steps, taken in by `auction`, do not give."""
    line = lines[-1]
    posts = line["finish_reason"] != "error"
    follows: dict[str, Any] = {
        "num_tokens": auction.num_tokens,
        "token_ids": auction.token_ids,
        "exact_micros": auction.exact_micros,
        "totals_micros": list(auction.totals_micros) if posts else [0] * len(auction.exact_micros),
        "posted": posts,
        "voids": sorted(voids),
    }
    for name, value in follows.items():
        if line[name] != value:
            raise Fault("settlement", f"{name}: {line[name]} is recorded, {value} follows")
    if not math.isfinite(sum(auction.exact_micros)):
        raise Fault("settlement", "the totals are not finite")
    if auction.spec.finalizer is None:  # else the text was chosen whole
        _check_text(auction, lines)
    ends = _ENDS.get(line["finish_reason"])
    if ends is None:
        raise Fault("settlement", f"finish_reason {line['finish_reason']!r} is not one of {', '.join(_ENDS)}")
    if not ends(auction):
        raise Fault("settlement", f"the auction did not end for the reason that is recorded: {line['finish_reason']}")


def _check_text(auction: Auction, lines: Sequence[Line]) -> None:
    """The text is that of the steps, and at most the characters that were held back behind it.

    A step holds back an incomplete character; a step without text may be one more byte of such a run.
    """
    text = lines[-1]["text"]
    num_silent = 0
    while num_silent < auction.num_tokens and not lines[-2 - num_silent]["text"]:
        num_silent += 1
    held_back = text.removeprefix(auction.text)
    if not text.startswith(auction.text) or len(held_back) > num_silent + 1:
        raise Fault("settlement", "its text is not that of the steps")


def _is_spent(auction: Auction) -> bool:
    """Whether a budget is used up, and no reference is there to go on writing."""
    totals = zip(auction.spec.agents, auction.totals_micros, strict=False)
    return not auction.spec.has_reference and any(agent.budget_micros == total for agent, total in totals)


_ENDS: dict[str, Callable[[Auction], bool]] = {
    "end": lambda auction: auction.num_tokens > 0,
    "max_tokens": lambda auction: auction.limit_reached == "max_tokens",
    "sentences": lambda auction: auction.limit_reached == "sentences",
    "budget_spent": _is_spent,
    "no_bid": lambda auction: not auction.spec.has_reference,
    "cancelled": lambda auction: True,
    "error": lambda auction: True,
}

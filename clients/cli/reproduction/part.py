"""The parts of a run of `reproduce`, by name."""

from __future__ import annotations

from enum import StrEnum


class Part(StrEnum):
    """A part of a run: one can be had without the others."""

    slopes = "slopes"
    toy = "toy"
    model = "model"
    token_auction = "token_auction"

"""A toy world so small that all its texts can be written down: what tests of laws and of optima weigh them by."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch

from tokenauction.models.toy import ToyWorld
from tokenauction.models.toy_laws import Chain, text_law

# Exact formulas in float64 on a few hundred terms.
EXACT = 1e-12

WORLD = ToyWorld(seed=3, symbols="xyz")
END = WORLD.end
NUM_STEPS = 4
REFERENCE, FIRST, SECOND = (WORLD.table(WORLD.tokenizer.encode_prompt(name)) for name in ("reference", "a", "b"))

Texts = dict[tuple[int, ...], float]


def law_of(chain: Chain) -> Texts:
    return text_law(chain.next_token, END, len(chain.log_probs))


def steps_of(text: Sequence[int]) -> list[tuple[int, int]]:
    """(previous token, token) of every step, where the end stands in front of the first."""
    return list(itertools.pairwise([END, *text]))


def table_sum(table: torch.Tensor, text: Sequence[int]) -> float:
    return math.fsum(table[state, token].item() for state, token in steps_of(text))


def all_texts() -> list[tuple[int, ...]]:
    symbols = range(END)
    ended = [(*text, END) for size in range(NUM_STEPS) for text in itertools.product(symbols, repeat=size)]
    return ended + list(itertools.product(symbols, repeat=NUM_STEPS))

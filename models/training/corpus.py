"""Training examples: one brief read once, and behind it several rows' texts as branches that do not see each other.

A branch is what one row of an auction would read: its own last prompt line, then a text. All branches of a brief share
the brief's tokens (attention is masked so that a branch sees the brief and itself), which makes three tokens in four
carry a loss and shows the model the same brief through every writer's eyes in one step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from tokenauction.models.prompts import EVERYONE, NOBODY, own_part, shared_part
from tokenauction.models.training.briefs import Brief, BriefWriter
from tokenauction.models.training.texts import Piece, TextWriter, Writer, choose_opening
from tokenauction.models.training.vocabulary import BEGIN, END, token_id

NUM_BRANCHES = 6

COINED = 0.4  # share of words that are made up on the spot: learning to copy instead of knowing by heart
TOLD_WEIGHT = 4.0  # of the token that says whose brand or offer follows, where the text so far tells
WORDING_WEIGHT = 0.5  # of wording, most of whose loss is the free choice among phrases


@dataclass
class Example:
    """One packed brief: parallel lists with one entry per token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)  # 0 the brief, 1.. a branch
    targets: list[int] = field(default_factory=list)  # id to predict here, -1 none
    weights: list[float] = field(default_factory=list)


class Corpus:
    """Examples as a pure function of (seed, number of the example)."""

    def __init__(self, tokenizer: Tokenizer, seed: int, *, held_out: bool = False) -> None:
        self.tokenizer = tokenizer
        self.seed = seed
        self.briefs = BriefWriter(held_out=held_out, coined=0.0 if held_out else COINED)
        self.begin_id = token_id(tokenizer, BEGIN)
        self.end_id = token_id(tokenizer, END)
        self._cache: dict[str, list[int]] = {}

    def encode(self, text: str) -> list[int]:
        ids = self._cache.get(text)
        if ids is None:
            ids = self.tokenizer.encode(text, add_special_tokens=False).ids
            if len(self._cache) < 50_000:
                self._cache[text] = ids
        return ids

    def example(self, number: int) -> Example:
        rng = random.Random(f"{self.seed}/{number}")
        brief = self.briefs.brief(rng, rng.choices((1, 2, 3, 4), (18, 57, 20, 5))[0])
        example = Example()
        prefix = [self.begin_id, *self.encode(shared_part(brief.query, brief.advertisers))]
        example.ids += prefix
        example.positions += range(len(prefix))
        example.branches += [0] * len(prefix)
        example.targets += [-1] * len(prefix)
        example.weights += [0.0] * len(prefix)
        for branch, (me, partners, own_share) in enumerate(self._rows(brief, rng), start=1):
            count = sum(len(self.encode(" " + a.name)) + len(self.encode(" " + a.offer)) for a in brief.advertisers[:2])
            opening = choose_opening(brief, rng, count)
            pieces = TextWriter(brief, me, partners, own_share, rng).write(opening)
            self._append(example, len(prefix), branch, own_part(brief.advertisers, me.writes_for), pieces)
        return example

    def _rows(self, brief: Brief, rng: random.Random) -> Iterator[tuple[Writer, tuple[Writer, ...], float]]:
        """Who learns from which mixture: each advertiser alone and among others, the reference, the context-aware."""
        agents = [Writer(i) for i in range(len(brief.advertisers))]
        reference, everyone = Writer(None, NOBODY), Writer(None, EVERYONE)
        rows: list[tuple[Writer, tuple[Writer, ...], float]] = []
        for me in rng.sample(agents, min(len(agents), 2)):
            others = tuple(a for a in agents if a is not me)
            with_reference = (*others, reference)
            rows.append((me, (), 1.0))
            rows.append((me, others or (reference,), 0.5))
            if len(agents) == 1 or rng.random() < 0.4:
                rows.append((me, with_reference, 0.35))
        rows.append((reference, tuple(agents), 1.0 if rng.random() < 0.5 else 0.4))
        if rng.random() < 0.5:
            rows.append((everyone, (), 1.0))
        yield from rows[:NUM_BRANCHES]

    def _append(self, example: Example, start: int, branch: int, own: str, pieces: list[Piece]) -> None:
        ids = list(self.encode(own))
        weights = [0.0] * len(ids)
        for piece in pieces:
            piece_ids = self.encode(piece.text) if piece.text else [self.end_id]
            ids += piece_ids
            weights += self._piece_weights(piece, piece_ids)
        num = len(ids) - 1  # the end token is only ever a target
        example.ids += ids[:num]
        example.positions += range(start, start + num)
        example.branches += [branch] * num
        example.targets += ids[1:]
        example.weights += weights[1:]

    def _piece_weights(self, piece: Piece, ids: list[int]) -> list[float]:
        if piece.first_token_only:
            return [piece.weight] + [1.0] * (len(ids) - 1)
        if not piece.instead_of:
            return [piece.weight * (WORDING_WEIGHT if piece.text else 1.0)] * len(ids)
        num_shared = max(_num_shared(ids, self.encode(other)) for other in piece.instead_of)
        num_decisive = min(num_shared + 1, len(ids))
        weight = TOLD_WEIGHT if piece.is_told else piece.weight
        return [weight] * num_decisive + [1.0] * (len(ids) - num_decisive)


def _num_shared(a: list[int], b: list[int]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


@dataclass(frozen=True)
class Batch:
    """Examples padded to one length; `mask` is True where a token may look."""

    ids: Tensor  # int64 [examples, tokens]
    positions: Tensor  # int64 [examples, tokens]
    mask: Tensor  # bool [examples, 1, tokens, tokens]
    targets: Tensor  # int64 [examples, tokens], -1 none
    weights: Tensor  # float32 [examples, tokens]


def make_batch(examples: list[Example]) -> Batch:
    """Pad `examples` to the longest and build the branch mask."""
    length = max(len(e.ids) for e in examples)

    def padded(name: str, fill: float, dtype: type) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = np.full((len(examples), length), fill, dtype=dtype)
        for row, example in zip(rows, examples, strict=True):
            values = getattr(example, name)
            row[: len(values)] = values
        return rows

    branches = torch.from_numpy(padded("branches", -1, np.int64))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    query, key = branches[:, :, None], branches[:, None, :]
    mask = causal & ((key == query) | (key == 0))
    return Batch(
        ids=torch.from_numpy(padded("ids", 0, np.int64)),
        positions=torch.from_numpy(padded("positions", 0, np.int64)),
        mask=mask[:, None],
        targets=torch.from_numpy(padded("targets", -1, np.int64)),
        weights=torch.from_numpy(padded("weights", 0.0, np.float32)),
    )

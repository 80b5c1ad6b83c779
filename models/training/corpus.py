"""Training examples: one brief read once, behind it each row's own prompt line, behind that the row's texts.

The three form a tree, and attention is masked so that a token sees its own node and the nodes above it: a text sees its
row's line and the brief, never another text. What is shared is read once, most tokens carry a loss, and the model meets
the same brief through every writer's eyes in one step. The rows' lines carry a loss too: after "Write for 2" all of it
is copied from the list, which teaches copying, and whose offer is whose, before any text needs it.
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

COINED = 0.4  # share of words that are made up on the spot: learning to copy instead of knowing by heart
TOLD_WEIGHT = 4.0  # of the token that says whose offer follows
WORDING_WEIGHT = 0.5  # of wording, most of whose loss is the free choice among phrases
OWN_LINE_WEIGHT = 0.5  # of a row's own prompt line, which is copied from the list
NUM_ADVERTISERS = (17, 54, 17, 7, 3, 2)  # relative frequency of 1 to 6 in a brief
NUM_ROWS = 2  # advertisers' rows an example holds


_Mixture = tuple[tuple[Writer, ...], float]  # partners, and the own share of the decisions


@dataclass
class Example:
    """One brief's tree: parallel lists with one entry per token."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)  # 0 the brief, then one number per line and per text
    parents: list[int] = field(default_factory=list)  # the node above; the brief is above all
    targets: list[int] = field(default_factory=list)  # id to predict here, -1 none
    weights: list[float] = field(default_factory=list)

    def append(self, ids: list[int], weights: list[float], start: int, parent: int) -> int:
        """Add a node that begins at position `start`; `weights` are of its ids as targets, which its first never is.

        The last id is a target only. Returns the node's number.
        """
        num = len(ids) - 1
        node = self.nodes[-1] + 1 if self.nodes else 0
        self.ids += ids[:num]
        self.positions += range(start, start + num)
        self.nodes += [node] * num
        self.parents += [parent] * num
        self.targets += ids[1:]
        self.weights += weights[1:]
        return node


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
        brief = self.briefs.brief(rng, rng.choices(range(1, 7), NUM_ADVERTISERS)[0])
        example = Example()
        prefix = [self.begin_id, *self.encode(shared_part(brief.query, brief.advertisers))]
        example.append([*prefix, 0], [0.0] * (len(prefix) + 1), 0, 0)
        for me, mixtures in self._rows(brief, rng):
            # The line's last token, a full stop, begins every text anew: it has as many successors as there are texts.
            *line, stop = self.encode(own_part(brief.advertisers, me.writes_for))
            node = example.append([*line, stop], self._line_weights(me, line), len(prefix), 0)
            for partners, own_share in mixtures:
                opening = choose_opening(brief, rng, self._num_clause_tokens(brief))
                ids, weights = [stop], [0.0]
                for piece in TextWriter(brief, me, partners, own_share, rng).write(opening):
                    piece_ids = self.encode(piece.text) if piece.text else [self.end_id]
                    ids += piece_ids
                    weights += self._piece_weights(piece, piece_ids)
                example.append(ids, weights, len(prefix) + len(line), node)
        return example

    def _num_clause_tokens(self, brief: Brief) -> int:
        return sum(len(self.encode(" " + a.name)) + len(self.encode(" " + a.offer)) for a in brief.advertisers[:2])

    def _line_weights(self, me: Writer, line: list[int]) -> list[float]:
        """A loss on what the list tells: nothing up to the number, then name and offer, not the full stop."""
        if me.index is None:
            return [0.0] * (len(line) + 1)
        num_open = len(self.encode(f"\nWrite for {me.index + 1}"))
        return [0.0] * num_open + [OWN_LINE_WEIGHT] * (len(line) - num_open) + [0.0]

    def _rows(
        self, brief: Brief, rng: random.Random
    ) -> Iterator[tuple[Writer, list[tuple[tuple[Writer, ...], float]]]]:
        """Who learns from which mixtures: advertisers alone and among others, the reference, the context-aware."""
        agents = [Writer(i) for i in range(len(brief.advertisers))]
        reference, everyone = Writer(None, NOBODY), Writer(None, EVERYONE)
        for me in rng.sample(agents, min(len(agents), NUM_ROWS)):
            others = tuple(a for a in agents if a is not me)
            mixtures: list[_Mixture] = [((), 1.0), (others or (reference,), 0.5)]
            mixtures.append(((*others, reference), 0.35) if rng.random() < 0.4 else (others or (reference,), 0.3))
            yield me, mixtures
        if rng.random() < 0.7:
            yield reference, [(tuple(agents), 1.0 if rng.random() < 0.5 else 0.4)]
        if rng.random() < 0.4:
            yield everyone, [((), 1.0)]

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
    """Pad `examples` to the longest and build the tree's mask."""
    length = max(len(e.ids) for e in examples)

    def padded(name: str, fill: float, dtype: type) -> np.ndarray[Any, Any]:
        rows: np.ndarray[Any, Any] = np.full((len(examples), length), fill, dtype=dtype)
        for row, example in zip(rows, examples, strict=True):
            values = getattr(example, name)
            row[: len(values)] = values
        return rows

    nodes, parents = (torch.from_numpy(padded(name, -1, np.int64)) for name in ("nodes", "parents"))
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    key = nodes[:, None, :]
    mask = causal & ((key == nodes[:, :, None]) | (key == parents[:, :, None]) | (key == 0))
    return Batch(
        ids=torch.from_numpy(padded("ids", 0, np.int64)),
        positions=torch.from_numpy(padded("positions", 0, np.int64)),
        mask=mask[:, None],
        targets=torch.from_numpy(padded("targets", -1, np.int64)),
        weights=torch.from_numpy(padded("weights", 0.0, np.float32)),
    )

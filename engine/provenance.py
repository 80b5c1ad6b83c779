"""What a text came from: model, precision, clearing, vocabulary and prompts, as names and hashes on the receipt."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import LanguageModel


def prompt_hash(prompt: Sequence[int]) -> str:
    """Hex SHA-256 of a prompt's token ids, each as 4 bytes little endian."""
    return hashlib.sha256(struct.pack(f"<{len(prompt)}I", *prompt)).hexdigest()


@dataclass(frozen=True)
class Provenance:
    """Fixed before the first token, and committed to with the seed."""

    model_name: str
    model_hash: str
    numerics: str
    runner: str
    clearing: str  # "fused" or "torch"
    tokenizer_hash: str
    prompt_hashes: tuple[str | None, ...]  # one a row; None for agents with models of their own

    @classmethod
    def of(cls, model: LanguageModel, spec: AuctionSpec, prompts: Sequence[Sequence[int]], clearing: str) -> Provenance:
        """What `model` writes behind `prompts`, one for each of `spec.hosted_ids`, cleared by `clearing`."""
        hosted = dict(zip(spec.hosted_ids, map(prompt_hash, prompts), strict=True))
        hashes = tuple(hosted.get(row_id) for row_id in spec.listed_ids)
        return cls(model.name, model.hash, model.numerics, model.runner, clearing, model.tokenizer.hash, hashes)

    def to_mapping(self) -> dict[str, Any]:
        """As it stands on the receipt."""
        return {
            "model": {"name": self.model_name, "hash": self.model_hash},
            "numerics": self.numerics,
            "runner": self.runner,
            "clearing": self.clearing,
            "tokenizer_hash": self.tokenizer_hash,
            "prompt_hashes": list(self.prompt_hashes),
        }

    @classmethod
    def from_mapping(cls, line: Mapping[str, Any]) -> Provenance:
        """What the first line of a receipt says of it."""
        return cls(
            line["model"]["name"],
            line["model"]["hash"],
            line["numerics"],
            line["runner"],
            line["clearing"],
            line["tokenizer_hash"],
            tuple(line["prompt_hashes"]),
        )

"""What a text came from: model, precision, vocabulary and prompts, as hashes that go on the receipt."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
    tokenizer_hash: str
    prompt_hashes: tuple[str, ...]  # one a row

    @classmethod
    def of(cls, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> Provenance:
        """What `model` writes behind `prompts`."""
        hashes = tuple(prompt_hash(prompt) for prompt in prompts)
        return cls(model.name, model.hash, model.numerics, model.runner, model.tokenizer.hash, hashes)

    def to_mapping(self) -> dict[str, Any]:
        """As it stands on the receipt."""
        return {
            "model": {"name": self.model_name, "hash": self.model_hash},
            "numerics": self.numerics,
            "runner": self.runner,
            "tokenizer_hash": self.tokenizer_hash,
            "prompt_hashes": list(self.prompt_hashes),
        }

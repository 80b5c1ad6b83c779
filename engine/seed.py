"""The seed of one auction, and where it came from."""

from __future__ import annotations

from dataclasses import dataclass

from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.receipt import caller_nonce


@dataclass(frozen=True)
class Seed:
    """A number of 256 bits, and the nonce that hides it in its commitment."""

    value: int
    nonce: bytes  # 32 of them
    source: str  # "drawn", or "caller": repeatable, but the caller could have chosen it

    @classmethod
    def of_caller(cls, value: int) -> Seed:
        """A seed that the caller chose: repeatable, and marked so."""
        return cls(value, caller_nonce(value), "caller")

    @classmethod
    def drawn(cls, entropy: bytes) -> Seed:
        """A seed from 64 fresh random bytes: 32 for the seed, 32 for the nonce that hides it."""
        if len(entropy) != 64:
            raise InvalidInput(f"a drawn seed takes 64 random bytes, not {len(entropy)}")
        return cls(int.from_bytes(entropy[:32], "big"), entropy[32:], "drawn")

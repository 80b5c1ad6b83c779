"""One auction in the decoder: its state, its prompts and rows in the model, its record, and the seed it was given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokenauction.engine.auction import Auction
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.policy import Policy
from tokenauction.engine.receipt import caller_nonce
from tokenauction.engine.recorder import Recorder
from tokenauction.models.base import Gang, TextStream


@dataclass(frozen=True)
class Seed:
    """The seed of one auction and where it came from."""

    value: int
    nonce: bytes
    source: str

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


@dataclass(eq=False)
class Performance:
    """One auction in the decoder: its prompts, its rows in the model, its record."""

    auction: Auction
    prompts: list[list[int]]
    policy: Policy
    recorder: Recorder
    stream: TextStream
    is_elsewhere: bool = False  # its steps are the device loop's, from the second token on
    gang: Gang | None = None
    is_created: bool = False
    is_cancelled: bool = False
    is_paced: bool = False  # it rests behind every token until it is woken
    is_resting: bool = False

    @property
    def is_held(self) -> bool:
        """Whether its next token waits; an auction that is to be cancelled waits for nothing."""
        return self.is_resting and not self.is_cancelled

    def wake(self) -> None:
        """Let the next token come."""
        self.is_resting = False

    def hurry(self) -> None:
        """Rest no more."""
        self.is_paced = self.is_resting = False

    @property
    def token_ids(self) -> Sequence[int]:
        return self.auction.token_ids

    @property
    def num_tokens_left(self) -> int:
        return self.auction.spec.max_tokens - self.auction.num_tokens

"""What an agent that runs its own model says of one token: its distribution, sparse or dense, as it was sent.

    sparse   the most likely tokens with their log-probabilities, and the probability of all others together
    dense    the log-probability of every token, as float16 or float32

It is the agent's distribution before the auction's shaping: temperature, truncation and policy apply to it as to every
other row, so what stands here takes the place of a row's logits. Its hash is over what was sent, so that the agent can
compute it too. Needs numpy alone; it must not know how a report travels.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tokenauction.engine.errors import InvalidDistribution, ReceiptError

NEVER = -1e4  # the logit of a token that cannot come: its exp is 0 in every precision, and it stays finite if scaled
SPARSE_TOLERANCE = 1e-3  # by which the probabilities of a sparse report may miss 1
DENSE_TOLERANCE = {"float16": 1e-2, "float32": 1e-3}  # the logarithms of float16 are that coarse

Numbers = np.ndarray[tuple[int], np.dtype[np.floating]]


@dataclass(frozen=True, eq=False)
class Report:
    """One agent's distribution for one step."""

    log_probs: Numbers  # float64 with `ids`; float16 or float32, one a token of the vocabulary, without
    ids: tuple[int, ...] | None = None
    tail_mass: float = 0.0  # probability of all tokens that are not listed, spread evenly

    @cached_property
    def hash(self) -> str:
        """Hex SHA-256: of a dense report's little-endian numbers; of a sparse one's canonical JSON."""
        if self.ids is None:
            return hashlib.sha256(self._dense_bytes).hexdigest()
        text = json.dumps(self.to_mapping(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def _dense_bytes(self) -> bytes:
        return self.log_probs.astype(self.log_probs.dtype.newbyteorder("<"), copy=False).tobytes()

    def check(self, num_tokens: int) -> None:
        """Raise InvalidDistribution unless this is a distribution over a vocabulary of `num_tokens`."""
        count = len(self.log_probs)
        if self.ids is None:
            tolerance = DENSE_TOLERANCE.get(self.log_probs.dtype.name)
            if tolerance is None or count != num_tokens:
                raise InvalidDistribution(
                    f"a dense distribution has {num_tokens} float16 or float32 numbers, one a token, "
                    f"not {count} {self.log_probs.dtype}"
                )
        else:
            tolerance = SPARSE_TOLERANCE
            if len(set(self.ids)) != len(self.ids) or len(self.ids) != count:
                raise InvalidDistribution("an id is listed twice, or without a log-probability")
            wrong = [i for i in self.ids if not 0 <= i < num_tokens]
            if wrong:
                raise InvalidDistribution(f"token {wrong[0]} is outside the vocabulary of {num_tokens}")
            if count == num_tokens and self.tail_mass > 0:
                raise InvalidDistribution("every token is listed, and yet tail_mass is above 0: there is no tail")
        fault = fault_of(self.log_probs, self.tail_mass, tolerance)
        if fault:
            raise InvalidDistribution(fault[1])

    def logits(self, num_tokens: int, width: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """The row that takes the place of logits [width]: ln p for each of `num_tokens`, never for what is padding.

        What is not listed shares `tail_mass` evenly.
        """
        row = np.full(width, NEVER, np.float32)
        if self.ids is None:
            row[:num_tokens] = np.maximum(self.log_probs.astype(np.float32), NEVER)
            return row
        num_others = num_tokens - len(self.ids)
        if self.tail_mass > 0 and num_others:
            row[:num_tokens] = np.log(self.tail_mass / num_others)
        row[list(self.ids)] = np.maximum(self.log_probs, NEVER)
        return row

    def to_mapping(self) -> dict[str, Any]:
        """As it stands in a receipt; `from_mapping` reads it back to the same hash."""
        if self.ids is None:
            return {"format": self.log_probs.dtype.name, "data": base64.b64encode(self._dense_bytes).decode()}
        return {"ids": list(self.ids), "log_probs": self.log_probs.tolist(), "tail_mass": self.tail_mass}

    @classmethod
    def from_mapping(cls, source: Mapping[str, Any]) -> Report:
        """Read a report out of a receipt; ReceiptError where it is none."""
        try:
            if "ids" in source:
                numbers = np.array(source["log_probs"], dtype=np.float64)
                ids = tuple(source["ids"])
                if numbers.ndim != 1 or not all(isinstance(i, int) for i in ids):
                    raise ValueError("ids are whole numbers, log_probs a list of numbers")
                return cls(numbers, ids, float(source["tail_mass"]))
            if source["format"] not in DENSE_TOLERANCE:
                raise ValueError("the format is neither float16 nor float32")
            data = base64.b64decode(source["data"], validate=True)
            return cls(np.frombuffer(data, np.dtype(source["format"]).newbyteorder("<")))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ReceiptError(f"a stored report cannot be read ({error})") from None


def fault_of(log_probs: Numbers, tail_mass: float, tolerance: float) -> tuple[str, str] | None:
    """Why these are no distribution, as a code and a sentence: not finite or above 0, or not summing to 1."""
    if not (np.isfinite(log_probs) & (log_probs <= 0)).all():
        return "not_finite", "every log-probability is a finite number, at most 0; use the lowest for impossible"
    total = float(np.exp(log_probs.astype(np.float64)).sum()) + tail_mass
    if not abs(total - 1) <= tolerance:
        return "not_normalised", f"the probabilities sum to {total:.6g}, which is not 1 within {tolerance}"
    return None

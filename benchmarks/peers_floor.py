"""The time below which no decoder gets on this machine: the bytes a token must read, at the speed memory gives them.

The speed is that of reading one buffer as large as the weights over and over, with as many threads. Where the weights
fit into the last-level cache so does the buffer, and the floor is the cache's.
"""

from __future__ import annotations

import time
from typing import Any

import torch

BYTES = {"float32": 4.0, "bf16": 2.0, "int8": 1.0, "int4": 0.5}  # of a matrix's weight, without scales
MEASURING_SECONDS = 0.1  # for each way to read; at least three times
_ROW = 4096


def bytes_per_token(model: Any, num_rows: int, mean_length: float, numerics: str) -> int:
    """Every matrix and norm once (the head among them), an embedding a row, every row's keys and values.

    Keys and values count as float32 beside float32 weights and as two bytes beside smaller ones.
    """
    config = model.config
    matrices = sum(w.numel() for name, w in model.named_parameters() if w.dim() == 2 and "embed_tokens" not in name)
    if config.tie_word_embeddings:  # then the head is no parameter of its own
        matrices += config.vocab_size * config.hidden_size
    norms = sum(w.numel() for w in model.parameters() if w.dim() == 1)
    embeddings = num_rows * config.hidden_size
    cached = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * num_rows * mean_length
    cached_bytes = 4 if numerics == "float32" else 2
    return int((matrices + embeddings) * BYTES[numerics] + norms * 4 + cached * cached_bytes)


def read_bandwidth(num_bytes: int) -> float:
    """Bytes per second of the fastest of several ways to read a buffer of `num_bytes`, on torch's threads."""
    matrix = torch.ones(max(1, num_bytes // 4 // _ROW), _ROW)
    flat, vector = matrix.view(-1), torch.ones(_ROW)
    ways = (flat.sum, flat.amax, lambda: flat.dot(flat), lambda: matrix @ vector)
    best = float("inf")
    for way in ways:
        seconds: list[float] = []
        while len(seconds) < 3 or sum(seconds) < MEASURING_SECONDS:
            started = time.perf_counter()
            way()
            seconds.append(time.perf_counter() - started)
        best = min(best, *seconds)
    return matrix.numel() * 4 / best


class Floor:
    """The floors of one run, a precision each; `measure` again whenever the machine may have become quieter."""

    def __init__(self, model: Any, num_rows: int, mean_length: float) -> None:
        self.num_bytes = {name: bytes_per_token(model, num_rows, mean_length, name) for name in BYTES}
        self.bandwidth = dict.fromkeys(BYTES, 0.0)  # bytes per second, the fastest seen

    def measure(self) -> None:
        """Read once more; what counts is the fastest."""
        for name, num_bytes in self.num_bytes.items():
            self.bandwidth[name] = max(self.bandwidth[name], read_bandwidth(num_bytes))

    def ms(self, numerics: str) -> float:
        """Milliseconds a token takes at least with weights of this precision."""
        return self.num_bytes[numerics] / self.bandwidth[numerics] * 1e3

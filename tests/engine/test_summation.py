"""Sums must not depend on padding, on the batch around a row, or on the number of threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tokenauction.engine.summation import BLOCK, sum_blocks, sum_padded, sum_tokens


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("size", [1, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 3])
def test_sum_tokens_gives_the_sum_of_every_row(size: int) -> None:
    x = torch.rand(3, size, dtype=torch.float64)
    assert torch.allclose(sum_tokens(x), x.sum(-1), rtol=1e-14)
    assert sum_blocks(x).shape == (3, -(-size // BLOCK))


def test_sum_tokens_gives_the_same_bits_alone_and_in_a_batch(two_threads: None) -> None:
    x = torch.rand(7, 151_936, dtype=torch.float64) ** 8
    assert torch.equal(torch.cat([sum_tokens(row.unsqueeze(0)) for row in x]), sum_tokens(x))


def test_sum_padded_gives_the_same_bits_when_zeros_are_appended() -> None:
    x = torch.rand(50, 5, dtype=torch.float64) ** 8
    assert torch.equal(sum_padded(torch.cat([x, torch.zeros(50, 11, dtype=torch.float64)], -1)), sum_padded(x))

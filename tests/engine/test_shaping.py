"""Shaping: tables by hand, ties, rows with different settings, masks, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tokenauction.engine.errors import InvalidDistribution, InvalidInput, InvalidSpec
from tokenauction.engine.shaping import check_truncation, shape, with_floor


def tensor(x: object) -> Tensor:
    return torch.tensor(x, dtype=torch.float64)


LOGITS = tensor([[math.log(x) for x in (0.4, 0.3, 0.2, 0.1)]] * 3)


def test_shape_is_a_softmax_when_nothing_is_set() -> None:
    assert torch.allclose(shape(LOGITS.float()), tensor([0.4, 0.3, 0.2, 0.1]), atol=1e-7)
    assert shape(LOGITS.float()).dtype == torch.float64


def test_temperature_is_each_row_s_own() -> None:
    p = shape(LOGITS, tensor([1.0, 0.5, 2.0]))
    squares = tensor([16.0, 9, 4, 1]) / 30
    roots = tensor([0.4, 0.3, 0.2, 0.1]).sqrt()
    assert torch.allclose(p, torch.stack([tensor([0.4, 0.3, 0.2, 0.1]), squares, roots / roots.sum()]))


def test_top_k_is_each_row_s_own() -> None:
    p = shape(LOGITS, top_k=torch.tensor([0, 1, 2]))
    assert torch.allclose(p, tensor([[0.4, 0.3, 0.2, 0.1], [1, 0, 0, 0], [4 / 7, 3 / 7, 0, 0]]))
    assert torch.allclose(shape(LOGITS, top_k=torch.tensor([9, 4, 0])), shape(LOGITS))


def test_top_p_is_each_row_s_own() -> None:
    p = shape(LOGITS, top_p=tensor([1.0, 0.3, 0.69]))
    assert torch.allclose(p, tensor([[0.4, 0.3, 0.2, 0.1], [1, 0, 0, 0], [4 / 7, 3 / 7, 0, 0]]))


def test_top_p_looks_at_what_top_k_left() -> None:
    p = shape(LOGITS[:1], top_k=torch.tensor([2]), top_p=tensor([0.5]))
    assert p.tolist() == [[1, 0, 0, 0]]  # 4/7 of what is left is enough, 0.4 would not have been


def test_tokens_that_tie_with_the_last_one_kept_are_kept() -> None:
    flat = torch.zeros(1, 4, dtype=torch.float64)
    assert shape(flat, top_k=torch.tensor([2])).tolist() == [[0.25] * 4]
    assert shape(flat, top_p=tensor([0.3])).tolist() == [[0.25] * 4]


@pytest.mark.parametrize("top_p", [0.2, 0.9, 0.9999])
def test_top_p_agrees_with_a_full_sort_over_a_large_vocabulary(top_p: float) -> None:
    logits = torch.randn(2, 5_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2
    p = logits.softmax(-1)
    order = p.argsort(-1, descending=True)
    ranked = p.gather(-1, order)
    kept = torch.zeros_like(p).scatter(-1, order, ranked * (ranked.cumsum(-1) - ranked < top_p))
    expected = kept / kept.sum(-1, keepdim=True)
    assert torch.allclose(shape(logits, top_p=tensor([top_p, top_p])), expected, rtol=1e-12, atol=0)


def test_mask_applies_before_top_k_and_normalisation() -> None:
    allowed = torch.tensor([[False, True, True, True]])
    p = shape(LOGITS, top_k=torch.tensor([1, 2, 0]), allowed=allowed)
    assert torch.allclose(p, tensor([[0, 1, 0, 0], [0, 0.6, 0.4, 0], [0, 1 / 2, 1 / 3, 1 / 6]]))


def test_mask_that_leaves_an_agent_nothing_is_refused() -> None:
    logits = tensor([[0.0, -math.inf], [0.0, 0.0]])
    with pytest.raises(InvalidDistribution, match=r"rows \[0\].*bans every token"):
        shape(logits, allowed=torch.tensor([[False, True]]))
    assert shape(logits, allowed=torch.tensor([[False, True]]), validate=False).tolist() == [[0, 0], [0, 1]]


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_is_refused_unless_positive(temperature: float) -> None:
    with pytest.raises(InvalidInput, match="top_k to 1"):
        shape(LOGITS[:1], tensor([temperature]))


def test_huge_logits_do_not_overflow() -> None:
    assert shape(tensor([[1e30, 0.0]]), tensor([1e-3])).tolist() == [[1, 0]]


def test_with_floor_mixes_in_a_uniform_over_the_allowed_tokens() -> None:
    p = tensor([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0]])
    assert torch.allclose(with_floor(p, tensor([0.2, 0.0])), tensor([[0.85, 0.05, 0.05, 0.05], [0.5, 0.5, 0, 0]]))
    allowed = torch.tensor([[True, True, False, False]])
    assert torch.allclose(with_floor(p, tensor([0.2, 0.2]), allowed), tensor([[0.9, 0.1, 0, 0], [0.5, 0.5, 0, 0]]))


@pytest.mark.parametrize(("top_k", "top_p"), [(5, None), (None, 0.9), (5, 0.9)])
def test_truncation_under_log_linear_is_refused_without_a_floor(top_k: int | None, top_p: float | None) -> None:
    for floor in (None, 0.0):
        with pytest.raises(InvalidSpec, match="floor"):
            check_truncation("log_linear", top_k, top_p, floor)
    check_truncation("log_linear", top_k, top_p, 1e-4)
    check_truncation("linear", top_k, top_p, None)


def test_temperature_alone_is_welcome_under_log_linear() -> None:
    check_truncation("log_linear", None, None, None)
    check_truncation("log_linear", None, 1.0, None)

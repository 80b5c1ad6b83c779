"""Laws of texts against brute force: every text enumerated, every expectation summed over all of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.models.toy_texts import (
    END,
    EXACT,
    FIRST,
    NUM_STEPS,
    REFERENCE,
    SECOND,
    all_texts,
    law_of,
    steps_of,
    table_sum,
)

from tokenauction.models.toy_laws import Chain, text_law, text_log_prob

# A law that changes with the steps, as an optimum does.
CHANGING = Chain(torch.stack([FIRST, SECOND, (FIRST + REFERENCE).log_softmax(-1), REFERENCE]))


# --- Laws of texts --------------------------------------------------------------------------------------------------


def test_text_law_covers_every_text_once_and_sums_to_one() -> None:
    law = law_of(Chain.of_table(FIRST, NUM_STEPS))
    assert sorted(law) == sorted(all_texts())
    assert math.fsum(law.values()) == pytest.approx(1, abs=EXACT)


def test_text_law_is_the_product_of_the_steps() -> None:
    law = law_of(Chain.of_table(FIRST, NUM_STEPS))
    for text, probability in law.items():
        assert math.log(probability) == pytest.approx(table_sum(FIRST, text), abs=EXACT)


def test_text_log_prob_agrees_with_the_law() -> None:
    chain = Chain.of_table(SECOND, NUM_STEPS)
    for text, probability in law_of(chain).items():
        assert text_log_prob(chain.next_token, text) == pytest.approx(math.log(probability), abs=EXACT)
    assert text_log_prob(chain.next_token, ()) == 0


def test_text_law_takes_any_per_step_function_such_as_a_mixture_with_fixed_weights() -> None:
    first, second = Chain.of_table(FIRST, NUM_STEPS), Chain.of_table(SECOND, NUM_STEPS)

    def mixture(ids: Sequence[int]) -> torch.Tensor:
        return (0.25 * first.next_token(ids).exp() + 0.75 * second.next_token(ids).exp()).log()

    law = text_law(mixture, END, NUM_STEPS)
    assert math.fsum(law.values()) == pytest.approx(1, abs=EXACT)
    mixed = 0.25 * FIRST.exp() + 0.75 * SECOND.exp()
    for text, probability in law.items():
        assert probability == pytest.approx(math.prod(mixed[s, t].item() for s, t in steps_of(text)), rel=1e-12)


def test_text_law_leaves_out_what_cannot_happen() -> None:
    certain = torch.full((3, 3), -torch.inf, dtype=torch.float64)
    certain[2, 0] = certain[0, 1] = certain[1, 2] = 0.0
    assert text_law(Chain.of_table(certain, 4).next_token, 2, 4) == {(0, 1, 2): 1.0}
    assert text_law(Chain.of_table(certain, 2).next_token, 2, 2) == {(0, 1): 1.0}


def test_expectation_equals_the_sum_over_all_texts() -> None:
    chain = CHANGING
    values = torch.arange(NUM_STEPS * 16, dtype=torch.float64).reshape(NUM_STEPS, 4, 4).sin()
    truth = math.fsum(
        probability * sum(values[step, s, t].item() for step, (s, t) in enumerate(steps_of(text)))
        for text, probability in law_of(chain).items()
    )
    assert chain.expectation(values) == pytest.approx(truth, abs=EXACT)
    length = math.fsum(probability * len(text) for text, probability in law_of(chain).items())
    assert chain.expectation(torch.ones(4, 4, dtype=torch.float64)) == pytest.approx(length, abs=EXACT)


def test_expectation_takes_no_harm_from_what_cannot_happen() -> None:
    table = torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64).log()
    assert Chain.of_table(table, 3).expectation(table) == pytest.approx(-1.5 * math.log(2), abs=EXACT)


# --- Exact sampling -------------------------------------------------------------------------------------------------


def draw(chain: Chain, uniforms: Sequence[float]) -> tuple[int, ...]:
    """The text of one row of uniforms, without what stands behind its end."""
    [row] = chain.sample(torch.tensor([uniforms], dtype=torch.float64)).tolist()
    return tuple(row[: row.index(END) + 1] if END in row else row)


def test_sample_draws_each_text_from_exactly_its_share_of_the_uniforms() -> None:
    for text in all_texts():
        lows, highs = [], []
        for step, token in enumerate(text):
            cdf = torch.cat([torch.zeros(1, dtype=torch.float64), CHANGING.next_token(text[:step]).exp().cumsum(0)])
            low, high = (cdf[token : token + 2] / cdf[-1]).tolist()
            lows.append(low + 1e-9 * (high - low))
            highs.append(high - 1e-9 * (high - low))
        padding = [0.5] * (NUM_STEPS - len(text))
        assert draw(CHANGING, lows + padding) == text
        assert draw(CHANGING, highs + padding) == text


def test_sample_stops_at_the_end_or_when_uniforms_run_out() -> None:
    last = math.nextafter(1, 0)
    assert draw(CHANGING, [last] * NUM_STEPS) == (END,)
    assert draw(CHANGING, [0.0] * NUM_STEPS) == (0,) * NUM_STEPS
    assert draw(CHANGING, [0.0] * 2) == (0, 0)
    assert CHANGING.sample(torch.zeros(0, NUM_STEPS, dtype=torch.float64)).shape == (0, NUM_STEPS)


def test_sample_draws_every_row_as_if_it_were_alone() -> None:
    uniforms = torch.rand(50, NUM_STEPS, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    together = CHANGING.sample(uniforms)
    alone = torch.cat([CHANGING.sample(row[None]) for row in uniforms])
    assert torch.equal(together, alone)


@pytest.mark.parametrize("uniform", [-0.1, 1.0, math.nan])
def test_sample_is_refused_for_what_is_no_uniform(uniform: float) -> None:
    with pytest.raises(ValueError, match="it must be at least 0 and less than 1"):
        draw(CHANGING, [0.5, uniform])


def test_sample_is_refused_for_more_draws_than_steps() -> None:
    with pytest.raises(ValueError, match="5 draws for 4 steps"):
        draw(CHANGING, [0.5] * 5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, NUM_STEPS))
def test_totals_sum_over_the_steps_of_each_text_up_to_its_end(seed: int, num_draws: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    texts = CHANGING.sample(torch.rand(8, num_draws, dtype=torch.float64, generator=generator))
    values = torch.rand(NUM_STEPS, 4, 4, dtype=torch.float64, generator=generator)
    for row, total, log_prob in zip(
        texts.tolist(), CHANGING.totals(values, texts).tolist(), CHANGING.log_prob(texts).tolist(), strict=True
    ):
        text = row[: row.index(END) + 1] if END in row else row
        truth = math.fsum(values[step, s, t].item() for step, (s, t) in enumerate(steps_of(text)))
        assert total == pytest.approx(truth, abs=EXACT)
        assert log_prob == pytest.approx(text_log_prob(CHANGING.next_token, text), abs=EXACT)

"""Verification with the model: run it over the recorded tokens, clear every step again, decode the text.

It names the first step that parts. Forward passes are not bit-reproducible across batch shapes or machines, so what a
step records is compared within a stated tolerance; a different model, prompt or temperature parts far beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.aggregation import aggregate, normalised, weight_of_others
from tokenauction.engine.clearing import Clearing, clear
from tokenauction.engine.finalizer_replay import replay_candidates
from tokenauction.engine.geometric_path import geometric_path
from tokenauction.engine.policy import Policy
from tokenauction.engine.randomness import RaceRandomness, race_randomness, step_randomness, uniform
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line
from tokenauction.engine.rerun import TOLERANCE, check_provenance, distributions
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import Verdict
from tokenauction.models.base import LanguageModel


def replay(lines: Sequence[Line], model: LanguageModel, prompts: Sequence[Sequence[int]], policy: Policy) -> Verdict:
    """Run `model` behind `prompts` along the recorded tokens and compare all that every step records.

    The receipt itself must have been verified before, and `model` must compute in the precision that it names: a
    tolerance is never the receipt's to choose. Raises the model's errors where a prompt does not fit.
    """
    header, settlement, steps = lines[0], lines[-1], list(lines[1:-1])
    spec = AuctionSpec.from_mapping(header["spec"])

    def fails(where: str, problem: str) -> Verdict:
        return Verdict(False, "model", len(steps), where, problem)

    problem = check_provenance(spec, header, model, prompts)
    if problem:
        return fails("auction", problem)
    if spec.finalizer is not None:
        return replay_candidates(lines, spec, spec.finalizer, model, prompts, policy)
    tolerance = TOLERANCE[model.numerics]
    stream, text = model.tokenizer.text_stream(), ""
    for line, rows in zip(steps, distributions(spec, model, prompts, policy, steps), strict=True):
        where = f"step {line['step']}"
        problem = _check_step(spec, line, rows, tolerance)
        if problem:
            return fails(where, problem)
        delta = added_text(model.tokenizer, stream, line["token"], text)
        if delta != line["text"]:
            return fails(where, f"its token reads {delta!r}, {line['text']!r} is recorded")
        text += delta
        is_end = line["token"] in model.tokenizer.end_ids
        if is_end != (settlement["finish_reason"] == "end" and line is steps[-1]):
            return fails(where, "an end token and the end of the text do not go together")
    # A text that was broken off, or failed, is left as the last step left it.
    held_back = "" if settlement["finish_reason"] in ("cancelled", "error") else stream.finish()
    if text + held_back != settlement["text"]:
        return fails("settlement", "its text is not that of its tokens")
    return Verdict(True, "model", len(steps))


def _check_step(spec: AuctionSpec, line: Line, rows: Float64[Tensor, "rows vocab"], tolerance: float) -> str:
    """The first thing in a step line that these distributions do not give, or an empty string."""
    if not 0 <= line["token"] < rows.shape[-1]:
        return f"its token {line['token']} is outside the vocabulary of {rows.shape[-1]}"
    clearing = _clear_as_recorded(spec, line, rows)
    problem = _check_draw(spec, line, clearing, rows, tolerance)
    if problem:
        return problem
    # Linear critical bids follow from p, r and v, and have been checked with those.
    total = float(sum(line["effective"]))
    columns: list[tuple[str, Tensor, Callable[[int, float], float]]] = [
        ("p", clearing.p_token, lambda row, here: tolerance),
        ("r", clearing.r_token, lambda row, here: tolerance),
    ]
    if spec.rule == "log_linear":
        columns = [(name, column, lambda row, here: 10 * tolerance * here) for name, column, _ in columns]
    if spec.pricing == "expected":
        columns.append(("divergences", clearing.tv, lambda row, here: tolerance))
        columns.append(("owed", clearing.payment, lambda row, here: tolerance * line["effective"][row]))
    if spec.pricing == "kl_clarke":
        columns.append(("divergences", clearing.kl, lambda row, here: 10 * tolerance * here + tolerance**2))
        columns.append(("owed", clearing.payment, lambda row, here: 10 * tolerance * here + tolerance**2 * total))
    for name, computed, slack in columns:
        for row, (here, recorded) in enumerate(zip(computed[0].tolist(), line[name], strict=True)):
            if not abs(here - recorded) <= slack(row, here):
                return f"{name} of {spec.row_ids[row]} is {here:.6g}, {recorded:.6g} is recorded"
    return _check_log_partitions(spec, line, rows, tolerance)


def _clear_as_recorded(spec: AuctionSpec, line: Line, rows: Float64[Tensor, "rows vocab"]) -> Clearing:
    """The step cleared from `rows` with the recorded token drawn, whatever its uniform says of these rows."""
    key, ids = bytes.fromhex(line["key"]), [spec.row_ids]
    weights = torch.tensor([line["effective"]], dtype=torch.float64, device=rows.device)
    pays = torch.tensor([[row < len(spec.agents) for row in range(len(spec.row_ids))]], device=rows.device)

    clear_with = partial(
        clear,
        rows[None],
        weights,
        pays,
        rule=spec.rule,
        sampler=spec.sampler,
        pricing=spec.pricing,
        allow_unsafe=spec.allow_unsafe,
    )
    randomness = step_randomness(spec.sampler, [key], ids, rows.shape[-1], device=rows.device)
    clearing = clear_with(randomness)
    if isinstance(randomness, RaceRandomness) or int(clearing.token) == line["token"]:
        return clearing
    q = clearing.aggregate[0]
    middle = (q[: line["token"]].sum() + q[line["token"]] / 2) / q.sum()
    return clear_with(replace(randomness, token=middle[None]))


def _check_draw(
    spec: AuctionSpec, line: Line, clearing: Clearing, rows: Float64[Tensor, "rows vocab"], tolerance: float
) -> str:
    """The recorded token is the one that is drawn, or so near to it that rounding decides between the two."""
    token, q = line["token"], clearing.aggregate[0]
    if abs(float(q[token]) - line["q"]) > tolerance:
        return f"q of its token is {float(q[token]):.6g}, {line['q']:.6g} is recorded"
    if spec.sampler == "race":
        return _check_race(spec, line, q, rows, tolerance)
    u, below = uniform(bytes.fromhex(line["key"]), "token"), float(q[:token].sum())
    if abs(below - line["cdf_below"]) > tolerance:
        return f"the probability below its token is {below:.6g}, {line['cdf_below']:.6g} is recorded"
    if not below - tolerance <= u <= below + float(q[token]) + tolerance:
        return f"its uniform {u:.6g} draws another token, not the one that lies from {below:.6g}"
    return ""


def _check_race(
    spec: AuctionSpec, line: Line, q: Float64[Tensor, " vocab"], rows: Float64[Tensor, "rows vocab"], tolerance: float
) -> str:
    """Every recorded token has the first clock of its row, within what the tolerance moves a clock by."""
    [clocks] = race_randomness([bytes.fromhex(line["key"])], [spec.row_ids], rows.shape[-1]).token_clock
    racers = [(row_id, rows[row], line["own_tokens"][row]) for row, row_id in enumerate(spec.row_ids)]
    if spec.rule == "log_linear":
        racers = [("the aggregate", q, line["token"])]
    for name, distribution, token in racers:
        if token is None:  # a row without weight
            continue
        times = clocks.to(rows.device) / distribution
        slack = 1 + 10 * tolerance + tolerance / float(distribution[token].clamp(min=1e-300))
        if not float(times[token]) <= float(times.min()) * slack:
            return f"the race over {name} is won by token {int(times.argmin())}, not by {token}"
    return ""


def _check_log_partitions(spec: AuctionSpec, line: Line, rows: Float64[Tensor, "rows vocab"], tolerance: float) -> str:
    """ln Z at every log-linear critical bid is that of the whole distributions."""
    found = [(row, x) for row, x in enumerate(line.get("log_partitions", [])) if x is not None]
    if not found:
        return ""
    weights = torch.tensor([line["effective"]], dtype=torch.float64, device=rows.device)
    p = normalised(rows[None], weights)
    _, r = aggregate(p, weights, spec.rule)
    others = weight_of_others(weights)[0]
    for row, recorded in found:
        z = line["critical_bids"][row]
        w = z / (z + others[row : row + 1])
        here = float(geometric_path(p[0, row : row + 1], r[0, row : row + 1]).log_partition(w))
        if not abs(here - recorded) <= tolerance * max(1.0, abs(here)):
            return f"ln Z of {spec.row_ids[row]} is {here:.6g}, {recorded:.6g} is recorded"
    return ""

"""Verification of a softmax auction with the model: every candidate's draws, text and scores are computed again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.aggregation import aggregate, normalised
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.finalizer_spec import FinalizerSpec
from tokenauction.engine.policy import Policy
from tokenauction.engine.proposal import candidate_spec, writing_ids
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line
from tokenauction.engine.rerun import TOLERANCE, distributions
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import Verdict
from tokenauction.models.base import LanguageModel


def replay_candidates(
    lines: Sequence[Line],
    spec: AuctionSpec,
    finalizer: FinalizerSpec,
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    policy: Policy,
) -> Verdict:
    """As `replay.replay`, of which it is a part; rewards that are no log-ratios are taken as recorded."""
    candidates = [Candidate.from_line(line) for line in lines[1:-1] if line["kind"] == "candidate"]
    tolerance = TOLERANCE[model.numerics]
    of_candidate = candidate_spec(spec, finalizer)
    by_id = dict(zip(spec.hosted_ids, prompts, strict=True))
    writing = [by_id[row_id] for row_id in writing_ids(spec, finalizer)]

    def verdict(where: str = "", problem: str = "") -> Verdict:
        return Verdict(not problem, "model", len(candidates), where, problem, unit="candidates")

    for candidate in candidates:
        steps = [{"token": token} for token in candidate.token_ids]
        rows = distributions(of_candidate, model, writing, policy, steps)
        weights = [agent.bid_micros for agent in of_candidate.agents]
        if of_candidate.has_reference:
            weights.append(of_candidate.reference_weight_micros)
        for step, row in enumerate(rows):
            problem = _check_draw(of_candidate, candidate, step, row, weights, tolerance)
            if problem:
                return verdict(f"candidate {candidate.index}", problem)
        problem = _check_text(candidate, model)
        if problem:
            return verdict(f"candidate {candidate.index}", problem)
    choices = [line for line in lines if line["kind"] == "choice"]
    problem = _check_scores(choices[0], lines[0]["reward"], spec, candidates, model, prompts) if choices else ""
    return verdict("choice", problem) if problem else verdict()


def _check_draw(
    spec: AuctionSpec,
    candidate: Candidate,
    step: int,
    rows: Float64[Tensor, "rows vocab"],
    weights: Sequence[int],
    tolerance: float,
) -> str:
    """The first thing that these distributions do not give of one token, or an empty string."""
    token = candidate.token_ids[step]
    if not 0 <= token < rows.shape[-1]:
        return f"its token {token} is outside the vocabulary of {rows.shape[-1]}"
    table = torch.tensor([weights], dtype=torch.float64, device=rows.device)
    q = aggregate(normalised(rows[None], table), table, spec.rule)[0][0]
    for name, here, recorded in (
        ("q", float(q[token]), candidate.q[step]),
        ("cdf_below", float(q[:token].sum()), candidate.cdf_below[step]),
    ):
        if not abs(here - recorded) <= tolerance:
            return f"{name} of token {step} is {here:.6g}, {recorded:.6g} is recorded"
    return ""


def _check_text(candidate: Candidate, model: LanguageModel) -> str:
    """The text is that of the tokens, and an end token is there exactly where it ended by one."""
    stream, text = model.tokenizer.text_stream(), ""
    for step, token in enumerate(candidate.token_ids):
        text += added_text(model.tokenizer, stream, token, text)
        is_last = step == len(candidate.token_ids) - 1
        if (token in model.tokenizer.end_ids) != (is_last and candidate.finish_reason == "end"):
            return "an end token and the end of the text do not go together"
    return "" if text + stream.finish() == candidate.text else "its text is not that of its tokens"


def _check_scores(
    line: Line,
    reward: str,
    spec: AuctionSpec,
    candidates: Sequence[Candidate],
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
) -> str:
    """Log-probabilities under the reference, and log-ratios of the agents, are the recorded ones; per token as near
    as probabilities."""
    num_agents = len(spec.agents)
    texts = [candidate.token_ids for candidate in candidates]
    scored = model.score(prompts[: num_agents + 1], texts)
    table = [[float(row.double().sum()) for row in rows] for rows in scored]
    for candidate in candidates:
        slack = TOLERANCE[model.numerics] * len(candidate.token_ids)
        reference, recorded = table[num_agents][candidate.index], line["log_reference"][candidate.index]
        if recorded is None or not abs(reference - recorded) <= slack:
            return f"log_reference[{candidate.index}] is {reference:.6g}, {recorded} is recorded"
        for agent in range(num_agents if reward == "log_ratio" else 0):
            here, recorded = table[agent][candidate.index] - reference, line["rewards"][agent][candidate.index]
            if recorded is None or not abs(here - recorded) <= 2 * slack:
                name = spec.agents[agent].id
                return f"the reward of {name} for candidate {candidate.index} is {here:.6g}, {recorded} is recorded"
    return ""

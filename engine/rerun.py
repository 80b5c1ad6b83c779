"""A model run again along recorded tokens: whether it is the one that a receipt names, and what it says at every token.

Forward passes are not bit-reproducible across batch shapes or machines: TOLERANCE says how near is near enough.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Tensor

from tokenauction.engine.awaiting import assembled
from tokenauction.engine.policy import Policy
from tokenauction.engine.provenance import prompt_hash
from tokenauction.engine.receipt import Line
from tokenauction.engine.report import Report
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.stepping import Standing, shape_one
from tokenauction.models.base import LanguageModel

# Of probabilities, TV, ln Z, and expected payments relative to the bid: float32 forwards differ by 1e-6. Ten times as
# much, relatively, of KL with its payment, and (log_linear, where prices follow from logarithms) of every probability.
TOLERANCE = {"float64": 1e-9, "float32": 1e-4, "bf16": 3e-2, "int8": 3e-2}
_ONLY_ON_ITS_RUNNER = frozenset({"bf16", "int8"})  # where two runners part by more than a tolerance worth the name


def check_provenance(spec: AuctionSpec, header: Line, model: LanguageModel, prompts: Sequence[Sequence[int]]) -> str:
    """What of the model and the prompts is not what a receipt's first line says, or an empty string."""
    hosted = dict(zip(spec.hosted_ids, map(prompt_hash, prompts), strict=True))
    for row_id, recorded in zip(spec.listed_ids, header["prompt_hashes"], strict=True):
        if hosted.get(row_id) != recorded:
            return f"the prompt of {row_id} is another one"
    if model.tokenizer.hash != header["tokenizer_hash"]:
        return "the tokenizer is another one"
    if model.hash != header["model"]["hash"]:
        return "the model is another one: its weights have another hash"
    if header["numerics"] != model.numerics or model.numerics not in TOLERANCE:
        return (
            f"it was computed in {header['numerics']!r}, and the model here computes in {model.numerics!r}; load it "
            "with the numerics whose tolerance you accept"
        )
    if model.numerics in _ONLY_ON_ITS_RUNNER and header["runner"] != model.runner:
        return (
            f"it was computed in {model.numerics} by the runner {header['runner']!r}, which rounds otherwise than "
            f"{model.runner!r}; load the model with that runner"
        )
    return ""


def distributions(
    spec: AuctionSpec, model: LanguageModel, prompts: Sequence[Sequence[int]], policy: Policy, steps: Sequence[Line]
) -> Iterator[Float64[Tensor, "rows vocab"]]:
    """Every row's own distribution in front of each recorded token; nothing is run unless it is asked for."""
    gang = model.admit(prompts, len(steps))
    try:
        with torch.inference_mode():
            logits = model.prefill([gang])
            tokens: list[int] = []
            for line in steps:
                reports = _reports(spec, line)
                rows = assembled(spec, logits, reports, model.tokenizer.vocab_size) if reports is not None else logits
                yield shape_one(Standing(spec, tokens, policy), rows)
                tokens.append(line["token"])
                if len(tokens) < len(steps):
                    logits = model.step([gang], torch.tensor(tokens[-1:], device=model.device))
    finally:
        model.release(gang)


def _reports(spec: AuctionSpec, line: Line) -> dict[str, Report] | None:
    """What agents with models of their own said of a step; None where every model is the platform's."""
    if not spec.own_model_ids:
        return None
    stored = zip(spec.row_ids, line["reports"], strict=True)
    return {row_id: Report.from_mapping(report) for row_id, report in stored if report is not None}

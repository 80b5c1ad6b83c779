"""Verification with the model: run it over the recorded text again, and name the first step that parts.

Forward passes are not bit-reproducible across batch shapes or machines, so probabilities are compared within a stated
tolerance; a different model, prompt or temperature parts far beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tokenauction.engine.policy import Policy
from tokenauction.engine.provenance import prompt_hash
from tokenauction.engine.receipt import Line
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.stepping import Standing, shape_one
from tokenauction.engine.verification import Verdict
from tokenauction.models.base import LanguageModel

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}  # of |p(t) - recorded p(t)|; float32 forwards differ by 1e-6
LOOSE_TOLERANCE = 3e-2  # any other precision


def replay(lines: Sequence[Line], model: LanguageModel, prompts: Sequence[Sequence[int]], policy: Policy) -> Verdict:
    """Run `model` behind `prompts` along the recorded tokens and compare every row's probability of each.

    The receipt itself must have been verified before. Raises the model's errors where a prompt does not fit.
    """
    header, steps = lines[0], list(lines[1:-1])
    spec = AuctionSpec.from_mapping(header["spec"])
    for row_id, recorded, prompt in zip(spec.row_ids, header["prompt_hashes"], prompts, strict=True):
        if prompt_hash(prompt) != recorded:
            return Verdict(False, "model", len(steps), "auction", f"the prompt of {row_id} is another one")
    if model.tokenizer.hash != header["tokenizer_hash"]:
        return Verdict(False, "model", len(steps), "auction", "the tokenizer is another one")
    tolerance = TOLERANCE.get(model.numerics, LOOSE_TOLERANCE)
    gang = model.admit(prompts, len(steps))
    tokens: list[int] = []
    try:
        with torch.inference_mode():
            logits = model.prefill([gang])
            for line in steps:
                rows = shape_one(Standing(spec, tokens, policy), logits)
                for row, recorded in enumerate(line["p"]):
                    p = float(rows[row, line["token"]])
                    if not abs(p - recorded) <= tolerance:
                        problem = f"{spec.row_ids[row]} gives the token {p:.6g}, {recorded:.6g} is recorded"
                        return Verdict(False, "model", len(steps), f"step {line['step']}", problem)
                tokens.append(line["token"])
                if len(tokens) < len(steps):
                    logits = model.step([gang], torch.tensor(tokens[-1:], device=model.device))
    finally:
        model.release(gang)
    return Verdict(True, "model", len(steps))

"""`tokenauction verify`: does a receipt hold, and how deep was it looked into?"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from tokenauction.clients.cli.compose import ModelChoice, policy_for, prompts_for
from tokenauction.clients.cli.output import one_line
from tokenauction.engine.money import from_micros
from tokenauction.engine.receipt import read_receipt
from tokenauction.engine.replay import TOLERANCE, replay
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import verify

EXIT_DOES_NOT_HOLD = 1


def verify_file(path: Path, head: str | None, model: ModelChoice | None) -> None:
    """Print the verdict; exit code 1 if the receipt does not hold, 2 if it cannot be read."""
    lines = read_receipt(path)
    verdict = verify(lines, head=head and head.strip().lower())
    if verdict.holds and model is not None:
        if model.runner == "auto" and model.numerics in ("bf16", "int8"):  # which runners round in ways of their own
            model = replace(model, runner=str(lines[0]["runner"]))
        loaded = model.load(max_rows=max(64, len(lines[0]["rows"])))
        spec = AuctionSpec.from_mapping(lines[0]["spec"])
        verdict = replay(lines, loaded, prompts_for(spec, loaded.tokenizer), policy_for(spec, loaded.tokenizer))
    print(one_line(f"{path}: {verdict}"))
    if not verdict.holds:
        sys.exit(EXIT_DOES_NOT_HOLD)
    total = from_micros(sum(lines[-1]["totals_micros"]))
    if verdict.level == "model":
        numerics = lines[0]["numerics"]
        print(f"the model's numbers compared within {TOLERANCE[numerics]:g} ({numerics})")
    settlement = lines[-1]
    posted = "posted" if settlement["posted"] else "not posted: nothing is charged"
    print(f"finished by {settlement['finish_reason']}, {posted}")
    if settlement["voids"]:
        print(f"the guarantee is void: {', '.join(settlement['voids'])}")
    print(f"total {total} {lines[0]['spec']['currency']}; head {settlement['hash']}")

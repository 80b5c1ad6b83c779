"""`tokenauction verify`: does a receipt hold, and how deep was it looked into?"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from tokenauction.clients.cli.compose import ModelChoice, policy_for, prompts_for
from tokenauction.clients.cli.output import one_line
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.money import from_micros
from tokenauction.engine.receipt import Line, parse_receipt, read_receipt
from tokenauction.engine.replay import replay
from tokenauction.engine.rerun import TOLERANCE
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.verification import verify

EXIT_DOES_NOT_HOLD = 1


@dataclass(frozen=True)
class Source:
    """Where a receipt is: a file, or an auction of a server or of a ledger."""

    name: str
    url: str | None = None
    ledger: str | None = None

    def read(self) -> tuple[list[Line], str | None]:
        """Its lines, and the head that must be theirs where the source knows it."""
        if self.url is not None and self.ledger is not None:
            raise InvalidInput("--url and --db are two places; choose one")
        if self.url is not None:
            from tokenauction.clients.cli.remote import fetch_receipt  # with what only those need that ask a server

            rows = fetch_receipt(self.url, self.name).split("\n")  # `splitlines` would part a text at U+2028, too
            return parse_receipt([row for row in rows if row]), None
        if self.ledger is not None:
            from tokenauction.clients.cli.ledger import receipt_of

            return receipt_of(self.ledger, self.name)
        return read_receipt(Path(self.name)), None


def verify_receipt(source: Source, head: str | None, model: ModelChoice | None) -> None:
    """Print the verdict; exit code 1 if the receipt does not hold, 2 if it cannot be read."""
    lines, known_head = source.read()
    path = source.name
    head = known_head if head is None else head
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

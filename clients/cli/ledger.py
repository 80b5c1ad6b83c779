"""`tokenauction ledger …` and `token …`: reading a ledger, bringing money in, making tokens, on its own machine."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from tokenauction.clients.cli.output import check_target, one_line
from tokenauction.engine.errors import InvalidInput
from tokenauction.engine.money import from_micros, to_micros
from tokenauction.engine.receipt import Line
from tokenauction.server.auth import SCOPES
from tokenauction.server.ledger import Ledger, LedgerError

PAGE = 1_000


def balances(url: str) -> None:
    """What every account has; together nothing."""
    _visit(url, _balances)


def entries(url: str, account_id: str | None) -> None:
    """Every entry, of one account or of all, a line of JSON each."""
    _visit(url, lambda ledger: _entries(ledger, account_id, print))


def export(url: str, path: Path) -> None:
    """Every entry of the ledger into a file, a line of JSON each."""
    check_target("--output", path)
    lines: list[str] = []
    _visit(url, lambda ledger: _entries(ledger, None, lines.append))
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{len(lines)} entries: {path}")


def audit(url: str) -> bool:
    """Whether everything in the ledger follows from its entries; says what does not."""
    found: list[str] = []

    async def look(ledger: Ledger) -> None:
        found.extend(await ledger.audit())

    _visit(url, look)
    for line in found:
        print(one_line(line))
    if not found:
        print("in order: every transfer sums to zero, every chain holds")
    return not found


def deposit(url: str, account_id: str, amount: str, reference: str | None) -> None:
    """Bring money in; the same reference counts once."""
    micros = to_micros(amount, "AMOUNT")
    known = reference or f"cli/{uuid.uuid4().hex}"

    async def bring(ledger: Ledger) -> None:
        is_new = await ledger.deposit(account_id, micros, known)
        account = await ledger.account(account_id)
        assert account is not None, "an account exists behind its first deposit"
        print(
            one_line(f"{account_id}: {from_micros(account.balance_micros)}{'' if is_new else ' (it had come before)'}")
        )

    _visit(url, bring)


def create_token(url: str, scopes: list[str], agent_id: str | None, days: float | None) -> None:
    """A new access token; its secret is printed once and kept nowhere."""
    if unknown := sorted(set(scopes) - SCOPES):
        raise InvalidInput(f"--scope is {unknown[0]!r}; choose of {', '.join(sorted(SCOPES))}")
    expires = None if days is None else time.time() + days * 86_400

    async def make(ledger: Ledger) -> None:
        token_id, secret = await ledger.create_token(scopes, agent_id, expires)
        print(json.dumps({"token_id": token_id, "secret": secret}))

    _visit(url, make)


def list_tokens(url: str) -> None:
    """Every token, the newest first, a line of JSON each."""

    async def look(ledger: Ledger) -> None:
        now = time.time()
        for token in await ledger.tokens():
            is_over = token.expires is not None and token.expires <= now
            state = "revoked" if token.revoked_at is not None else "expired" if is_over else "good"
            print(json.dumps({**dataclasses.asdict(token), "state": state}))

    _visit(url, look)


def rotate_token(url: str, token_id: str) -> None:
    """Another token in the place of one; its secret is printed once and kept nowhere."""

    async def replace(ledger: Ledger) -> None:
        new_id, secret = await ledger.rotate_token(token_id)
        print(json.dumps({"token_id": new_id, "secret": secret}))

    _visit(url, replace)


def revoke_token(url: str, token_id: str) -> None:
    """From now on the token is nobody's."""

    async def end(ledger: Ledger) -> None:
        await ledger.revoke_token(token_id)
        print(one_line(f"{token_id}: revoked"))

    _visit(url, end)


def receipt_of(url: str, auction_id: str) -> tuple[list[Line], str | None]:
    """The lines of an auction's receipt, and the head that was settled; InvalidInput where there is none."""
    lines: list[Line] = []
    heads: list[str | None] = []

    async def read(ledger: Ledger) -> None:
        record = await ledger.auction(auction_id)
        heads.append(None if record is None else record.head)
        lines.extend([event["line"] async for event in ledger.events(auction_id) if "line" in event])

    _visit(url, read)
    if not lines:
        raise InvalidInput(f"the ledger has no receipt of {auction_id!r}")
    return lines, heads[0]


async def _balances(ledger: Ledger) -> None:
    after, total = "", 0
    while found := await ledger.balances(after, PAGE):
        for account_id, micros in found.items():
            print(one_line(f"{account_id}\t{'-' if micros < 0 else ''}{from_micros(abs(micros))}"))
            total += micros
        after = max(found)
    print(f"sum\t{from_micros(total)}")


async def _entries(ledger: Ledger, account_id: str | None, write: Callable[[str], Any]) -> None:
    after = 0
    while found := await ledger.entries(account_id, after, PAGE):
        for entry in found:
            write(json.dumps(dataclasses.asdict(entry)))
        after = found[-1].entry_id


def _visit(url: str, work: Callable[[Ledger], Awaitable[None]]) -> None:
    """Do something with a ledger, beside its server where one runs."""

    async def visit() -> None:
        try:
            ledger = await Ledger.open(url, is_visit=True)
        except LedgerError as error:
            if error.code != "no_ledger":
                raise
            ledger = await Ledger.open(url)  # before its first server
        try:
            await work(ledger)
        finally:
            await ledger.close()

    asyncio.run(visit())

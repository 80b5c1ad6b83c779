"""Play money: every account begins with so much, on a server that was told so. It must not know auctions."""

from __future__ import annotations

from collections.abc import Iterable

from tokenauction.server.ledger import Ledger

MAX_REMEMBERED = 10_000  # accounts that are known to have had it; the ledger knows the rest


class PlayMoney:
    """Gives it, once an account."""

    def __init__(self, ledger: Ledger, micros: int) -> None:
        """`micros` is what an account begins with; 0 gives nothing."""
        self.ledger = ledger
        self.micros = micros
        self._had: set[str] = set()

    async def give(self, account_ids: Iterable[str]) -> None:
        """To those that have not had it; raises the ledger's errors for what is no account."""
        for account_id in account_ids:
            if not self.micros or account_id in self._had:
                continue
            if await self.ledger.account(account_id) is None:
                await self.ledger.deposit(account_id, self.micros, f"play money/{account_id}"[:256])
            if len(self._had) < MAX_REMEMBERED:
                self._had.add(account_id)

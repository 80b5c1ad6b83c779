"""The money side of the end of an auction; doing it twice posts once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenauction.server.ledger import Ledger


async def post(ledger: Ledger, auction_id: str, settled: Mapping[str, Any]) -> None:
    """Post what an `auction.settled` event says is owed and give back the rest, or all where it posts nothing."""
    if settled["posted"]:
        totals = {agent["id"]: agent["total_micros"] for agent in settled["agents"] if agent["total_micros"]}
        await ledger.settle(auction_id, totals, settled["receipt_head"])
    else:
        await ledger.void(auction_id, settled["finish_reason"])

"""The database under the ledger: its lock, its durability, its versions; and the commits that many writers share."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, event, text
from tests.server.places import Place

from tokenauction.server.group_commit import ENOUGH_JOBS, MAX_WAITING
from tokenauction.server.ledger import Ledger, LedgerError
from tokenauction.server.ledger_url import open_database
from tokenauction.server.postgres_lease import LEASES
from tokenauction.server.sqlite_database import check_durable
from tokenauction.server.tables import METADATA


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


async def refusal(awaitable: Awaitable[Any]) -> tuple[str, str]:
    with pytest.raises(LedgerError) as caught:
        await awaitable
    assert "\n" not in str(caught.value)
    return caught.value.code, str(caught.value)


# --- Opening ------------------------------------------------------------------------------------------------------


async def test_second_server_is_kept_away_until_the_first_has_closed(place: Place) -> None:
    ledger = await Ledger.open(place.url)
    code, message = await refusal(Ledger.open(place.url))
    assert code == "locked" and "in use by" in message and f"{os.getpid()}" in message
    await ledger.close()
    await (await Ledger.open(place.url)).close()


async def test_visit_reads_and_deposits_beside_a_server_and_leaves_auctions_alone(place: Place) -> None:
    ledger = await Ledger.open(place.url)
    visit = await Ledger.open(place.url, is_visit=True)
    await asyncio.gather(
        *(one.deposit("palm", 1, f"{name} {n}") for one, name in ((ledger, "a"), (visit, "b")) for n in range(20))
    )
    _, secret = await visit.create_token(["admin"])
    assert await ledger.check_token(secret) is not None
    assert (await visit.balances())["palm"] == 40
    assert (await refusal(visit.create_auction("text", {}, {}, None, "", "")))[0] == "visiting"
    with pytest.raises(LedgerError, match="server's alone"):
        visit.append("text", 1, 0, {})
    assert await visit.audit() == []
    await visit.close()
    await ledger.close()


async def test_visit_makes_no_ledger(path: Path) -> None:
    assert (await refusal(Ledger.open(url_of(path), is_visit=True)))[0] == "no_ledger"
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "mysql://localhost/ledger",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///ledger.db?mode=memory",
        "://",
    ],
)
async def test_ledger_of_sqlite_is_a_file(url: str) -> None:
    assert (await refusal(Ledger.open(url)))[0] == "unusable_database"


async def test_what_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"not a database, whatever else it is" * 100)
    assert (await refusal(Ledger.open(url_of(path))))[0] == "unusable_database"
    assert path.read_bytes().startswith(b"not a database")
    assert (await refusal(Ledger.open(url_of(path.parent / "no folder" / "ledger.db"))))[0] == "unusable_database"


async def test_ledger_of_a_later_version_is_refused(place: Place) -> None:
    await (await Ledger.open(place.url)).close()
    await place.execute("UPDATE alembic_version SET version_num = '9999'")
    for is_visit in (False, True):
        code, message = await refusal(Ledger.open(place.url, is_visit=is_visit))
        assert code == "unusable_database" and "9999" in message


async def test_durability_is_checked_and_not_assumed(path: Path) -> None:
    database = await open_database(url_of(path), is_visit=False, synchronous="NORMAL")
    with pytest.raises(LedgerError, match="not durable: journal_mode=wal, synchronous=1"):
        await database.read(partial(check_durable, synchronous="FULL"))
    await database.close()


async def test_migrations_make_the_tables_of_this_version(place: Place) -> None:
    database = await open_database(place.url, is_visit=False, synchronous="FULL")

    def differences(connection: Connection) -> list[Any]:
        known = [METADATA] if place.kind == "sqlite" else [METADATA, LEASES]
        return list(compare_metadata(MigrationContext.configure(connection), known))

    assert await database.read(differences) == []
    await database.close()


async def test_readers_cannot_write(place: Place) -> None:
    database = await open_database(place.url, is_visit=False, synchronous="FULL")
    with pytest.raises(Exception, match=r"read-?only"):
        await database.read(lambda c: c.execute(text("INSERT INTO accounts VALUES ('palm', 0)")))
    await database.close()


# --- Commits ------------------------------------------------------------------------------------------------------


def counted(ledger: Ledger, what: str) -> list[None]:
    """One item for each commit, or rollback, from now on."""
    found: list[None] = []
    event.listen(ledger._database.writer, what, lambda connection: found.append(None))
    return found


async def started(place: Place) -> Ledger:
    ledger = await Ledger.open(place.url)
    await ledger.create_auction("text", {}, {"palm": 0}, None, "asked", "sealed")
    return ledger


def token(seq: int) -> dict[str, Any]:
    return {"type": "auction.token", "seq": seq}


async def test_many_tokens_share_a_commit(place: Place) -> None:
    ledger = await started(place)
    commits = counted(ledger, "commit")
    told = [ledger.append("text", 1, seq, token(seq)) for seq in range(ENOUGH_JOBS)]
    assert await asyncio.gather(*told) == list(range(ENOUGH_JOBS))
    assert len(commits) == 1
    await ledger.close()


async def test_one_token_is_durable_without_company(place: Place) -> None:
    ledger = await started(place)
    assert await ledger.append("text", 1, 0, token(0)) == 0
    assert await ledger.last_event("text") == token(0)
    await ledger.close()


async def test_whoever_waits_brings_along_what_was_queued_before(place: Place) -> None:
    ledger = await started(place)
    commits = counted(ledger, "commit")
    told = ledger.append("text", 1, 0, token(0))
    await ledger.accept_bid("text", "palm", 5)
    assert told.done() and len(commits) == 1
    await ledger.close()


async def test_refusal_spoils_nothing_that_shares_its_commit(place: Place) -> None:
    ledger = await started(place)
    commits = counted(ledger, "commit")
    calls: list[Callable[[], Awaitable[Any]]] = [
        partial(ledger.accept_bid, "text", "palm", 5, "b1"),
        partial(ledger.accept_bid, "text", "reef", 5, "b1"),
        partial(ledger.settle, "text", {"palm": 3}, "head"),
        partial(ledger.deposit, "palm", 9, "wire 1"),
    ]
    outcomes = await asyncio.gather(*(call() for call in calls), return_exceptions=True)
    codes = [outcome.code if isinstance(outcome, LedgerError) else outcome for outcome in outcomes]
    assert codes == [True, "no_hold", "totals_differ", True]
    assert len(commits) == 1
    assert await ledger.bids("text") == {"palm": 5}
    await ledger.close()


async def test_closing_writes_what_waits_and_takes_nothing_more(place: Place) -> None:
    ledger = await started(place)
    told = ledger.append("text", 1, 0, token(0))
    await ledger.close()
    assert await told == 0
    assert (await refusal(ledger.deposit("palm", 1, "late")))[0] == "closed"
    ledger = await Ledger.open(place.url)
    assert await ledger.last_event("text") == token(0)
    await ledger.close()


async def test_caller_that_gives_up_disturbs_nobody(place: Place) -> None:
    ledger = await started(place)
    given_up = ledger.append("text", 1, 0, token(0))
    given_up.cancel()
    assert await ledger.append("text", 1, 1, token(1)) == 1
    await ledger.close()


async def test_failure_of_the_disk_is_told_to_all_and_nothing_is_acknowledged_behind_it(place: Place) -> None:
    ledger = await started(place)

    @event.listens_for(ledger._database.writer, "commit")
    def fail(_: Connection) -> None:
        raise OSError("no space left on device")

    waiting = [ledger.append("text", 1, seq, token(seq)) for seq in range(3)]
    outcomes = await asyncio.gather(*waiting, ledger.deposit("palm", 1, "wire 1"), return_exceptions=True)
    assert [outcome.code for outcome in outcomes if isinstance(outcome, LedgerError)] == ["failed"] * 4
    code, message = await refusal(ledger.deposit("palm", 1, "wire 1"))
    assert code == "failed" and "no space left" in message
    await ledger.close()
    ledger = await Ledger.open(place.url)
    assert await ledger.last_event("text") is None
    assert await ledger.audit() == []
    await ledger.close()


@pytest.mark.slow
async def test_queue_has_a_limit(place: Place) -> None:
    ledger = await started(place)
    told = [ledger.append("text", 1, seq, token(seq)) for seq in range(MAX_WAITING)]
    assert (await refusal(ledger.append("text", 1, MAX_WAITING, token(MAX_WAITING))))[0] == "capacity"
    assert await told[-1] == MAX_WAITING - 1
    await ledger.close()

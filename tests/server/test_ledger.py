"""The ledger: money, auctions, events and tokens, as one caller sees them; what it refuses, and what it survives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError, IntegrityError
from tests.server.places import Place, SqlitePlace

from tokenauction.server.ledger import Created, Ledger, LedgerError, Replayed

NOW = 1_000.0
BRIEF = {"name": "Palm"}


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def opened(place: Place, **options: Any) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(place.url, **options)
    try:
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
async def ledger(place: Place) -> AsyncIterator[Ledger]:
    async with opened(place, clock=Clock()) as ledger:
        yield ledger


async def create(ledger: Ledger, name: str = "text", key: str | None = None, **holds: int) -> Created | Replayed:
    return await ledger.create_auction(name, {"seed": "17"}, holds, key, f"hash of {sorted(holds.items())}", "sealed")


def repr_of_type(value: object) -> str:
    return type(value).__name__


async def refusal(awaitable: Any) -> str:
    with pytest.raises(LedgerError) as caught:
        await awaitable
    assert "\n" not in str(caught.value)
    return caught.value.code


async def tell(ledger: Ledger, name: str, *charges: dict[str, int], epoch: int = 1) -> None:
    """Append tokens that charge so much, behind what is there."""
    last = await ledger.last_event(name)
    first = 0 if last is None else last["seq"] + 1
    events = [{"type": "auction.token", "seq": seq, "epoch": epoch} for seq in range(first, first + len(charges))]
    rows = zip(events, charges, strict=True)
    await asyncio.gather(*(ledger.append(name, epoch, event["seq"], event, charge) for event, charge in rows))


# --- Money --------------------------------------------------------------------------------------------------------


async def test_settlement_moves_what_was_charged_and_gives_back_the_rest(ledger: Ledger) -> None:
    await ledger.deposit("palm", 1_000, "wire 1")
    await ledger.deposit("reef", 500, "wire 2")
    await create(ledger, palm=700, reef=500)
    assert await ledger.balances() == {"@held": 1_200, "@house": 0, "@outside": -1_500, "palm": 300, "reef": 0}
    await tell(ledger, "text", {"palm": 90, "reef": 0}, {"palm": 10})
    await ledger.settle("text", {"palm": 100}, "head")
    assert await ledger.balances() == {"@held": 0, "@house": 100, "@outside": -1_500, "palm": 900, "reef": 500}
    assert await ledger.audit() == []


async def test_entries_name_what_they_are_for(ledger: Ledger) -> None:
    await ledger.deposit("palm", 50, "wire 1")
    await create(ledger, palm=50)
    await tell(ledger, "text", {"palm": 20})
    await ledger.settle("text", {"palm": 20}, "head")
    entries = await ledger.entries("palm")
    found = [(entry.kind, entry.micros, entry.balance_micros, entry.auction_id, entry.reference) for entry in entries]
    assert found == [
        ("deposit", 50, 50, None, "wire 1"),
        ("hold", -50, 0, "text", None),
        ("release", 30, 30, "text", None),
    ]
    assert [entry.micros for entry in await ledger.entries("@house")] == [20]
    assert [entry.entry_id for entry in await ledger.entries(after=entries[1].entry_id)] == [4, 5, 6, 7, 8]


async def test_account_says_what_open_auctions_hold_of_it(ledger: Ledger) -> None:
    await ledger.deposit("palm", 1_000, "wire 1")
    await create(ledger, "one", palm=300)
    await create(ledger, "two", palm=200)
    await ledger.void("one", "cancelled")
    account = await ledger.account("palm")
    assert account is not None and (account.balance_micros, account.held_micros) == (800, 200)
    assert await ledger.account("nobody") is None


async def test_deposit_counts_once_per_reference(ledger: Ledger) -> None:
    assert await ledger.deposit("palm", 5, "wire 1")
    assert not await ledger.deposit("palm", 5, "wire 1")
    assert await refusal(ledger.deposit("palm", 6, "wire 1")) == "idempotency_conflict"
    assert await refusal(ledger.deposit("reef", 5, "wire 1")) == "idempotency_conflict"
    assert (await ledger.balances())["palm"] == 5


@pytest.mark.parametrize("micros", [-1, 0, 10**15 + 1, 10**5000, 1.0, True, "5", None], ids=repr_of_type)
async def test_deposit_takes_whole_micros_alone(ledger: Ledger, micros: Any) -> None:
    assert await refusal(ledger.deposit("palm", micros, "wire 1")) == "invalid_amount"


@pytest.mark.parametrize("account", ["", "@house", "@held", "a\0b", "\ud800", "a" * 257])
async def test_account_has_an_id_that_every_database_takes(ledger: Ledger, account: str) -> None:
    assert await refusal(ledger.deposit(account, 1, "wire 1")) == "invalid_id"
    assert await refusal(create(ledger, **{account: 0})) == "invalid_id"


@pytest.mark.parametrize("auction", ["", "@house", "a\0b", "\ud800", "a" * 257, 7])
async def test_auction_has_an_id_that_every_database_takes(ledger: Ledger, auction: Any) -> None:
    assert await refusal(create(ledger, auction)) == "invalid_id"
    assert await refusal(ledger.join(auction, "palm", 1, 5, BRIEF)) == "invalid_id"
    assert await refusal(ledger.accept_bid(auction, "palm", 1)) == "invalid_id"
    assert await refusal(ledger.settle(auction, {}, "head")) == "invalid_id"
    assert await refusal(ledger.void(auction, "cancelled")) == "invalid_id"
    with pytest.raises(LedgerError, match="auction_id must be"):
        ledger.append(auction, 1, 0, {})
    assert await ledger.auction(auction) is None
    assert [event async for event in ledger.events(auction)] == []


async def test_answers_have_a_limit(ledger: Ledger) -> None:
    for number in range(3):
        await ledger.deposit(f"agent {number}", 1, f"wire {number}")
    assert list(await ledger.balances("agent 0", 1)) == ["agent 1"]
    assert await ledger.entries(limit=-1) == []
    assert len(await ledger.entries(limit=10**30)) == 6


async def test_largest_amounts_stay_exact(ledger: Ledger) -> None:
    for number in range(20):
        await ledger.deposit("palm", 10**15, f"wire {number}")
    assert (await ledger.balances())["palm"] == 20 * 10**15
    assert await ledger.audit() == []


# --- Holds --------------------------------------------------------------------------------------------------------


async def test_creation_without_funds_leaves_nothing(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    assert await refusal(create(ledger, key="k", palm=100, reef=1)) == "insufficient_funds"
    assert await ledger.auctions() == []
    assert (await ledger.balances())["palm"] == 100
    assert await create(ledger, key="k", palm=100) == Created("text")


async def test_agent_that_joins_later_is_held_as_much_as_it_declares(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger)
    await ledger.join("text", "palm", 40, 5, BRIEF)
    await ledger.join("text", "palm", 40, 5, BRIEF)
    await ledger.join("text", "palm", 30, 5, BRIEF)
    assert await ledger.holds("text") == {"palm": 40}
    await ledger.join("text", "palm", 100, 5, BRIEF)
    assert await ledger.holds("text") == {"palm": 100}
    assert await refusal(ledger.join("text", "palm", 101, 5, BRIEF)) == "insufficient_funds"
    await ledger.void("text", "cancelled")
    assert (await ledger.balances())["palm"] == 100


async def test_joinings_are_kept_in_order_with_their_bids_and_leavings(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger)
    await ledger.join("text", "palm", 40, 7, {"name": "Palm"})
    assert await ledger.bids("text") == {"palm": 7}
    await ledger.leave("text", "palm")
    await ledger.join("text", "palm", 30, 8, {"name": "Palm", "bid": "0.1"})
    assert await refusal(ledger.join("text", "palm", 101, 9, BRIEF)) == "insufficient_funds"
    assert await refusal(ledger.join("text", "palm", 30, -1, BRIEF)) == "invalid_amount"
    assert await refusal(ledger.leave("nothing", "palm")) == "no_auction"
    joined = [("palm", {"name": "Palm"}), ("palm", None), ("palm", {"name": "Palm", "bid": "0.1"})]
    assert await ledger.joins("text") == joined
    assert (await ledger.bids("text"), await ledger.holds("text")) == ({"palm": 8}, {"palm": 40})
    assert (await ledger.balances())["palm"] == 60
    await ledger.void("text", "cancelled")
    assert await refusal(ledger.leave("text", "palm")) == "not_open"
    assert await ledger.joins("text") == joined and await ledger.audit() == []


async def test_nobody_owes_more_than_is_held(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger, palm=10)
    await tell(ledger, "text", {"palm": 10})
    assert await refusal(tell(ledger, "text", {"palm": 1})) == "hold_exceeded"
    assert await refusal(tell(ledger, "text", {"reef": 1})) == "hold_exceeded"
    await ledger.join("text", "palm", 11, 5, BRIEF)
    await tell(ledger, "text", {"palm": 1})
    assert await ledger.audit() == []


# --- What comes twice ---------------------------------------------------------------------------------------------


async def test_key_makes_one_auction(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    assert await create(ledger, "first", key="k", palm=60) == Created("first")
    assert await create(ledger, "second", key="k", palm=60) == Replayed("first")
    assert await refusal(create(ledger, "second", key="k", palm=1)) == "idempotency_conflict"
    assert await refusal(create(ledger, "first", palm=1)) == "auction_exists"
    assert [record.auction_id for record in await ledger.auctions()] == ["first"]


async def test_requests_with_one_key_at_the_same_time_make_one_auction(ledger: Ledger) -> None:
    made = await asyncio.gather(*(create(ledger, f"text {number}", key="k") for number in range(50)))
    assert [outcome for outcome in made if isinstance(outcome, Created)] == [Created("text 0")]
    assert {outcome.auction_id for outcome in made} == {"text 0"}


async def test_bid_with_an_id_is_accepted_once(ledger: Ledger) -> None:
    await create(ledger, palm=0, reef=0)
    assert await ledger.accept_bid("text", "palm", 5, "b1")
    assert await ledger.accept_bid("text", "palm", 7)
    assert not await ledger.accept_bid("text", "palm", 5, "b1")
    assert await refusal(ledger.accept_bid("text", "palm", 6, "b1")) == "idempotency_conflict"
    assert await ledger.accept_bid("text", "reef", 6, "b1")
    assert await ledger.bids("text") == {"palm": 7, "reef": 6}


async def test_bid_needs_a_hold_and_an_open_auction(ledger: Ledger) -> None:
    await create(ledger, palm=0)
    assert await refusal(ledger.accept_bid("text", "reef", 5)) == "no_hold"
    assert await refusal(ledger.accept_bid("other", "palm", 5)) == "no_auction"
    assert await refusal(ledger.accept_bid("text", "palm", -5)) == "invalid_amount"
    await ledger.void("text", "cancelled")
    assert await refusal(ledger.accept_bid("text", "palm", 5)) == "not_open"


async def test_settlement_posts_once(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger, palm=100)
    await tell(ledger, "text", {"palm": 30})
    await ledger.settle("text", {"palm": 30}, "head")
    await ledger.settle("text", {"palm": 30, "reef": 0}, "head")
    assert await refusal(ledger.settle("text", {"palm": 31}, "head")) == "settlement_conflict"
    assert await refusal(ledger.settle("text", {"palm": 30}, "tail")) == "settlement_conflict"
    assert await refusal(ledger.void("text", "late")) == "not_open"
    assert (await ledger.balances())["@house"] == 30


async def test_settlement_is_what_the_events_charged(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger, palm=100)
    await tell(ledger, "text", {"palm": 30})
    for totals in ({}, {"palm": 29}, {"palm": 30, "reef": 1}):
        assert await refusal(ledger.settle("text", totals, "head")) == "totals_differ"
    assert await refusal(ledger.settle("other", {}, "head")) == "no_auction"


async def test_void_gives_everything_back_once(ledger: Ledger) -> None:
    await ledger.deposit("palm", 100, "wire 1")
    await create(ledger, palm=100)
    await tell(ledger, "text", {"palm": 30})
    await ledger.void("text", "failed")
    await ledger.void("text", "again")
    assert (await ledger.balances())["palm"] == 100
    record = await ledger.auction("text")
    assert record is not None and (record.state, record.reason, record.head) == ("void", "failed", None)
    assert await refusal(ledger.settle("text", {}, "head")) == "not_open"
    assert await refusal(ledger.append("text", 1, 1, {})) == "not_open"
    assert await refusal(ledger.join("text", "palm", 1, 5, BRIEF)) == "not_open"
    assert await ledger.audit() == []


# --- Events -------------------------------------------------------------------------------------------------------


async def test_events_come_back_as_they_went_in(ledger: Ledger) -> None:
    event = {
        "type": "auction.token",
        "text": "Haleʻiwa 🌺 \0 \ud83c",
        "q": 0.1,
        "line": {"p": [1e-300, -0.0], "none": None},
    }
    await create(ledger)
    assert await ledger.append("text", 1, 0, event) == 0
    assert [found async for found in ledger.events("text")] == [event]
    assert await ledger.last_event("text") == event


async def test_events_are_read_behind_a_seq_of_an_epoch_or_of_a_type(ledger: Ledger) -> None:
    await create(ledger)
    await tell(ledger, "text", *({} for _ in range(150)))
    await ledger.append("text", 2, 150, {"type": "stream.reset", "seq": 150})
    await tell(ledger, "text", {}, epoch=2)
    assert [event["seq"] async for event in ledger.events("text", 9)] == list(range(10, 152))
    assert [event["seq"] async for event in ledger.events("text", epoch=2)] == [150, 151]
    assert [event["seq"] async for event in ledger.events("text", kind="stream.reset")] == [150]
    assert [event async for event in ledger.events("other")] == []


async def test_events_are_dense_and_epochs_do_not_go_back(ledger: Ledger) -> None:
    await create(ledger)
    await tell(ledger, "text", {}, {})
    for epoch, seq in ((1, 1), (1, 3), (0, 2), (1, -1)):
        assert await refusal(ledger.append("text", epoch, seq, {})) == "out_of_order"
    assert await refusal(ledger.append("other", 1, 0, {})) == "no_auction"
    assert await ledger.append("text", 1, 2, {}) == 2


async def test_event_that_is_no_json_is_the_callers_fault(ledger: Ledger) -> None:
    await create(ledger)
    with pytest.raises(ValueError, match="JSON"):
        ledger.append("text", 1, 0, {"q": float("nan")})
    with pytest.raises(TypeError, match="JSON"):
        ledger.append("text", 1, 0, {"q": object()})
    assert await ledger.append("text", 1, 0, {}) == 0


async def test_chain_of_the_last_event_ends_the_auction(ledger: Ledger) -> None:
    await create(ledger, "one")
    await create(ledger, "two")
    for name in ("one", "two"):
        await tell(ledger, name, {}, {})
        await ledger.settle(name, {}, "head")
    one, two = await ledger.auctions()
    assert one.chain and two.chain and one.chain != two.chain


async def test_auctions_are_listed_in_the_order_of_their_creation(ledger: Ledger) -> None:
    for name in ("c", "a", "b"):
        await create(ledger, name)
    await ledger.void("a", "cancelled")
    assert [record.auction_id for record in await ledger.auctions(2)] == ["c", "a"]
    assert [record.auction_id for record in await ledger.auctions(2, "a")] == ["b"]
    assert [record.auction_id for record in await ledger.auctions(2, newest=True)] == ["b", "a"]
    assert [record.auction_id for record in await ledger.auctions(2, "a", newest=True)] == ["c"]
    assert [(record.auction_id, record.spec) for record in await ledger.open_auctions()] == [
        ("c", {"seed": "17"}),
        ("b", {"seed": "17"}),
    ]


# --- What the database refuses by itself --------------------------------------------------------------------------


REPLACE = {
    "sqlite": "INSERT OR REPLACE INTO entries VALUES (1, 1, 'palm', 7, 7)",
    "postgresql": "INSERT INTO entries VALUES (1, 9, 'palm', 7, 57) ON CONFLICT (entry_id) DO UPDATE SET micros = 7",
}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET micros = 1",
        "DELETE FROM entries",
        "REPLACE entries",
        "INSERT INTO entries VALUES (99, 1, 'palm', 7, 57)",
        "INSERT INTO entries VALUES (99, 99, 'palm', 7, 7)",
        "INSERT INTO entries VALUES (99, 99, 'palm', 7, 57)",
        "INSERT INTO entries VALUES (99, 99, 'palm', 'seven', 57)",
        "INSERT INTO transfers VALUES (99, 'gift', NULL, NULL, NULL, 0)",
        "UPDATE transfers SET kind = 'gift'",
        "DELETE FROM accounts",
        "UPDATE bids SET bid_micros = 1",
        "DELETE FROM holds",
        "UPDATE events SET body = '{}'",
        "DELETE FROM events",
        "INSERT INTO events VALUES ('text', 5, 1, '', '{}', '{}', '')",
        "DELETE FROM auctions",
        "UPDATE auctions SET document = '{}'",
        "UPDATE auctions SET state = 'open'",
        "UPDATE auctions SET state = 'lost'",
        "DELETE FROM idempotency_keys",
    ],
)
async def test_database_refuses_to_change_what_was(place: Place, statement: str) -> None:
    async with opened(place) as ledger:
        await ledger.deposit("palm", 50, "wire 1")
        await create(ledger, key="k", palm=0)
        await ledger.accept_bid("text", "palm", 3)
        await tell(ledger, "text", {})
        await ledger.settle("text", {}, "head")
        statement = REPLACE[place.kind] if statement == "REPLACE entries" else statement
        with pytest.raises(DBAPIError) as caught:
            await ledger._database.write(lambda connection: connection.exec_driver_sql(statement))
        is_no_number = getattr(caught.value.orig, "sqlstate", "") == "22P02"  # to SQLite that is integrity, too
        assert isinstance(caught.value, IntegrityError) or is_no_number
        assert await ledger.audit() == []


# --- Audits -------------------------------------------------------------------------------------------------------

TAMPERED = {
    "UPDATE entries SET micros = 60 WHERE entry_id = 2": "transfer 1 sums to 10",
    "UPDATE entries SET balance_micros = 60 WHERE entry_id = 2": "entry 2 says 60",
    "DELETE FROM transfers WHERE transfer_id = 1": "no transfer",
    "UPDATE events SET body = '{}' WHERE seq = 0": "event 0 is not what was hashed",
    "UPDATE events SET charges = '{\"palm\":9}' WHERE seq = 0": "event 0 is not what was hashed",
    "DELETE FROM events WHERE seq = 1": "its last event is not the one",
    "DELETE FROM events WHERE seq = 0": "event 1 of epoch 1 stands where 0",
    "UPDATE holds SET micros = 1": "owes 5 micros; 1 were held",
    "UPDATE auctions SET state = 'void'": "were posted",
    "UPDATE auctions SET state = 'open'": "open auctions hold 20",
}


@pytest.mark.parametrize(("statement", "said"), TAMPERED.items())
async def test_audit_finds_what_was_tampered_with(place: Place, statement: str, said: str) -> None:
    async with opened(place) as ledger:
        await ledger.deposit("palm", 50, "wire 1")
        await create(ledger, palm=20)
        await tell(ledger, "text", {"palm": 4}, {"palm": 1})
        await ledger.settle("text", {"palm": 5}, "head")
        assert await ledger.audit() == []
    await place.tamper(statement)
    async with opened(place) as ledger:
        assert any(said in fault for fault in await ledger.audit()), await ledger.audit()


# --- Access tokens ------------------------------------------------------------------------------------------------


async def test_token_is_known_by_its_secret_until_it_expires(place: Place) -> None:
    clock = Clock()
    async with opened(place, clock=clock) as ledger:
        token_id, secret = await ledger.create_token(["watch", "bid"], "palm", NOW + 60)
        token = await ledger.check_token(secret)
        assert token is not None
        assert (token.token_id, token.scopes, token.agent_id, token.expires) == (
            token_id,
            ("bid", "watch"),
            "palm",
            1060,
        )
        assert await ledger.check_token(secret + "x") is None
        assert await ledger.check_token("\ud800") is None
        clock.now += 60
        assert await ledger.check_token(secret) is None
        assert await refusal(ledger.rotate_token(token_id)) == "no_token"


def contents_of(folder: Path) -> Iterator[bytes]:
    """What is in every file that is still there when it is its turn."""
    for file in folder.rglob("*"):
        with suppress(FileNotFoundError):
            if file.is_file():
                yield file.read_bytes()


async def test_secret_is_nowhere_on_the_disk(place: Place) -> None:
    async with opened(place) as ledger:
        _, secret = await ledger.create_token(["admin"])
        folder = place.path.parent if isinstance(place, SqlitePlace) else place.server.folder
        contents = list(contents_of(folder))
        assert any(b"admin" in content for content in contents)
        assert not any(secret.encode() in content for content in contents)


async def test_rotation_replaces_a_token(ledger: Ledger) -> None:
    old_id, old = await ledger.create_token(["bid"], "palm")
    new_id, new = await ledger.rotate_token(old_id)
    assert await ledger.check_token(old) is None
    token = await ledger.check_token(new)
    assert token is not None and (token.token_id, token.scopes, token.agent_id) == (new_id, ("bid",), "palm")
    await ledger.revoke_token(new_id)
    await ledger.revoke_token(new_id)
    assert await ledger.check_token(new) is None
    assert {token.token_id: token.revoked_at for token in await ledger.tokens()} == {old_id: NOW, new_id: NOW}
    assert await refusal(ledger.revoke_token("tok_0")) == "no_token"


@pytest.mark.parametrize("scopes", [[], [""], ["bid watch"], ["Bid"]])
async def test_scopes_are_words(ledger: Ledger, scopes: list[str]) -> None:
    assert await refusal(ledger.create_token(scopes)) == "invalid_id"

"""A ledger in PostgreSQL: what it asks of the server, who may write, and what a lost connection or a crash costs."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import IntegrityError
from tests.server.kills import bid_on, check
from tests.server.places import needs_postgres
from tests.server.postgres import PASSWORD, USER, PostgresServer, shared_postgres
from tests.server.toy_server import collect, in_stream, spec_of, toy_server
from tests.server.wire_cutter import wire_cutter

from tokenauction.server.ledger import Ledger, LedgerError

HERE = Path(__file__).resolve().parent

pytestmark = [needs_postgres, pytest.mark.slow]


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresServer]:
    """A server that tests may kill; what is not flushed for a commit stays in memory for long."""
    server = PostgresServer(wal_writer_delay="10s")
    yield server
    server.remove()


@pytest.fixture
async def name() -> str:
    return await shared_postgres().new_database()


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Ledger]:
    ledger = await Ledger.open(url, **options)
    try:
        yield ledger
    finally:
        await ledger.close()


async def refusal(awaitable: Any) -> tuple[str, str]:
    with pytest.raises(LedgerError) as caught:
        await awaitable
    message = str(caught.value)
    assert "\n" not in message and PASSWORD not in message and "s3cret" not in message
    return caught.value.code, message


async def cut_off(server: PostgresServer, name: str) -> None:
    """End every connection of a database."""
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    await server.execute(f"SELECT pg_terminate_backend(pid) {others}", database=name)


# --- What is asked of the server ----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["off", "local", "remote_write"])
async def test_database_that_could_lose_a_commit_is_refused(name: str, level: str) -> None:
    await shared_postgres().execute(f"ALTER DATABASE {name} SET synchronous_commit = {level}")
    for is_visit in (False, True):
        code, message = await refusal(Ledger.open(shared_postgres().url(name), is_visit=is_visit))
        assert code == "unusable_database" and f"synchronous_commit={level}; set it to on" in message


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
async def test_server_that_syncs_nothing_is_refused(mortal: PostgresServer, setting: str) -> None:
    name = await mortal.new_database()
    try:
        await set_everywhere(mortal, f"{setting} = off")
        code, message = await refusal(Ledger.open(mortal.url(name)))
        assert code == "unusable_database" and f"{setting}=off; set it to on" in message
    finally:
        await set_everywhere(mortal, f"{setting} = on")


async def set_everywhere(server: PostgresServer, setting: str) -> None:
    """Change a setting of the server, and wait until a new connection has it."""
    await server.execute(f"ALTER SYSTEM SET {setting}", "SELECT pg_reload_conf()")
    name, _, value = setting.partition(" = ")
    async with asyncio.timeout(60):
        while (await server.execute(f"SELECT current_setting('{name}')"))[0][0] != value:
            await asyncio.sleep(0)


async def test_open_ledger_stays_durable_whatever_is_reloaded(mortal: PostgresServer) -> None:
    name = await mortal.new_database()
    async with opened(mortal.url(name)) as ledger:
        try:
            await set_everywhere(mortal, "synchronous_commit = off")
            level = text("SELECT current_setting('synchronous_commit')")
            assert await ledger._database.write(lambda c: c.execute(level).scalar_one()) == "on"
        finally:
            await set_everywhere(mortal, "synchronous_commit = on")


async def test_database_that_cannot_keep_every_text_is_refused(name: str) -> None:
    server = shared_postgres()
    other = f"{name}_ascii"
    options = "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE_PROVIDER libc LOCALE 'C'"
    await server.execute(f"CREATE DATABASE {other} {options}")
    code, message = await refusal(Ledger.open(server.url(other)))
    assert code == "unusable_database" and "SQL_ASCII" in message and "UTF8" in message


async def test_table_cannot_be_emptied(name: str) -> None:
    async with opened(shared_postgres().url(name)) as ledger:
        tables = "accounts transfers entries holds joins bids idempotency_keys events auctions".split()
        for table in tables:
            with pytest.raises(IntegrityError, match="are not deleted"):
                await ledger._database.write(lambda c, t=table: c.exec_driver_sql(f"TRUNCATE {t} CASCADE"))
        assert await ledger.audit() == []


async def test_ids_are_listed_in_the_order_of_their_code_points(name: str) -> None:
    async with opened(shared_postgres().url(name)) as ledger:
        ids = ["B", "a", "ä", "Z", "_", "b"]
        for number, agent in enumerate(ids):
            await ledger.deposit(agent, 1, f"wire {number}")
        assert list(await ledger.balances(after="@outside")) == sorted(ids)


async def test_schemas_of_one_database_are_ledgers_of_their_own(name: str) -> None:
    server = shared_postgres()
    await server.execute("CREATE SCHEMA one", "CREATE SCHEMA two", database=name)
    one, two = (server.url(name, options=f"-csearch_path={schema}") for schema in ("one", "two"))
    async with opened(one) as first, opened(two) as second:
        await first.deposit("palm", 1, "wire 1")
        assert await second.account("palm") is None
        assert (await refusal(Ledger.open(one)))[0] == "locked"


async def test_refusal_says_what_to_do(name: str) -> None:
    server = shared_postgres()
    role = f"poor_{name}"
    await server.execute(f"CREATE ROLE {role} LOGIN PASSWORD 's3cret'")
    poor = f"postgresql://{role}:s3cret@127.0.0.1:{server.port}/{name}"
    expected = {
        server.url("nowhere"): "CREATE DATABASE",
        server.url(name, port=1): "see that it runs there",
        poor: "let the role own the database",
        poor.replace("s3cret", "another"): "PGPASSWORD",
        poor.replace(role, "stranger"): "PGPASSWORD",
    }
    for url, remedy in expected.items():
        code, message = await refusal(Ledger.open(url))
        assert code == "unusable_database" and remedy in message, message
    await server.execute(f"ALTER DATABASE {name} OWNER TO {role}")
    async with opened(poor) as ledger:
        assert await ledger.audit() == []


# --- Passwords ----------------------------------------------------------------------------------------------------


async def test_password_is_in_no_message(name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server = shared_postgres()
    good = server.url(name)
    assert "s3cret" in good
    wrong = [
        good.replace("s3cret", "s3cret-wrong"),
        server.url("nowhere"),
        server.url(name, port=1),
        good.replace("127.0.0.1", "nowhere.invalid"),
        good.replace("auctioneer", "nobody"),
        server.url(name, sslmode="verify-nothing"),
        server.url(name, sslmode="require"),
        f"postgresql://{PASSWORD}@127.0.0.1/x",
        "postgresql://auctioneer:s3cret/p@127.0.0.1/x",
        "postgres//auctioneer:s3cret@host/x://",
        f"postgresql://host:s3cret/{name}",
        f"mysql://auctioneer:{PASSWORD}@host/x",
        "postgresql://a:b@127.0.0.1:1/x?password=s3cret",
    ]
    for url in wrong:
        code, message = await refusal(Ledger.open(url))
        assert code == "unusable_database" and message
    async with opened(good) as ledger:
        await cut_off(server, name)
        await ledger.deposit("palm", 1, "wire 1")
        code, message = await refusal(Ledger.open(good))
        assert code == "locked" and name in message
    assert "connection is lost" in caplog.text and "s3cret" not in caplog.text


async def test_password_may_be_kept_out_of_the_url(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = shared_postgres()
    url = f"postgresql://{USER}@127.0.0.1:{server.port}/{name}"
    assert (await refusal(Ledger.open(url)))[0] == "unusable_database"
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    async with opened(url) as ledger:
        assert await ledger.deposit("palm", 1, "wire 1")
    monkeypatch.delenv("PGPASSWORD")
    line = f"127.0.0.1:{server.port}:*:{USER}:{PASSWORD}"  # asyncpg takes the rest of the line as it stands
    (tmp_path / "pgpass").write_text(line)
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    async with opened(url.replace("postgresql:", "postgres:")) as ledger:
        assert (await ledger.balances())["palm"] == 1
    async with opened(url.replace("postgresql:", "postgresql+asyncpg:")) as ledger:
        assert await ledger.audit() == []


# --- Two that write -----------------------------------------------------------------------------------------------


async def test_visits_and_the_server_write_at_the_same_time(name: str) -> None:
    url = shared_postgres().url(name)
    async with opened(url) as ledger, opened(url, is_visit=True) as one, opened(url, is_visit=True) as two:
        await ledger.deposit("palm", 1_000, "first")
        undone: list[None] = []
        for writer in (ledger, one, two):
            event.listen(writer._database.writer, "rollback", lambda connection: undone.append(None))

        async def deposit(writer: Ledger, reference: str) -> None:
            for number in range(25):
                assert await writer.deposit("palm", 1, f"{reference} {number}")

        async def run_auctions() -> None:
            for number in range(25):
                await ledger.create_auction(f"text {number}", {}, {"palm": 10}, None, "asked", "sealed")
                await ledger.append(f"text {number}", 1, 0, {"type": "auction.token"}, {"palm": 3})
                await ledger.settle(f"text {number}", {"palm": 3}, "head")

        await asyncio.gather(deposit(one, "one"), deposit(two, "two"), deposit(ledger, "three"), run_auctions())
        balances = await ledger.balances()
        assert (balances["palm"], balances["@house"], balances["@held"]) == (1_075 - 75, 75, 0)
        assert undone, "they were in each other's way"
        assert await ledger.audit() == []


async def test_server_that_was_taken_over_writes_nothing(name: str) -> None:
    server = shared_postgres()
    async with wire_cutter(server.port) as (cutter, port), opened(server.url(name, port=port)) as first:
        assert await first.deposit("palm", 1, "wire 1")
        cutter.is_down = True
        await cut_off(server, name)
        async with opened(server.url(name)) as second:
            cutter.is_down = False
            waiting = asyncio.ensure_future(first.deposit("palm", 1, "wire 2"))
            assert await second.deposit("palm", 1, "wire 3")
            code, message = await refusal(waiting)
            assert code == "failed" and "another server has taken the ledger over" in message
            assert (await refusal(first.deposit("palm", 1, "wire 4")))[0] == "failed"
            assert (await second.balances())["palm"] == 2


async def test_ledger_fails_where_acknowledged_commits_are_gone(name: str) -> None:
    server = shared_postgres()
    async with opened(server.url(name)) as ledger:
        await ledger.deposit("palm", 1, "wire 1")
        await server.execute("UPDATE writer SET num_commits = 0", database=name)
        await cut_off(server, name)
        code, message = await refusal(ledger.deposit("palm", 1, "wire 2"))
        assert code == "failed" and "1 commits that were acknowledged are gone" in message


async def test_server_waits_until_a_standby_is_the_primary(name: str, caplog: pytest.LogCaptureFixture) -> None:
    server = shared_postgres()
    async with opened(server.url(name)) as ledger:
        await server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")  # as little use as a standby
        await cut_off(server, name)
        waiting = asyncio.ensure_future(ledger.deposit("palm", 1, "wire 1"))
        while "is lost" not in caplog.text:
            await asyncio.sleep(0)
        await server.execute(f"ALTER DATABASE {name} RESET synchronous_commit")
        assert await waiting is True


async def test_commit_is_refused_where_another_session_has_written(name: str) -> None:
    server = shared_postgres()
    async with opened(server.url(name)) as ledger:
        await ledger.deposit("palm", 1, "wire 1")
        await server.execute("UPDATE writer SET session = 'another'", database=name)
        code, message = await refusal(ledger.deposit("palm", 1, "wire 2"))
        assert code == "failed" and "taken the ledger over" in message
        assert (await ledger.balances())["palm"] == 1


# --- Connections that break ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["commit", "answer"])
async def test_commit_that_was_cut_off_counts_once(name: str, moment: str) -> None:
    server = shared_postgres()
    async with wire_cutter(server.port) as (cutter, port), opened(server.url(name, port=port)) as ledger:
        await ledger.deposit("palm", 100, "wire 0")
        await ledger.create_auction("text", {}, {"palm": 50}, None, "asked", "sealed")
        await ledger.append("text", 1, 0, {"type": "auction.token"}, {"palm": 1})
        for number in range(1, 6):
            cutter.cut_at = moment
            token = ledger.append("text", 1, number, {"type": "auction.token"}, {"palm": 1})
            assert await ledger.deposit("palm", 7, f"wire {number}") is True
            assert await token == number
            assert cutter.num_cuts == number
        cutter.cut_at = moment
        await ledger.settle("text", {"palm": 6}, "head")
        cutter.cut_at = moment
        token_id, secret = await ledger.create_token(["bid"])
        assert await ledger.check_token(secret) is not None
        assert [token.token_id for token in await ledger.tokens()] == [token_id]
        assert cutter.num_cuts == 7
        assert (await ledger.balances())["palm"] == 100 + 35 - 6
        assert await ledger.audit() == []


async def test_readers_find_the_database_again(name: str) -> None:
    server = shared_postgres()
    async with opened(server.url(name)) as ledger:
        await ledger.deposit("palm", 5, "wire 1")
        for _ in range(3):
            await asyncio.gather(*(ledger.balances() for _ in range(8)))
            await cut_off(server, name)
            found = await asyncio.gather(*(ledger.balances() for _ in range(8)))
            assert all(balances["palm"] == 5 for balances in found)


async def test_ledger_fails_where_the_database_stays_away(name: str) -> None:
    server = shared_postgres()
    async with wire_cutter(server.port) as (cutter, port), opened(server.url(name, port=port)) as ledger:
        ledger._database.reconnect_seconds = 0.3  # type: ignore[attr-defined]
        await ledger.deposit("palm", 1, "wire 1")
        cutter.is_down = True
        cutter.cut()
        told = [ledger.append("text", 1, 0, {"type": "auction.token"}), ledger.deposit("palm", 1, "wire 2")]
        for outcome in await asyncio.gather(*told, return_exceptions=True):
            assert isinstance(outcome, LedgerError) and outcome.code == "failed" and name in str(outcome)
        assert (await refusal(ledger.balances()))[0] == "failed"
    async with opened(server.url(name)) as ledger:
        assert (await ledger.balances())["palm"] == 1


async def test_visit_that_is_cut_off_is_told_so(name: str) -> None:
    server = shared_postgres()
    async with opened(server.url(name)), opened(server.url(name), is_visit=True) as visit:
        await visit.deposit("palm", 1, "wire 1")
        await cut_off(server, name)
        code, message = await refusal(visit.deposit("palm", 1, "wire 2"))
        assert code == "failed" and "is lost" in message


# --- PostgreSQL crashes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
async def test_ledger_goes_on_when_postgresql_is_killed_at_work(
    mortal: PostgresServer, tmp_path: Path, seed: int
) -> None:
    url = mortal.url(await mortal.new_database())
    program = [sys.executable, str(HERE / "ledger_workload.py"), url]
    end = (mortal.kill, mortal.stop)[seed % 2]
    moments = sorted(random.Random(seed).sample(range(5, 200), 2))
    heard: list[bytes] = []
    options = ["--acknowledged", "/dev/stdout", "--seed", str(seed)]
    work = await asyncio.create_subprocess_exec(*program, *options, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert work.stdout is not None and work.stderr is not None
    async for line in work.stdout:
        heard.append(line)
        if len(heard) in moments:
            end()
            mortal.start()
    assert await work.wait() == 0, (await work.stderr.read()).decode()[-2000:]
    acknowledged = tmp_path / "acknowledged"
    acknowledged.write_bytes(b"".join(heard))
    assert len(heard) > 200 and {json.loads(line)["is"] for line in heard} >= {"deposit", "event", "bid", "settled"}
    command = [*program, "--check", str(acknowledged)]
    checked = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, ""), checked.stdout + checked.stderr[-2000:]


async def test_crash_of_postgresql_shows_commits_that_are_not_synced(mortal: PostgresServer) -> None:
    url = mortal.url(await mortal.new_database())
    lost = {}
    for synchronous in ("FULL", "NORMAL"):
        ledger = await Ledger.open(url, synchronous=synchronous)  # type: ignore[arg-type]
        ledger._database.reconnect_seconds = 0.0  # type: ignore[attr-defined]
        for number in range(20):
            await ledger.deposit(synchronous, 1, f"{synchronous} {number}")
        mortal.kill()
        await ledger.close()
        mortal.start()
        async with opened(url) as found:
            lost[synchronous] = 20 - (await found.balances()).get(synchronous, 0)
            assert await found.audit() == []
    assert lost["FULL"] == 0 and lost["NORMAL"] > 0


@pytest.mark.parametrize("moment", range(2))
async def test_watchers_and_bidders_notice_no_crash_of_postgresql(
    mortal: PostgresServer, tmp_path: Path, moment: int
) -> None:
    url = mortal.url(await mortal.new_database())
    accepted: list[tuple[str, int]] = []
    async with toy_server(tmp_path, ledger_url=url, delay=0.004) as server:
        specs = [spec_of("0.002", "0.001", max_tokens=250, seed=seed) for seed in range(3)]
        ids = [(await server.client().begin(spec))["auction_id"] for spec in specs]
        watching = [asyncio.create_task(collect(server.client().watch(auction_id))) for auction_id in ids]
        bidding = asyncio.create_task(bid_on(server.client(), ids[0], accepted))
        killed_at = random.Random(moment).randrange(5, 150)
        while server.house.live[ids[0]].durable_seq < killed_at:
            await asyncio.wait(watching, timeout=0.01)
        (mortal.kill, mortal.stop)[moment % 2]()
        mortal.start()
        streams = [in_stream(await events) for events in watching]
        await bidding
    for events in streams:
        assert [event["seq"] for event in events] == list(range(252))
        assert {event["epoch"] for event in events} == {events[0]["epoch"]}
        assert events[-1]["type"] == "auction.settled" and events[-1]["num_tokens"] == 250
    last_token = streams[0][-2] if streams[0][-2]["type"] == "auction.token" else streams[0][-3]
    assert accepted and last_token["agents"][1]["bid_micros"] >= accepted[-1][1]
    await check(url, ids)


async def test_ledger_closes_without_a_word_when_postgresql_is_gone(
    mortal: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = await Ledger.open(mortal.url(await mortal.new_database()))
    await ledger.deposit("palm", 1, "wire 1")
    await asyncio.gather(*(ledger.balances() for _ in range(8)))
    mortal.kill()
    await ledger.close()
    mortal.start()
    assert caplog.text == ""

"""The JavaScript client, run by Node against a real server: create, watch, bid, resume, be refused."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.server.test_other_clients import node_speaks_websocket
from tests.server.toy_server import LONGEST_SECONDS, ToyServer, collect, in_stream, spec_of, step_until, toy_server

Start = Callable[..., Any]
Run = Callable[..., Coroutine[Any, Any, Any]]
WEB = Path(__file__).resolve().parents[2] / "clients" / "web"
NUM_TOKENS = 12
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not node_speaks_websocket(), reason="no Node with a WebSocket of its own is installed"),
]


@pytest.fixture(scope="module")
def declared() -> str:
    """What tokenauction.d.ts says of the Client."""
    return (
        (WEB / "tokenauction.d.ts")
        .read_text(encoding="utf-8")
        .partition("export class Client {")[2]
        .partition("\n}")[0]
    )


def test_types_declare_every_method_and_no_other(declared: str) -> None:
    source = (WEB / "tokenauction.js").read_text(encoding="utf-8").partition("export class Client {")[2]
    public = set(re.findall(r"^  (?:async )?([a-z]\w*)(?: = |\()", source, re.MULTILINE))
    assert public == set(re.findall(r"^  (\w+)\(", declared, re.MULTILINE))


# A program gets `client`, `say` (prints a line of JSON), `heard` (waits for a line that the test writes), and `spec`.
PROLOGUE = """
const { Client, Refused, Transcript, Unreachable } = await import(process.argv[1]);
const { url, token, spec } = JSON.parse(process.argv[2]);
const { createInterface } = await import("node:readline");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const say = (value) => console.log(JSON.stringify(value));
const heard = async () => (await lines.next()).value;
const client = new Client({ url, token: token ?? null });
"""


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """`toy_server` on this test's ledger."""
    return partial(toy_server, tmp_path)


class Program:
    """A Node process that uses the client."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def said(self) -> Any:
        """The next thing that it says."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LONGEST_SECONDS):
            line = await self.process.stdout.readline()
        assert line, (await self.process.communicate())[1].decode()
        return json.loads(line)

    def tell(self) -> None:
        """End its wait for a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")

    async def end(self) -> int | None:
        """Its exit code, when it has ended by itself."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(LONGEST_SECONDS):
            return await self.process.wait()

    async def said_until_settled(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while not events or events[-1]["type"] != "auction.settled":
            events.append(await self.said())
        return events


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Starts programs; those that have not ended by the end of the test are killed."""
    started: list[Program] = []

    async def start(server: ToyServer, code: str, *, spec: Any = None, token: str | None = None) -> Program:
        node = shutil.which("node")
        assert node is not None
        given = {"url": server.url, "token": token, "spec": spec or spec_of("0.002", "0.001", max_tokens=NUM_TOKENS)}
        command = [node, "--experimental-websocket", "--input-type=module", "-e", PROLOGUE + code]
        pipe = asyncio.subprocess.PIPE
        arguments = [str(WEB / "tokenauction.js"), json.dumps(given)]
        process = await asyncio.create_subprocess_exec(*command, "--", *arguments, stdin=pipe, stdout=pipe, stderr=pipe)
        started.append(Program(process))
        return started[-1]

    yield start
    for program in started:
        if program.process.returncode is None:
            program.process.kill()
        await program.process.communicate()


WATCH = """
const { auction_id } = await client.create(spec);
say(auction_id);
for await (const event of client.watch(auction_id)) say(event);
client.close();
"""


async def test_javascript_client_sees_what_the_python_client_sees(start: Start, run: Run) -> None:
    async with start() as server:
        program = await run(server, WATCH)
        auction_id = await program.said()
        events = await program.said_until_settled()
        assert await program.end() == 0
        theirs = await collect(server.client().watch(auction_id))
        drop = ("event_id", "time", "durable_seq", "request_id")
        kept = [[{k: v for k, v in event.items() if k not in drop} for event in each] for each in (events, theirs)]
        assert kept[0] == [event for event in kept[1] if event["type"] != "session.created"]


async def test_bid_counts_from_the_step_that_is_answered_and_the_newest_of_many_is_sent(start: Start, run: Run) -> None:
    code = """
    const { auction_id } = await client.create(spec);
    let bids;
    for await (const event of client.watch(auction_id)) {
      say(event);
      if (event.step === 1) {
        bids = Promise.all([3000, 4000, 5000, 6000].map((micros) => client.bid(auction_id, "agent1", micros)));
        await heard();
        say(await bids);
      }
    }
    client.close();
    """
    async with start(is_paced=True) as server:
        server.model.allow(2)
        program = await run(server, code, spec=spec_of("0.002", "0.001", max_tokens=200))
        while (await program.said()).get("step") != 1:
            pass
        program.tell()
        answers = await step_until(server.model, program.said())
        server.model.free()
        assert [answer["bid_micros"] for answer in answers] == [3000, 6000, 6000, 6000]
        events = await program.said_until_settled()
        from_step = answers[-1]["effective_from_step"]
        tokens = [event for event in events if event["type"] == "auction.token" and event["step"] >= from_step]
        assert tokens and all(token["agents"][1]["bid_micros"] == 6000 for token in tokens)


async def test_watch_goes_on_where_it_was_when_the_connection_breaks(start: Start, run: Run) -> None:
    code = """
    const { auction_id } = await client.create(spec);
    const states = [];
    for await (const event of client.watch(auction_id, { onState: (state) => states.push(state) })) say(event);
    say(states);
    client.close();
    """
    async with start(is_paced=True) as server:
        program = await run(server, code)
        events = []
        for _ in range(3):
            server.model.allow(3)
            events += [await program.said() for _ in range(3)]
            for connection in list(server.app.connections):
                connection.abort()
        server.model.free()
        events += await program.said_until_settled()
        assert [event["seq"] for event in in_stream(events)] == list(range(NUM_TOKENS + 2))
        states = await program.said()
        assert states[0] == "live" and states[-1] == "over" and "reconnecting" in states and states.count("live") >= 2


async def test_payment_is_told_once_and_the_transcript_agrees_with_the_ledger(start: Start, run: Run) -> None:
    code = """
    const { auction_id } = await client.create(spec);
    const transcript = new Transcript();
    for await (const event of client.watch(auction_id)) transcript.apply(event);
    const { text, totals, payments, state } = transcript;
    say({ auction_id, text, totals, payments, state, tokens: transcript.tokens.length });
    client.close();
    """
    async with start() as server:
        program = await run(server, code)
        told = await program.said()
        settled = (await collect(server.client().watch(told["auction_id"])))[-1]
        totals = {agent["id"]: agent["total_micros"] for agent in settled["agents"]}
        assert told["totals"] == told["payments"] == totals and told["text"] == settled["text"]
        assert (told["state"], told["tokens"]) == ("over", NUM_TOKENS)


async def test_watch_that_begins_with_the_session_subscribes_once(start: Start, run: Run) -> None:
    code = """
    const { auction_id } = await client.create(spec);
    client.close();
    const other = new Client({ url });
    await other.session();
    for await (const event of other.watch(auction_id)) say(event);
    other.close();
    """
    async with start() as server:
        program = await run(server, code)
        assert [event["seq"] for event in in_stream(await program.said_until_settled())] == list(range(NUM_TOKENS + 2))


async def test_token_for_several_agents_looks_as_the_one_that_is_named(start: Start, run: Run) -> None:
    code = "for await (const event of client.watch(spec.auction_id, { agentId: 'agent1' })) say(event); client.close();"
    async with start(is_open=False) as server:
        admin, bidder = [(await server.ledger.create_token([scope]))[1] for scope in ("admin", "bid")]
        accepted = await server.client(admin).begin(spec_of("0.002", "0.001", max_tokens=NUM_TOKENS))
        program = await run(server, code, spec={"auction_id": accepted["auction_id"]}, token=bidder)
        events = await program.said_until_settled()
        seen = {agent["id"] for event in events if event["type"] == "auction.token" for agent in event["agents"]}
        assert seen == {"agent1"}


async def test_refusals_are_typed(start: Start, run: Run) -> None:
    code = """
    const attempts = {
      spec: () => client.create({ ...spec, agents: [] }),
      large: () => client.create({ ...spec, query: "x".repeat(70000) }),
      deep: () => client.create({ ...spec, query: JSON.parse("[".repeat(40) + "]".repeat(40)) }),
      bid: () => client.bid("auc_none", "agent0", 5),
      fraction: () => client.bid("auc_none", "agent0", 0.5),
      cancel: () => client.cancel("auc_none"),
      watch: () => client.watch("auc_none").done,
      line: () => client.watch("auc\\nnone").done,
      receipt: () => client.receipt("auc_none"),
    };
    for (const [name, attempt] of Object.entries(attempts)) {
      await attempt().then(() => say([name, null]), (error) => say([name, error instanceof Refused && error.code]));
    }
    say((await client.create(spec)).type);
    client.close();
    """
    async with start() as server:
        program = await run(server, code)
        codes = dict([await program.said() for _ in range(9)])
        assert codes == {
            "spec": "invalid_spec",
            "large": "message_too_large",
            "deep": "too_deep",
            "bid": "not_live",
            "fraction": "invalid_field",
            "cancel": "not_live",
            "watch": "not_found",
            "line": "invalid_field",
            "receipt": "not_found",
        }
        assert await program.said() == "auction.accepted"


async def test_token_opens_the_door_as_a_ticket_and_without_one_it_stays_shut(start: Start, run: Run) -> None:
    code = """
    await client.session().then((session) => say(session.scopes), (error) => say([error.name, error.code]));
    client.close();
    """
    async with start(is_open=False) as server:
        _, secret = await server.ledger.create_token(["watch"])
        assert await (await run(server, code)).said() == ["Refused", "unauthorized"]
        assert await (await run(server, code, token="wrong")).said() == ["Refused", "unauthorized"]
        assert await (await run(server, code, token=secret)).said() == ["watch"]


async def test_client_that_may_give_up_says_that_nobody_is_there(start: Start, run: Run) -> None:
    code = """
    const absent = new Client({ url: "http://127.0.0.1:9", giveUpMs: 1 });
    await absent.session().catch((error) => say(error instanceof Unreachable));
    client.close();
    """
    async with start() as server:
        assert await (await run(server, code)).said() is True


async def test_slow_consumer_gets_every_event_of_a_long_text(start: Start, run: Run) -> None:
    """The queue has a limit; what is beyond it waits at the server."""
    code = """
    const { auction_id } = await client.create(spec);
    const watch = client.watch(auction_id);
    await heard();
    const seen = [];
    for await (const event of watch) if ("seq" in event) seen.push(event.seq);
    say(seen.length === spec.max_tokens + 2 && seen.every((seq, place) => seq === place));
    client.close();
    """
    async with start() as server:
        program = await run(server, code, spec=spec_of("0.002", "0.001", max_tokens=1_500))
        async with asyncio.timeout(LONGEST_SECONDS):
            while not any(connection.readers for connection in server.app.connections):
                await asyncio.sleep(0.01)
            while any(connection.readers for connection in server.app.connections):  # it has enough for now
                await asyncio.sleep(0.01)
        program.tell()
        assert await program.said() is True

"""The page on a real server in Chromium: what it says is what the ledger says, and what it does is what it shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.server.toy_server import collect, spec_of
from tests.web.conftest import Open, Start
from tests.web.on_page import charted, fill_form, settled_events, written

from tokenauction.engine.verification import verify

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.asyncio(loop_scope="session")]

UNAUTHORIZED = ("401", "HTTP Authentication failed")  # what browsers say of a request without a token


async def test_text_chart_bill_and_check_say_what_the_ledger_says(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(server.url) as page:
        await fill_form(page, "agent0", "agent1", "agent2", max_tokens="40", seed="5", reference_weight="0.001")
        await page.click("text=Start the auction")
        events = await settled_events(server, page)
        settled = events[-1]
        assert (
            await written(page) == settled["text"] == "".join(e["text"] for e in events if e["type"] == "auction.token")
        )
        bill = {agent["id"]: agent["total_micros"] for agent in settled["agents"] if agent["id"] != "reference"}
        assert await charted(page) == bill and sum(bill.values()) > 0
        rows = await page.locator(".bill tbody tr").evaluate_all(
            "rows => rows.map(r => [r.dataset.agent, +r.dataset.micros])"
        )
        assert dict(rows) == bill
        assert await page.inner_text(".bill .total") == f"${settled['total_micros'] / 1e6:.6f}"
        await page.wait_for_selector(".verdict .outcome")
        outcome = await page.locator(".verdict .outcome").evaluate("node => ({...node.dataset})")
        verdict = verify(await server.receipt(settled["auction_id"]))
    assert outcome == {"ok": "true", "level": verdict.level, "steps": str(settled["num_tokens"])} and verdict.holds


async def test_receipt_that_was_tampered_with_fails_on_the_page_where_it_fails_for_verify(
    open_page: Open, start: Start
) -> None:
    async with start() as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.001", top_tokens=3)))["auction_id"]
        await collect(server.client().watch(auction_id))
        lines = await server.receipt(auction_id)
        lines[4]["charges"][0] += 1
        verdict = verify([dict(line) for line in lines])
        async with open_page("about:blank") as page:
            body = "".join(json.dumps(line) + "\n" for line in lines)
            await page.route("**/receipt", lambda route: route.fulfill(body=body, content_type="application/x-ndjson"))
            await page.goto(f"{server.url}/#{auction_id}")
            await page.wait_for_selector(".verdict .outcome.bad")
            says = await page.inner_text(".verdict .outcome")
    assert not verdict.holds and says.endswith("step 3")


async def test_slider_moves_the_shares_of_the_next_tokens(open_page: Open, start: Start) -> None:
    async with start() as server:
        spec = spec_of("0.002", "0.002", max_tokens=30, token_ms=120, top_tokens=3)
        auction_id = (await server.client().begin(spec))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            await page.wait_for_selector(".written .token:nth-of-type(3)")
            slider = page.locator(".bidder[data-agent=agent1] input[type=range]")
            await slider.focus()
            await slider.press("End")
            await page.wait_for_selector(".bidder[data-agent=agent1] .says:has-text('counts')")
            mark = await page.wait_for_selector(".mark")
            before = int(await mark.get_attribute("data-before"))
            assert "agent1" not in (
                await mark.get_attribute("aria-label") or ""
            ) and "Name1 bids $0.008" in await mark.get_attribute("aria-label")
            events = await settled_events(server, page)
            tokens = [event for event in events if event["type"] == "auction.token"]
            await page.locator(f".token[data-step='{before}']").click()
            shown = await page.locator(".looking tbody tr:nth-child(2) td:nth-child(3)").inner_text()
    bids = [token["agents"][1]["bid_micros"] for token in tokens]
    assert bids == [2_000] * before + [8_000] * (30 - before) and 3 <= before < 30
    assert shown in (f"{100 * tokens[before]['agents'][1]['influence']:.{digits}f}%" for digits in (0, 1))
    for token in tokens:
        ours, theirs = (agent["probability"] * agent["effective_bid_micros"] for agent in reversed(token["agents"]))
        assert token["agents"][1]["influence"] == pytest.approx(ours / (ours + theirs))


async def test_page_stands_still_at_a_token_while_the_auction_goes_on(open_page: Open, start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.003", max_tokens=12, top_tokens=4)))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            server.model.allow(3)
            await page.wait_for_selector(".token[data-step='2']")
            await page.get_by_role("button", name="Pause").click()
            server.model.free()
            await page.wait_for_selector(".progress:has-text('more to show')")
            await collect(server.client().watch(auction_id))
            assert await page.locator(".token[data-step]").count() < 12
            columns = await page.locator(".wants section").count()
            words = await page.locator(".wants section:first-child li").count()
            drawn = await page.locator(".wants section:first-child li.drawn").count()
            assert (columns, words) == (3, 4) and drawn <= 1
            await page.get_by_role("button", name="Resume").click()
            events = await settled_events(server, page)
            assert await written(page) == events[-1]["text"]


async def test_keys_walk_through_the_tokens_and_say_what_is_there(open_page: Open, start: Start) -> None:
    async with start() as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.003", max_tokens=12, top_tokens=4)))["auction_id"]
        tokens = [e for e in await collect(server.client().watch(auction_id)) if e["type"] == "auction.token"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            await page.wait_for_selector(".bill")
            await page.locator(".paper .written").focus()
            for key, step in (("Home", 0), ("ArrowRight", 1), ("End", 11), ("ArrowRight", 11), ("ArrowLeft", 10)):
                await page.keyboard.press(key)
                said = tokens[step]["text"] if tokens[step]["text"].strip() else "·"
                assert await page.inner_text("#looking-title") == f"Token {step + 1} of 12: {said}"
            assert (await page.inner_text("#summary")).startswith("Token 11")


async def test_link_replays_the_auction_from_the_ledger(open_page: Open, start: Start) -> None:
    async with start() as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.003", max_tokens=30)))["auction_id"]
        settled = (await collect(server.client().watch(auction_id)))[-1]
        async with open_page(f"{server.url}/#{auction_id}", reduced_motion="no-preference") as page:
            await page.wait_for_selector(".progress:has-text('Replay')")
            await page.get_by_role("button", name="Skip to the end").click()
            await page.wait_for_selector(".bill")
            assert await written(page) == settled["text"]
            await page.get_by_role("link", name="New auction").click()
            await page.wait_for_selector(f"#recent-list a[href='#{auction_id}']")


async def test_softmax_auction_shows_candidates_chances_and_what_each_moved(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(server.url) as page:
        await fill_form(page, "agent0", "agent1", max_tokens="6", seed="3")
        await page.select_option("#option-mechanism", "softmax")
        await page.fill("#option-num_candidates", "4")
        assert await page.is_visible("#value-0") and not await page.is_visible("#bid-0")
        await page.click("text=Start the auction")
        events = await settled_events(server, page)
        [finalized] = [event for event in events if event["type"] == "auction.finalized"]
        assert await written(page) == events[-1]["text"] == finalized["text"]
        chances = await page.locator(".candidate").evaluate_all(
            "all => all.map(c => [+c.dataset.index, +c.dataset.probability])"
        )
        assert dict(chances) == {c["index"]: c["probability"] for c in finalized["candidates"]}
        assert await page.locator(".candidate.chosen").get_attribute("data-index") == str(finalized["chosen"])
        rows = await page.locator(".bill tbody tr").evaluate_all(
            "rows => rows.map(r => [r.dataset.agent, +r.dataset.micros])"
        )
        assert dict(rows) == {agent["id"]: agent["payment_micros"] for agent in finalized["agents"]}
        await page.wait_for_selector(".verdict .outcome.good")
        await page.wait_for_selector(".explore .chart canvas")


async def test_disclosure_stays_in_sight_from_the_first_token_to_the_bill(open_page: Open, start: Start) -> None:
    async with start(is_paced=True) as server:
        auction_id = (await server.client().begin(spec_of("0.002", "0.003")))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}") as page:
            label = page.locator(".bar-top .disclosure")
            for state in ("#auction .token", ".bill"):
                await page.wait_for_selector(state)
                await page.evaluate("scrollTo(0, document.body.scrollHeight)")
                assert (await label.inner_text()).split() == ["Sponsored", "by", "Name0", "and", "Name1"]
                box = await label.bounding_box()
                assert box is not None and box["y"] >= 0, "it stays in sight"
                server.model.free()


async def test_what_the_server_refuses_is_said_in_its_words_and_nothing_is_lost(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(server.url) as page:
        await fill_form(page, "agent0", "agent1", max_tokens="5000")
        await page.click("text=Start the auction")
        assert "5000" in await page.inner_text("#form .notice")
        assert await page.input_value("#name-1") == "agent1"
        await page.fill("#option-max_tokens", "5")
        await page.fill("#bid-1", "a lot")
        await page.click("text=Start the auction")
        assert "such as 0.002" in await page.inner_text("#form .notice")
        assert await page.get_attribute("#bid-1", "aria-invalid") == "true"
        await page.fill("#bid-1", "0.001")
        await page.click("text=Start the auction")
        await page.wait_for_selector(".bill")


async def test_address_of_no_auction_is_said_so(open_page: Open, start: Start) -> None:
    async with start() as server, open_page(f"{server.url}/#auc_none", expected=["404"]) as page:
        await page.wait_for_selector(".trouble h1:has-text('no such auction')")
        await page.click("text=To the start")
        await page.wait_for_selector("#hawaii")


async def test_server_that_asks_for_a_token_gets_one(open_page: Open, start: Start) -> None:
    async with start(is_open=False) as server:
        _, secret = await server.ledger.create_token(["admin"], None, None)
        async with open_page(server.url, expected=UNAUTHORIZED) as page:
            await page.wait_for_selector(".trouble h1:has-text('asks who you are')")
            await page.fill("#token", secret)
            await page.click("text=Go on")
            await page.wait_for_selector("#recent-list, #presets button")
            await page.click("#hawaii")
            await page.wait_for_selector("#auction .token")
            assert secret not in await page.content()


async def test_public_reader_sees_text_and_disclosure_and_no_number(open_page: Open, start: Start) -> None:
    async with start(is_open=False) as server:
        admin = (await server.ledger.create_token(["admin"], None, None))[1]
        watcher = (await server.ledger.create_token(["watch"], None, None))[1]
        auction_id = (await server.client(admin).begin(spec_of("0.002", "0.003")))["auction_id"]
        settled = (await collect(server.client(admin).watch(auction_id)))[-1]
        async with open_page(f"{server.url}/#{auction_id}", expected=UNAUTHORIZED) as page:
            await page.fill("#token", watcher)
            await page.click("text=Go on")
            await page.wait_for_selector(".bill")
            assert await written(page) == settled["text"]
            assert "$0." not in await page.inner_text("#auction")
            assert await page.locator("input[type=range]").count() == 0


async def test_modules_of_the_page_are_short_and_say_what_they_are() -> None:
    folder = Path(__file__).resolve().parents[2] / "server" / "web"
    for path in folder.glob("*.js"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= 300, path.name
        assert lines[0].startswith("/**"), f"{path.name} begins with what it does"
        forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(")
        assert not [line for line in lines if any(word in line for word in forbidden)], path.name


async def test_advertiser_sees_its_own_numbers_and_slider_and_nobody_elses(open_page: Open, start: Start) -> None:
    async with start(is_open=False, is_paced=True) as server:
        admin = (await server.ledger.create_token(["admin"], None, None))[1]
        mine = (await server.ledger.create_token(["bid"], "agent1", None))[1]
        auction_id = (await server.client(admin).begin(spec_of("0.002", "0.003")))["auction_id"]
        async with open_page(f"{server.url}/#{auction_id}", expected=UNAUTHORIZED) as page:
            await page.fill("#token", mine)
            await page.click("text=Go on")
            server.model.allow(4)
            await page.wait_for_selector(".token[data-step='2']")
            sliders = await page.locator(".bidder:has(input[type=range])").evaluate_all(
                "all => all.map(b => b.dataset.agent)"
            )
            assert sliders == ["agent1"] and list(await charted(page)) == ["agent1"]
            server.model.free()
            await page.wait_for_selector(".bill")
            settled = (await collect(server.client(mine).watch(auction_id)))[-1]
            [own] = [agent["total_micros"] for agent in settled["agents"]]
            assert await charted(page) == {"agent1": own}
            rows = await page.locator(".bill tbody td:last-child").all_inner_texts()
            assert rows == ["not shown to you", f"${own / 1e6:.6f}"]

"""What an auction is to a bidder, what its answer is to an auction, and everything that is no answer."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.clients.rtb_bidder import bid_of, faults_of, response_to

from tokenauction.server.openrtb import (
    MAX_RESPONSE,
    Bid,
    InvalidResponse,
    NoBid,
    Offer,
    bid_request,
    notice_url,
    read_response,
)

AUCTION = {
    "auction_id": "auc_1", "state": "joining", "query": "Vacations in Hawaii", "tmax_join_ms": 2_000, "rule": "linear",
    "pricing": "critical_bid", "currency": "USD", "max_tokens": 48, "agents": [{"id": "beta", "name": "Beta"}],
}  # fmt: skip
REQUEST = bid_request(AUCTION, 150)


def read(*bids: dict[str, Any], **fields: Any) -> Offer | NoBid:
    return read_response(response_to(REQUEST, *bids, **fields), REQUEST)


def test_request_says_what_is_sold_as_openrtb_has_it() -> None:
    assert list(faults_of(json.loads(json.dumps(REQUEST)))) == []
    [imp] = REQUEST["imp"]
    assert (REQUEST["id"], REQUEST["tmax"], REQUEST["cur"], REQUEST["at"]) == ("auc_1", 150, ["USD"], 2)
    assert REQUEST["site"]["search"] == "Vacations in Hawaii" and imp["qty"]["multiplier"] == 48
    assert [asset["data"]["type"] for asset in json.loads(imp["native"]["request"])["assets"]] == [1, 2]
    assert not {"user", "device", "regs"} & set(REQUEST)  # nobody is told who asked


def test_first_price_auction_says_so() -> None:
    assert bid_request({**AUCTION, "pricing": "first_price"}, 150)["at"] == 1


def test_highest_bid_is_the_offer_and_the_others_lose_to_it() -> None:
    low = bid_of(1.5, "Low", lurl="http://l/")
    offer = read(
        low, bid_of(2.5, " Gamma \n Tours ", "guided walks", ext={"tokenauction": {"budget": 0.05}}), bid_of(2.5)
    )
    assert isinstance(offer, Offer)
    assert (offer.bid_micros, offer.name, offer.offer) == (2_500, "Gamma Tours", "guided walks")
    assert offer.budget_micros == 50_000 and offer.bid.price == Decimal("2.5") and offer.bid.seat == "seat-1"
    assert [other.price for other in offer.others] == [Decimal("1.5"), Decimal("2.5")]
    assert offer.others[0].lurl == "http://l/"


@pytest.mark.parametrize(("price", "micros"), [(2, 2_000), (0.0019999, 1), (0.29, 290), (1e6, 10**9), (4.35, 4_350)])
def test_price_of_a_thousand_tokens_is_a_bid_per_token_rounded_down(price: float, micros: int) -> None:
    offer = read(bid_of(price))
    assert isinstance(offer, Offer) and offer.bid_micros == micros  # and not 4349, as floats would have it


@given(st.decimals(min_value=0, max_value=10**9, allow_nan=False, allow_infinity=False, places=6))
def test_bid_is_never_more_than_the_price(price: Decimal) -> None:
    body = response_to(REQUEST, bid_of(0)).replace(b'"price": 0', f'"price": {price:f}'.encode())
    offer = read_response(body, REQUEST)
    micros = offer.bid_micros if isinstance(offer, Offer) else 0
    assert micros <= price * 1_000 < micros + 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", None),
        (b'{"id": "auc_1"}', None),
        (b'{"id": "auc_1", "nbr": 8}', 8),
        (b'{"id": "auc_1", "nbr": "x", "seatbid": []}', None),
        (response_to(REQUEST), None),
        (response_to(REQUEST, bid_of(0)), None),
        (response_to(REQUEST, bid_of(0.0009)), None),
    ],
)
def test_bidder_may_not_want_to(body: bytes, reason: int | None) -> None:
    assert read_response(body, REQUEST) == NoBid(reason)


def adm(*assets: Any) -> dict[str, Any]:
    return bid_of(1, adm=json.dumps({"assets": list(assets)}))


NAME, WHAT = {"id": 1, "data": {"value": "n"}}, {"id": 2, "data": {"value": "o"}}
HOSTILE: list[tuple[bytes, int]] = [
    (b"{", 3),
    (b"[]", 3),
    (b"null", 3),
    (b'"x"', 3),
    (b"\xff\xfe", 3),
    (b"[" * 100_000, 3),
    (b'{"id": "auc_1", "x": NaN}', 3),
    (b'{"id": "auc_1", "x": ' + b"9" * 10_000 + b"}", 3),
    (b'{"id": "auc_1", "x": 1e99999999999999999999}', 3),
    (b" " * (MAX_RESPONSE + 1) + b"{}", 3),
    (b'{"id": "other"}', 3),
    (b'{"seatbid": []}', 3),
    (response_to(REQUEST, bid_of(1), cur="EUR"), 3),
    (response_to(REQUEST, bid_of(1), cur=["USD"]), 3),
    (b'{"id": "auc_1", "seatbid": {}}', 3),
    (b'{"id": "auc_1", "seatbid": [1]}', 3),
    (b'{"id": "auc_1", "seatbid": [{"bid": 1}]}', 3),
    (response_to(REQUEST, bid_of(1, impid="2")), 3),
    (response_to(REQUEST, bid_of(-1)), 3),
    (response_to(REQUEST, bid_of(1e13)), 3),
    (response_to(REQUEST, {**bid_of(1), "price": "1"}), 9),
    (response_to(REQUEST, {**bid_of(1), "price": True}), 9),
    (response_to(REQUEST, {**bid_of(1), "price": None}), 9),
    (response_to(REQUEST, *[bid_of(1)] * 65), 3),
    (response_to(REQUEST, bid_of(1, adm=None)), 7),
    (response_to(REQUEST, bid_of(1, adm="<a>")), 7),
    (response_to(REQUEST, bid_of(1, adm="[" * 50_000)), 7),
    (response_to(REQUEST, bid_of(1, adm=[1])), 7),
    (response_to(REQUEST, adm()), 7),
    (response_to(REQUEST, adm(NAME)), 7),
    (response_to(REQUEST, adm(NAME, {"id": 2, "data": {"value": 5}})), 7),
    (response_to(REQUEST, adm(NAME, {"id": 2, "data": {"value": " \n "}})), 7),
    (response_to(REQUEST, adm(NAME, {"id": 2, "data": {"value": "x" * 501}})), 7),
    (response_to(REQUEST, adm(NAME, {"id": 2, "data": {"value": "\ud800"}})), 7),
    (response_to(REQUEST, adm(1)), 3),
    (response_to(REQUEST, bid_of(1, ext={"tokenauction": {"budget": "5"}})), 3),
    (response_to(REQUEST, bid_of(1, ext={"tokenauction": {"budget": -5}})), 3),
]


@pytest.mark.parametrize(("body", "loss"), HOSTILE)
def test_answer_that_is_none_is_refused_with_a_reason(body: bytes, loss: int) -> None:
    with pytest.raises(InvalidResponse) as caught:
        read_response(body, REQUEST)
    assert caught.value.loss == loss and len(str(caught.value)) < 300


FIELDS = st.sampled_from(["id", "cur", "seatbid", "bid", "price", "adm", "impid", "ext", "nbr", "assets"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(FIELDS, inner)
)


@given(ANYTHING)
def test_whatever_json_comes_is_an_offer_none_or_refused(value: Any) -> None:
    body = json.dumps({"id": "auc_1", **value} if isinstance(value, dict) else value).encode()
    try:
        assert isinstance(read_response(body, REQUEST), Offer | NoBid)
    except InvalidResponse as refused:
        assert "\n" not in str(refused)


BID = Bid("auc_1", "r-1", "b-1", "seat&1", "c-1", Decimal("2.5"), "USD", None, None, None)


def test_macros_are_filled_and_money_is_exact() -> None:
    url = "http://b/w?id=${AUCTION_ID}&seat=${AUCTION_SEAT_ID}&p=${AUCTION_PRICE}&n=${AUCTION_MULTIPLIER}"
    url += "&c=${AUCTION_CURRENCY}&ad=${AUCTION_AD_ID}&t=${TOKENAUCTION_TOTAL}"
    url += "&m=${AUCTION_MIN_TO_WIN}&x=${OTHER}&l=${AUCTION_LOSS}"
    filled = parse_qs(urlsplit(notice_url(url, BID, num_tokens=29, total_micros=920)).query, keep_blank_values=True)
    said = {name: values[0] for name, values in filled.items()}
    assert said["seat"] == "seat&1" and said["t"] == "0.00092" and (said["m"], said["x"], said["l"]) == ("", "", "")
    assert round(Decimal(said["p"]) * int(said["n"]) / 1_000, 6) == Decimal("0.00092")
    assert notice_url("http://b/l?${AUCTION_LOSS}", BID, loss=102) == "http://b/l?102"


def test_macro_may_ask_for_base64() -> None:
    told = notice_url("http://b/w?p=${AUCTION_PRICE:B64}", BID, num_tokens=10, total_micros=100)
    assert base64.urlsafe_b64decode(told.partition("p=")[2]) == b"0.01"


@given(st.integers(0, 10**12), st.integers(1, 2_048))
def test_price_times_multiplier_is_the_total_but_for_rounding(total: int, num_tokens: int) -> None:
    url = notice_url("${AUCTION_PRICE} ${AUCTION_MULTIPLIER}", BID, num_tokens=num_tokens, total_micros=total)
    price, multiplier = map(Decimal, url.split())
    assert abs(price * multiplier * 1_000 - total) < Decimal("0.01")


@given(st.text(max_size=30) | st.just("\ud800"))
def test_ids_of_a_bidder_cannot_leave_their_place_in_an_address(seat: str) -> None:
    bid = Bid("auc_1", "r", "b", seat, "c", Decimal(1), "USD", None, None, None)
    parts = urlsplit(notice_url("http://host/w?s=${AUCTION_SEAT_ID}", bid))
    assert (parts.hostname, parts.path, parts.fragment) == ("host", "/w", "")

"""OpenRTB 2.6 and a token auction: an auction as a bid request, a bid response as joining it, the end as notices.

    bid_request(auction) → JSON to a bidder → read_response(…) → Offer (a bid per token, a brief) or NoBid → notice_url

Pure; docs/openrtb.md says field by field what becomes of what. An impression is a token: a price, which OpenRTB gives
per thousand impressions, is the bid for a thousand tokens. What is sold is a part in a text, so the markup is a native
ad of two assets: who it is, and what it offers. It must not know HTTP.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Decimal, InvalidOperation
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

from tokenauction.engine.money import MAX_MICROS, from_micros

IMP_ID = "1"
SPONSOR, OFFER = 1, 2  # ids of the assets, and their types in OpenRTB Native 1.2
MAX_RESPONSE = 256 * 1024  # bytes
MAX_BIDS = 64  # in one response
MAX_LINE = 500  # characters of a name or an offer
MAX_TEXT = 4_000  # characters of an id or an address
MICROS_PER_CPM = 1_000  # a unit of currency per thousand tokens is so many micros per token
FIRST_PRICE, SECOND_PRICE = 1, 2  # `at`

OUT_OF_TIME, INVALID, NO_MARKUP, NO_PRICE, BELOW_FLOOR, OUTBID, INTERNAL = 2, 3, 7, 9, 100, 102, 1  # loss reasons
LOSSES: Mapping[str, int] = MappingProxyType(  # of what the server refuses; anything else is INTERNAL
    {"not_live": OUT_OF_TIME, "joining_closed": OUT_OF_TIME, "not_found": OUT_OF_TIME, "brief_missing": NO_MARKUP,
     "invalid_spec": INVALID, "invalid_field": INVALID, "invalid_bid": INVALID}
)  # fmt: skip


class InvalidResponse(ValueError):
    """A bidder's answer that is no bid response to this request; `loss` is OpenRTB's reason."""

    def __init__(self, message: str, loss: int = INVALID) -> None:
        super().__init__(message)
        self.loss = loss


@dataclass(frozen=True)
class NoBid:
    """The bidder does not want to take part; `reason` is OpenRTB's nbr, where it says."""

    reason: int | None = None


@dataclass(frozen=True)
class Bid:
    """One bid of a response, with the addresses for what comes of it."""

    auction_id: str
    response_id: str  # bidid, or the bid's own
    bid_id: str
    seat: str
    ad_id: str
    price: Decimal  # per thousand tokens
    currency: str
    nurl: str | None
    burl: str | None
    lurl: str | None


@dataclass(frozen=True)
class Offer:
    """What an agent joins with; the bids that were not taken lose to it."""

    bid: Bid
    bid_micros: int  # per token
    name: str
    offer: str
    budget_micros: int | None
    others: tuple[Bid, ...] = ()


def bid_request(auction: Mapping[str, Any], tmax_ms: int, *, is_test: bool = False) -> dict[str, Any]:
    """The bid request for an auction as `GET /v1/auctions/ID` describes it, to be answered within `tmax_ms`."""
    assets = [
        {"id": kind, "required": 1, "data": {"type": kind, "len": MAX_LINE}} for kind in (SPONSOR, OFFER)
    ]  # sponsored: who it is; desc: what it offers
    native = {"ver": "1.2", "context": 1, "plcmttype": 2, "plcmtcnt": 1, "assets": assets}
    imp = {
        "id": IMP_ID,
        "native": {"request": json.dumps(native), "ver": "1.2"},
        "bidfloor": 0,
        "bidfloorcur": auction["currency"],
        "qty": {"multiplier": auction["max_tokens"], "sourcetype": 3},
        "secure": 1,
    }
    terms = {name: auction[name] for name in ("auction_id", "query", "rule", "pricing", "max_tokens", "agents")}
    return {
        "id": auction["auction_id"],
        "imp": [imp],
        "site": {"name": "tokenauction", "search": auction["query"]},
        "at": FIRST_PRICE if auction["pricing"] == "first_price" else SECOND_PRICE,
        "tmax": tmax_ms,
        "cur": [auction["currency"]],
        "test": int(is_test),
        "source": {"fd": 1, "tid": auction["auction_id"]},
        "ext": {"tokenauction": {**terms, "unit": "token"}},
    }


def read_response(body: bytes, request: Mapping[str, Any]) -> Offer | NoBid:
    """The highest bid of a response to this request, or none; raises InvalidResponse."""
    if not body.strip():
        return NoBid()
    response = _parse(body)
    if response.get("id") != request["id"]:
        raise InvalidResponse(f"the response is to {response.get('id')!r:.80}, not to {request['id']!r}")
    currency = response.get("cur", "USD")
    if currency not in request["cur"]:
        raise InvalidResponse(f"the response is in {currency!r:.20}; the auction is in {request['cur'][0]}")
    found = [entry for seat in _list(response, "seatbid") for entry in _bids(seat, response, request)]
    if not found:
        reason = response.get("nbr")
        return NoBid(reason if isinstance(reason, int) and not isinstance(reason, bool) else None)
    if len(found) > MAX_BIDS:
        raise InvalidResponse(f"the response has {len(found)} bids; the limit is {MAX_BIDS}")
    best, source = max(found, key=lambda entry: entry[0].price)  # the first of those that are equal
    return _offer(best, source, tuple(bid for bid, _ in found if bid is not best))


def notice_url(url: str, bid: Bid, *, num_tokens: int = 0, total_micros: int = 0, loss: int | None = None) -> str:
    """An address with its macros filled in, each percent-encoded: what a thousand tokens cost, how many there were."""
    price = Decimal(0) if num_tokens == 0 else Decimal(total_micros) / num_tokens / MICROS_PER_CPM
    values = {
        "AUCTION_ID": bid.auction_id,
        "AUCTION_BID_ID": bid.response_id,
        "AUCTION_IMP_ID": IMP_ID,
        "AUCTION_SEAT_ID": bid.seat,
        "AUCTION_AD_ID": bid.ad_id,
        "AUCTION_PRICE": f"{price:.9f}".rstrip("0").rstrip("."),
        "AUCTION_CURRENCY": bid.currency,
        "AUCTION_MULTIPLIER": str(num_tokens),
        "AUCTION_LOSS": "" if loss is None else str(loss),
        "TOKENAUCTION_TOTAL": from_micros(total_micros),  # exact, which price times multiplier is but for rounding
    }

    def fill(macro: re.Match[str]) -> str:
        value = values.get(macro[1], "")  # AUCTION_MBR, AUCTION_MIN_TO_WIN: rivals' numbers, which nobody is told
        if macro[2]:
            return base64.urlsafe_b64encode(value.encode("utf-8", "replace")).decode()
        return quote(value, safe="", errors="replace")

    return re.sub(r"\$\{([A-Z_]+)(:B64)?\}", fill, url)


def _parse(body: bytes) -> Mapping[str, Any]:
    if len(body) > MAX_RESPONSE:
        raise InvalidResponse(f"the response has more than {MAX_RESPONSE} bytes")
    try:
        response = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
    except (ValueError, RecursionError, InvalidOperation):
        raise InvalidResponse("the response is no JSON") from None
    if not isinstance(response, dict):
        raise InvalidResponse("the response is no JSON object")
    return response


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _list(value: Any, name: str) -> list[Mapping[str, Any]]:
    found = value.get(name, [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise InvalidResponse(f"{name} is no list of objects")
    return found


def _text(value: Mapping[str, Any], name: str, default: str = "") -> str:
    """A field that is text and not endless; anything else is as if it were not there."""
    found = value.get(name, default)
    return found if isinstance(found, str) and len(found) <= MAX_TEXT else default


def _bids(
    seat: Mapping[str, Any], response: Mapping[str, Any], request: Mapping[str, Any]
) -> list[tuple[Bid, Mapping[str, Any]]]:
    """The bids of one seat that are for the one impression, each with what it was made from."""
    found = []
    for source in _list(seat, "bid"):
        if source.get("impid") != IMP_ID:
            raise InvalidResponse(f"a bid is for the impression {source.get('impid')!r:.80}; there is {IMP_ID!r} alone")
        price = source.get("price")
        if isinstance(price, bool) or not isinstance(price, int | Decimal):
            raise InvalidResponse("a bid has no price", NO_PRICE)
        if not 0 <= price <= MAX_MICROS // MICROS_PER_CPM:
            raise InvalidResponse(f"a price is outside of 0 to {MAX_MICROS // MICROS_PER_CPM}")
        bid = Bid(
            auction_id=request["id"],
            response_id=_text(response, "bidid", _text(source, "id")),
            bid_id=_text(source, "id"),
            seat=_text(seat, "seat"),
            ad_id=_text(source, "adid") or _text(source, "crid"),
            price=Decimal(price),
            currency=request["cur"][0],
            nurl=_text(source, "nurl") or None,
            burl=_text(source, "burl") or None,
            lurl=_text(source, "lurl") or None,
        )
        found.append((bid, source))
    return found


def _offer(bid: Bid, source: Mapping[str, Any], others: tuple[Bid, ...]) -> Offer | NoBid:
    bid_micros = int((bid.price * MICROS_PER_CPM).to_integral_value(ROUND_FLOOR))
    if bid_micros == 0:
        return NoBid()
    name, offer = _markup(source.get("adm"))
    return Offer(bid, bid_micros, name, offer, _budget(source.get("ext")), others)


def _markup(adm: Any) -> tuple[str, str]:
    """Who it is and what it offers, from a native ad's two assets."""
    try:
        markup = json.loads(adm) if isinstance(adm, str) else adm
    except (ValueError, RecursionError):
        raise InvalidResponse("adm is no native ad: it is no JSON", NO_MARKUP) from None
    if isinstance(markup, dict) and isinstance(markup.get("native"), dict):
        markup = markup["native"]
    if not isinstance(markup, dict):
        raise InvalidResponse("the bid has no adm: a native ad of two assets", NO_MARKUP)
    lines = {}
    for asset in _list(markup, "assets"):
        content = asset.get("data")
        if asset.get("id") in (SPONSOR, OFFER) and isinstance(content, dict) and isinstance(content.get("value"), str):
            lines[asset["id"]] = " ".join(content["value"].split())
    for kind, what in ((SPONSOR, "sponsored, who it is"), (OFFER, "desc, what it offers")):
        line = lines.get(kind, "")
        if not 0 < len(line) <= MAX_LINE or re.search("[\ud800-\udfff]", line):
            raise InvalidResponse(f"asset {kind} ({what}) has 1 to {MAX_LINE} characters of text", NO_MARKUP)
    return lines[SPONSOR], lines[OFFER]


def _budget(ext: Any) -> int | None:
    """`ext.tokenauction.budget`: the most that the whole text may cost, in the auction's currency."""
    own = ext.get("tokenauction") if isinstance(ext, dict) else None
    budget = own.get("budget") if isinstance(own, dict) else None
    if budget is None:
        return None
    if isinstance(budget, bool) or not isinstance(budget, int | Decimal) or not 0 < budget <= MAX_MICROS // 1_000_000:
        raise InvalidResponse("ext.tokenauction.budget is no amount of currency")
    return int((Decimal(budget) * 1_000_000).to_integral_value(ROUND_FLOOR))

"""A small bidder as there are many: an HTTP server that takes OpenRTB requests and knows nothing of auctions of tokens.

It checks a request as strictly as the specification has it, answers what a test wants, and keeps what it is told.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], tuple[int, bytes]]


@dataclass
class RtbBidder:
    """A running bidder."""

    answer: Answer
    port: int = 0
    requests: list[dict[str, Any]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)  # paths that were called
    faults: list[str] = field(default_factory=list)  # what was wrong with a request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def rtb_bidder(answer: Answer) -> Iterator[RtbBidder]:
    """A bidder that answers so."""
    bidder = RtbBidder(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            bidder.requests.append(body)
            if self.headers["X-OpenRTB-Version"] != "2.6":
                bidder.faults.append("no version")
            bidder.faults.extend(faults_of(body))
            self._reply(*bidder.answer(body))

        def do_GET(self) -> None:
            bidder.notices.append(self.path)
            self._reply(200, b"")

        def _reply(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if 300 <= status < 400:
                self.send_header("Location", f"{bidder.url}/redirected")
            with suppress(OSError):  # who asked is gone
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    bidder.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield bidder
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def faults_of(request: dict[str, Any]) -> Iterator[str]:
    """What OpenRTB 2.6 and Native 1.2 say that it must have, and has not."""
    if not isinstance(request.get("id"), str) or not request["id"]:
        yield "id is required"
    if not isinstance(request.get("imp"), list) or not request["imp"]:
        yield "imp is required"
    if request.get("at", 2) not in (1, 2, 3) and request["at"] < 500:
        yield "at is unknown"
    if not isinstance(request.get("tmax", 0), int) or request.get("test", 0) not in (0, 1):
        yield "tmax or test is no integer"
    if ("site" in request) + ("app" in request) + ("dooh" in request) != 1:
        yield "one of site, app and dooh"
    for code in request.get("cur", []):
        if not (isinstance(code, str) and len(code) == 3 and code.isupper()):
            yield "cur is ISO 4217"
    for imp in request.get("imp", []):
        if not isinstance(imp.get("id"), str) or not any(
            kind in imp for kind in ("banner", "video", "audio", "native")
        ):
            yield "an imp has an id and a kind"
        native = json.loads(imp["native"]["request"])
        if native["ver"] != "1.2" or not native["assets"]:
            yield "native has assets"
        for asset in native["assets"]:
            if not isinstance(asset["id"], int) or len({"title", "img", "video", "data"} & set(asset)) != 1:
                yield "an asset is one of four"
        if not isinstance(imp.get("bidfloor", 0), int | float) or imp["qty"]["multiplier"] <= 0:
            yield "bidfloor and qty are numbers"


def response_to(request: dict[str, Any], *bids: dict[str, Any], **fields: Any) -> bytes:
    """A bid response with these bids in one seat."""
    seat = {"seat": "seat-1", "bid": list(bids)}
    return json.dumps({"id": request["id"], "cur": "USD", "bidid": "r-1", "seatbid": [seat], **fields}).encode()


def bid_of(price: float, name: str = "Gamma Tours", offer: str = "guided walks", **fields: Any) -> dict[str, Any]:
    """A bid with a native ad of two assets."""
    assets = [{"id": 1, "data": {"value": name}}, {"id": 2, "data": {"value": offer}}]
    adm = json.dumps({"native": {"ver": "1.2", "assets": assets, "link": {"url": "http://gamma.example"}}})
    return {
        "id": "b-1",
        "impid": "1",
        "price": price,
        "adm": adm,
        "crid": "c-1",
        "adomain": ["gamma.example"],
        **fields,
    }

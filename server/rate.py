"""How many requests somebody may make: an allowance that refills, per key; no clock.

A key is an address or a token's id. At most MAX_KEYS are remembered, those that came last: who is forgotten has a full
allowance again, which takes more strangers than there is room for.
"""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict

from tokenauction.server.refusal import Refused

REQUESTS_PER_SECOND = 50.0  # that are allowed for long
BURST = 200.0  # requests at once
HANDSHAKES_PER_SECOND = 100.0  # of WebSockets, likewise
HANDSHAKE_BURST = 1_000.0
MAX_KEYS = 10_000  # that are remembered


class Rates:
    """The allowances of all keys."""

    def __init__(self, per_second: float = REQUESTS_PER_SECOND, burst: float = BURST, max_keys: int = MAX_KEYS) -> None:
        self.per_second = per_second
        self.burst = burst
        self.max_keys = max_keys
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # allowance, and when it was counted

    def check(self, key: str, now: float) -> None:
        """Count one request; Refused (rate_limited) where it is one too many."""
        if wait := self.take(key, now):
            limit = f"{self.per_second:g} requests a second are allowed, {self.burst:g} at once"
            raise Refused("rate_limited", f"too many requests: {limit}; try again in {math.ceil(wait)} s", wait)

    def take(self, key: str, now: float) -> float:
        """Count one request at `now` (seconds): 0 where it is allowed, else the seconds until one is."""
        left, at = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + max(0.0, now - at) * self.per_second)
        is_allowed = left >= 1
        self._left[key] = (left - is_allowed, now)
        if len(self._left) > self.max_keys:
            self._left.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) / self.per_second


def address_key(host: str) -> str:
    """What stands for an address: itself, or the network of 64 bits that one peer has with IPv6."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        mapped = address.ipv4_mapped
        return str(ipaddress.ip_network((address, 64), strict=False)) if mapped is None else str(mapped)
    return str(address)

"""What every message of the server carries.

A client takes in types and fields that it does not know without complaint. A field that is absent is one that its
reader may not see (visibility.py), or that does not apply; a field that is null has no value.
"""

from __future__ import annotations

import msgspec


class ServerEnvelope(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    """When it was said, and its own id."""

    event_id: str
    time: float  # seconds since 1970-01-01 UTC

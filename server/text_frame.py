"""A WebSocket text message as its server sends it, whole: made once for all who get the same."""

from __future__ import annotations

from websockets.frames import Frame, Opcode


def text_frame(text: bytes) -> bytes:
    """The bytes of one unfragmented, unmasked text message (RFC 6455, 5.2)."""
    return Frame(Opcode.TEXT, text).serialize(mask=False)

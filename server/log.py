"""What a server says of itself: one line for each thing that happens, as JSON or as text, never a secret.

A line names auctions, agents, tokens and connections by their ids. Bids, seeds, keys, tokens and texts are not put into
lines at all; besides, every field is rid of whatever looks like one, since a library's error may quote what it was
given. Whoever configures nothing gets plain messages of the standard library's logging.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Literal, TextIO, cast

import structlog
from structlog.processors import format_exc_info
from structlog.stdlib import BoundLogger, ExtraAdder, ProcessorFormatter
from structlog.typing import EventDict, Processor, WrappedLogger

NAME = "tokenauction"
Format = Literal["text", "json"]
Level = Literal["debug", "info", "warning", "error"]

SECRETS = re.compile(
    r"(?i:\bbearer\s+)[^\s\"',]+"  # a header
    r"|\bta_[A-Za-z0-9_-]{16,}"  # an access token
    r"|(?<![0-9A-Za-z])[0-9a-fA-F]{48,}(?![0-9A-Za-z])"  # tickets, seeds, nonces, keys of steps: 32 bytes
    r"|\b\d{30,}\b"  # a seed as a number
    r"|(?<=://)[^/@\s\"']*:[^/@\s\"']*(?=@)"  # the password in a URL
)
HIDDEN = "[hidden]"
LARGE = 10**29  # no number that is logged is so large, but for a seed


def logger(name: str = "tokenauction.server") -> BoundLogger:
    """A logger whose calls take fields: `log.info("auction settled", auction_id=…)`."""
    processors = [structlog.stdlib.filter_by_level, structlog.stdlib.render_to_log_kwargs]
    wrapped = structlog.wrap_logger(logging.getLogger(name), processors, BoundLogger, dict)
    return cast(BoundLogger, wrapped)


def redact(text: str) -> str:
    """The text without what looks like a secret."""
    return SECRETS.sub(HIDDEN, text)


def _hide(value: Any) -> Any:
    """A field without secrets, however deep they are in it; what JSON does not have becomes its `repr`."""
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < LARGE else HIDDEN
    if isinstance(value, Mapping):
        return {redact(str(name)): _hide(content) for name, content in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_hide(item) for item in value]
    return redact(value if isinstance(value, str) else repr(value))


def _hide_all(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    hidden: EventDict = _hide(event)
    return hidden


def write_log(stream: TextIO, form: Format = "text", level: Level = "info") -> None:
    """Send what this process logs, libraries included (from warnings on), to a stream: a line for each event."""
    handler = logging.StreamHandler(stream)
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    shared: list[Processor] = [structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name, ExtraAdder(), stamp]
    render: Processor = structlog.processors.JSONRenderer() if form == "json" else _text
    processors: list[Processor] = [ProcessorFormatter.remove_processors_meta, format_exc_info, _hide_all, render]
    handler.setFormatter(ProcessorFormatter(foreign_pre_chain=shared, processors=processors))
    root, ours = logging.getLogger(), logging.getLogger(NAME)
    root.handlers[:], ours.handlers[:] = [handler], []
    root.setLevel(logging.WARNING)
    ours.setLevel(level.upper())


def _text(_: WrappedLogger, __: str, event: EventDict) -> str:
    """`time level message  key=value …`, and what was raised below."""
    time, level, message = event.pop("timestamp"), event.pop("level"), event.pop("event")
    event.pop("logger", None)
    raised = event.pop("exception", None)
    line = " ".join([f"{time} {level:<7} {message}", *(f"{name}={value}" for name, value in event.items())])
    line = line.replace("\n", "\\n")
    return line if raised is None else f"{line}\n{raised}"

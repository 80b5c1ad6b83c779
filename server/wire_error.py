"""What is wrong with a message, by a code that stays the same; it knows neither the messages nor who sent them."""

from __future__ import annotations

from types import MappingProxyType

MAX_ERROR_TEXT = 300  # characters of one message to a peer; what it sent is quoted, so there must be a limit

# Codes that the decoder gives: nothing but the bytes was looked at, and nothing has changed.
DECODER_CODES = MappingProxyType(
    {
        "message_too_large": "more bytes than a message of its kind may have",
        "invalid_utf8": "the text is not UTF-8",
        "too_deep": "objects and lists are nested too deeply",
        "number_too_long": "a number has more digits than any number here needs",
        "invalid_number": "NaN, Infinity, or a number beyond the range of float64",
        "invalid_json": "not one JSON value",
        "duplicate_field": "an object gives one field twice: which one would count?",
        "not_an_object": "the message is not an object",
        "unknown_type": "no client message has this type",
        "unknown_field": "the message has a field that its type does not have",
        "missing_field": "the message lacks a field",
        "invalid_field": "a field has a value of the wrong type, range or length",
        "invalid_frame": "the binary frame's header, names or length are wrong",
        "unsupported_frame": "the binary frame has a version or number format that is not known here",
        "invalid_distribution": "ids and log-probabilities do not go together, or an id is given twice",
        "not_finite": "a log-probability is NaN, infinite or above 0",
        "not_normalised": "the probabilities do not sum to 1",
    }
)


class WireError(Exception):
    """A message cannot be used: a stable code, and one line for people that quotes at most a little of it."""

    def __init__(self, code: str, message: str, *, request: str | None = None, request_id: str | None = None) -> None:
        assert code in DECODER_CODES, f"{code} has no line in DECODER_CODES"
        super().__init__(one_line(message))
        self.code = code
        self.request = request  # the type of the message, where it could be read
        self.request_id = request_id  # the same of its request_id

    @property
    def message(self) -> str:
        return str(self)


def one_line(text: str) -> str:
    """The text without anything that could break a line or a terminal, cut to MAX_ERROR_TEXT characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text[: MAX_ERROR_TEXT + 1])
    return clean if len(clean) <= MAX_ERROR_TEXT else clean[: MAX_ERROR_TEXT - 1] + "…"

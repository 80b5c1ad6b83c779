"""What the house refuses, with a stable code; how that is shown (a status, an event) is its caller's affair."""

from __future__ import annotations

from tokenauction.engine.errors import TokenAuctionError


class Refused(TokenAuctionError):
    """The house does not do what it was asked; nothing has changed. The message is one line, with limit and remedy."""

    def __init__(self, code: str, message: str, retry_seconds: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retry_seconds = retry_seconds  # after which another try may go well, where that is known

"""Every error a caller can meet, as one tree; it knows nothing of how an error is shown.

    TokenAuctionError                  root; `code` is stable and goes on the wire
    ├── InvalidInput (ValueError)      a wrong argument: names the value and the remedy
    │   ├── InvalidDistribution        NaN, inf, negative, wrong shape, does not sum to 1
    │   └── InvalidBid                 NaN, inf, negative, finer than a micro
    ├── InvalidSpec (ValueError)       an auction's description cannot be used
    ├── NoWeight                       every weight is zero and there is no reference
    ├── NoCommonSupport                log_linear: no token has positive probability under every agent
    ├── UnsafeCombination              (rule, sampler, pricing) promises nothing and allow_unsafe is not set
    ├── IllegalTransition              the auction is not in a state that allows this
    ├── ReceiptError (ValueError)      a receipt cannot be read (one that does not *hold* is a verdict, not an error)
    └── CapacityError                  no room: rows, memory or context; names the limit and the remedy

Errors of models are in `tokenauction.models.base`, which knows nothing of the engine.
"""

from __future__ import annotations


class TokenAuctionError(Exception):
    """Root of the errors that callers are expected to meet; the message is one line for people."""

    code = "error"


class InvalidInput(TokenAuctionError, ValueError):
    """A wrong argument; the message names the value and the remedy."""

    code = "invalid_input"


class InvalidDistribution(InvalidInput):
    """A distribution is not one: NaN, infinite, negative, of the wrong length, or not summing to 1."""

    code = "invalid_distribution"


class InvalidBid(InvalidInput):
    """A bid or weight is NaN, infinite, negative, or finer than one micro."""

    code = "invalid_bid"


class InvalidSpec(TokenAuctionError, ValueError):
    """The description of an auction cannot be used; the message names the field."""

    code = "invalid_spec"


class NoWeight(TokenAuctionError):
    """Every weight is zero and no reference takes part, so there is nothing to draw from."""

    code = "no_weight"


class NoCommonSupport(TokenAuctionError):
    """Log-linear aggregation found no token that every weighted agent allows."""

    code = "no_common_support"


class UnsafeCombination(TokenAuctionError):
    """This (rule, sampler, pricing) carries no guarantee and `allow_unsafe` was not given."""

    code = "unsafe_combination"


class IllegalTransition(TokenAuctionError):
    """The auction's state does not allow this; the message names the state and what is legal."""

    code = "illegal_transition"


class ReceiptError(TokenAuctionError, ValueError):
    """A receipt cannot be read at all: not JSON lines, or lines of the wrong kind."""

    code = "receipt_error"


class CapacityError(TokenAuctionError):
    """No room for this now or ever; the message names the limit and the remedy."""

    code = "capacity"

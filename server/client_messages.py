"""What a client may say: every message a strict struct. Amounts are whole micros; a null is the same as nothing.

    auction.create       begin an auction          agent.join           take part, with a bid and a brief
    auction.cancel       stop one                  bid.update           another bid, from the next token on
    subscribe            watch one                 agent.leave          take part no longer
    unsubscribe          watch it no longer        distribution.submit  one token's distribution, of an own model
    ping                 is anybody there?

It must not know who may send what (session.py) nor how bytes become a struct (wire.py).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tokenauction.engine.money import MAX_MICROS

MAX_ID = 128  # characters
MAX_TEXT = 4_000  # characters of one field, as in engine.spec (which a client need not load: it brings torch)
MAX_TOKENS = 100_000  # of one text, the same
MAX_SEQ = 2**53 - 1  # beyond it a browser no longer counts
MAX_TOKEN_ID = 2**31 - 1
MAX_SPARSE_TOKENS = 4_096  # entries of a distribution that is sent as JSON

_LINE = r"^[^\x00-\x1f\x7f\u2028\u2029]+$"  # one line that is not empty

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID, pattern=_LINE)]
Micros = Annotated[int, Meta(ge=0, le=MAX_MICROS, description="whole millionths of the auction's currency")]
Seq = Annotated[int, Meta(ge=-1, le=MAX_SEQ, description="an event's place in its auction's stream; -1: before all")]
Epoch = Annotated[int, Meta(ge=0, le=MAX_SEQ, description="which life of the stream; a crash begins a new one")]
Step = Annotated[int, Meta(ge=0, le=MAX_TOKENS, description="which token of the text, from 0")]
Line = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT, pattern=_LINE)]
TokenId = Annotated[int, Meta(ge=0, le=MAX_TOKEN_ID)]
LogProb = Annotated[float, Meta(le=0, description="natural logarithm of a probability")]
VocabularyHash = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$", description="SHA-256 that names the vocabulary")]


class _Request(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type"
):
    """What every message of a client may carry."""

    request_id: Id | None = None  # comes back with the answer


class AuctionCreate(_Request, tag="auction.create", frozen=True, kw_only=True):
    """Begin an auction. `spec` is the engine's (amounts are decimal strings), `tmax_join_ms`, `token_ms` beside it."""

    spec: dict[str, Any]
    idempotency_key: Id | None = None  # the same key with the same spec begins nothing twice


class AuctionCancel(_Request, tag="auction.cancel", frozen=True, kw_only=True):
    """Stop an auction at its next token; what was written is charged."""

    auction_id: Id


class Subscribe(_Request, tag="subscribe", frozen=True, kw_only=True):
    """Watch an auction: every event behind `after_seq`, first from the ledger, then as it comes."""

    auction_id: Id
    after_seq: Seq = -1
    epoch: Epoch | None = None  # in which `after_seq` was seen; needed to resume behind a crash
    agent_id: Id | None = None  # as whom, where the token may act for more than one agent


class Unsubscribe(_Request, tag="unsubscribe", frozen=True, kw_only=True):
    """Watch an auction no longer."""

    auction_id: Id


class Brief(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an agent advertises; it goes into the prompts."""

    name: Line
    offer: Line


class AgentJoin(_Request, tag="agent.join", frozen=True, kw_only=True):
    """Take part in an auction, or take part again after a lost connection."""

    auction_id: Id
    agent_id: Id
    bid_micros: Micros  # per token
    budget_micros: Micros | None = None  # for the whole text; it is held until the settlement
    brief: Brief | None = None  # needed unless the auction lists the agent
    own_model: bool = False  # it sends the distributions of its own model, where the auction allows that
    vocabulary_hash: VocabularyHash | None = None  # of that model's tokenizer; needed with it


class BidUpdate(_Request, tag="bid.update", frozen=True, kw_only=True):
    """Replace a bid; the answer names the first step that it counts for."""

    auction_id: Id
    agent_id: Id
    bid_micros: Micros
    bid_id: Id | None = None  # the same id with the same bid is the same bid, not another one


class AgentLeave(_Request, tag="agent.leave", frozen=True, kw_only=True):
    """Take part no longer, for good; what is owed stays owed."""

    auction_id: Id
    agent_id: Id


class DistributionSubmit(_Request, tag="distribution.submit", frozen=True, kw_only=True):
    """The distribution of an agent that runs its own model: the most likely tokens, and the rest as one number."""

    auction_id: Id
    agent_id: Id
    step: Step
    vocabulary_hash: VocabularyHash
    ids: Annotated[list[TokenId], Meta(max_length=MAX_SPARSE_TOKENS)]
    log_probs: Annotated[list[LogProb], Meta(max_length=MAX_SPARSE_TOKENS)]
    tail_mass: Annotated[float, Meta(ge=0, le=1, description="probability of all tokens that are not listed")]


class Ping(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="type", tag="ping"):
    """Ask for a pong, for instance to measure the way there and back."""

    id: Id | None = None


JsonMessage = (
    AuctionCreate
    | AuctionCancel
    | Subscribe
    | Unsubscribe
    | AgentJoin
    | BidUpdate
    | AgentLeave
    | DistributionSubmit
    | Ping
)
JSON_MESSAGES: tuple[type[msgspec.Struct], ...] = (
    AuctionCreate,
    AuctionCancel,
    Subscribe,
    Unsubscribe,
    AgentJoin,
    BidUpdate,
    AgentLeave,
    DistributionSubmit,
    Ping,
)

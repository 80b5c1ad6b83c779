"""What the server says to one connection alone: answers and notices, which carry no `seq`."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from tokenauction.server.envelope import ServerEnvelope


class _Answer(ServerEnvelope, frozen=True, kw_only=True):
    """What every answer carries: the `request_id` of the message that it answers."""

    request_id: str | UnsetType = UNSET


class SessionCreated(_Answer, tag="session.created", frozen=True, kw_only=True):
    """The first message of every connection: who the server takes the client for, and what it may send."""

    session_id: str
    scopes: list[str]
    agent_id: str | None
    max_message_bytes: int
    max_frame_bytes: int


class AuctionAccepted(_Answer, tag="auction.accepted", frozen=True, kw_only=True):
    """The auction is on the ledger."""

    auction_id: str
    state: str
    replayed: bool


class AgentJoined(_Answer, tag="agent.joined", frozen=True, kw_only=True):
    """The agent takes part."""

    auction_id: str
    agent_id: str
    effective_from_step: int


class BidAccepted(_Answer, tag="bid.accepted", frozen=True, kw_only=True):
    """The bid is on the ledger, and counts from this step on."""

    auction_id: str
    agent_id: str
    bid_micros: int
    effective_from_step: int
    bid_id: str | UnsetType = UNSET


class BidRejected(_Answer, tag="bid.rejected", frozen=True, kw_only=True):
    """The bid changes nothing; the code says why."""

    auction_id: str
    agent_id: str
    code: str
    message: str
    bid_id: str | UnsetType = UNSET


class StepOpened(_Answer, tag="step.opened", frozen=True, kw_only=True):
    """The distribution of this step is awaited from an agent with its own model, for so long."""

    auction_id: str
    agent_id: str
    step: int
    deadline_ms: float
    last_token_id: int | None  # the text's last token; null before the first
    token_ids: list[int] | UnsetType = UNSET  # the whole text so far, with the first that is opened on a connection


class StepMissed(_Answer, tag="step.missed", frozen=True, kw_only=True):
    """The distribution did not come in time: the agent is absent for this token."""

    auction_id: str
    agent_id: str
    step: int
    num_missed: int  # in a row
    suspended_until_step: int | None  # it is not asked before; null: it is asked about the next


class PaymentPosted(_Answer, tag="payment.posted", frozen=True, kw_only=True):
    """An agent's payment is on the ledger: the only message that bills, for the agent and those who see every number.

    It comes right before the `auction.settled` that it belongs to, also in a replay, then with the same `event_id`.
    """

    auction_id: str
    agent_id: str
    total_micros: int
    total: str
    currency: str
    receipt_head: str


class StreamGap(_Answer, tag="stream.gap", frozen=True, kw_only=True):
    """The client read too slowly: the events behind `after_seq` up to `last_seq` are not sent."""

    auction_id: str
    after_seq: int
    last_seq: int


class StreamSnapshot(_Answer, tag="stream.snapshot", frozen=True, kw_only=True):
    """Where an auction stands at `last_seq`; it follows a gap."""

    auction_id: str
    last_seq: int
    epoch: int
    state: str
    num_tokens: int
    text: str


class Error(_Answer, tag="error", frozen=True, kw_only=True):
    """A message was refused and nothing has changed; the connection stays open."""

    code: str
    message: str
    request: str | UnsetType = UNSET  # the type of the message that was refused, where it could be read
    retry_after_ms: int | UnsetType = UNSET


class Pong(_Answer, tag="pong", frozen=True, kw_only=True):
    """The answer to a ping."""

    id: str | None = None


ANSWERS: tuple[type[_Answer], ...] = (
    SessionCreated,
    AuctionAccepted,
    AgentJoined,
    BidAccepted,
    BidRejected,
    StepOpened,
    StepMissed,
    PaymentPosted,
    StreamGap,
    StreamSnapshot,
    Error,
    Pong,
)

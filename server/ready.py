"""From a spec to an auction that the decoder can take: prompts, policy, and whether they fit into the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tokenauction.engine.decoder import Decoder
from tokenauction.engine.performance import Performance
from tokenauction.engine.policy import Policy
from tokenauction.engine.seed import Seed
from tokenauction.engine.spec import AuctionSpec
from tokenauction.server.refusal import Refused

Prepare = Callable[[AuctionSpec], tuple[list[list[int]], Policy]]


async def ready(
    decoder: Decoder, prepare: Prepare, spec: AuctionSpec, auction_id: str, seed: Seed, *, is_paced: bool = False
) -> Performance:
    """The engine's side of an auction; raises TokenAuctionError or ModelError where the model cannot write it."""
    prompts, policy = await asyncio.to_thread(prepare, spec)
    longest, limit = max(map(len, prompts)) + spec.max_tokens, decoder.model.max_length
    if longest > limit:
        raise Refused("prompt_too_long", f"prompts and max_tokens take {longest} tokens; the model has {limit}")
    return decoder.prepare(spec, prompts, policy, auction_id, seed, is_paced=is_paced)

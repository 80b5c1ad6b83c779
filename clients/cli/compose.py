"""Putting the pieces together: a model from a folder, prompts and policy from a spec, a decoder from both."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import tokenauction
from tokenauction import models
from tokenauction.engine.auction import Auction
from tokenauction.engine.decoder import Decoder, StepsChoice
from tokenauction.engine.errors import InvalidInput, InvalidSpec, TokenAuctionError
from tokenauction.engine.finalizer_spec import PROPOSAL_ID
from tokenauction.engine.performance import Performance
from tokenauction.engine.policy import Policy
from tokenauction.engine.proposal import writing_ids
from tokenauction.engine.reading import inner_text
from tokenauction.engine.spec import AuctionSpec
from tokenauction.models.base import LanguageModel, Tokenizer
from tokenauction.models.prompts import EVERYONE, NOBODY, Advertiser, prompt_ids

DEFAULT_MODEL = Path(models.__file__).parent / "default"
EXAMPLES = Path(tokenauction.__file__).parent / "examples"
MAX_QUEUED = 256  # auctions that wait for rows at a time; the decoder looks at each of them in every step


class AuctionFailed(TokenAuctionError):
    """An auction whose text was needed failed; message and code are those of its error event."""

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


def use_threads() -> None:
    """Leave one core to the rest of the program: decoding uses cores - 1 threads, at least 1."""
    torch.set_num_threads(max(1, (os.cpu_count() or 2) - 1))


@dataclass(frozen=True)
class ModelChoice:
    """Which model, and how it is computed: what the options of the commands say."""

    source: str | None = None  # a folder or hub name; None is the shipped checkpoint
    runner: str = "auto"
    numerics: str = "auto"
    cache_gib: float = 2.0  # keys and values of all rows together

    def load(self, max_rows: int = 64) -> LanguageModel:
        """The model, ready; raises ModelNotLoadable, and InvalidInput for a choice that cannot be had."""
        cache_bytes = int(self.cache_gib * 2**30)
        return load_model(
            self.source, max_rows=max_rows, runner=self.runner, numerics=self.numerics, cache_bytes=cache_bytes
        )


def load_model(source: str | None, **options: Any) -> LanguageModel:
    """The model in `source` (a folder or hub name), or the shipped one; `options` as `models.loading.load_model`.

    Raises ModelNotLoadable if there is none, and InvalidInput for options that do not go together.
    """
    # These take a second to import, which whoever needs no model should not wait for.
    from transformers.utils.logging import disable_progress_bar

    from tokenauction.models import loading

    use_threads()
    disable_progress_bar()  # type: ignore[no-untyped-call]  # it would write over the live view
    if source is None:
        source, options = str(DEFAULT_MODEL), {"name": "tokenauction-default", **options}
    if not source.strip():
        raise InvalidInput("--model is empty; name a folder or a model of the hub")
    try:
        return loading.load_model(source, **options)
    except ValueError as error:
        raise InvalidInput(str(error)) from error


def prompts_for(spec: AuctionSpec, tokenizer: Tokenizer) -> list[list[int]]:
    """One prompt for each row that the platform's model computes: every hosted agent's, then the reference's.

    A softmax auction has the reference's in any case, and one that names everybody where its proposal is context-aware.
    """
    advertisers = [Advertiser(agent.name, agent.offer) for agent in spec.agents]
    prompts = [
        prompt_ids(tokenizer, spec.query, advertisers, row, system_prompt=agent.system_prompt, prompt=agent.prompt)
        for row, agent in enumerate(spec.agents)
        if not agent.own_model
    ]
    if spec.has_reference or spec.finalizer is not None:
        prompts.append(prompt_ids(tokenizer, spec.query, advertisers, NOBODY))
    if spec.finalizer is not None and PROPOSAL_ID in spec.hosted_ids:
        prompts.append(prompt_ids(tokenizer, spec.query, advertisers, EVERYONE))
    return prompts


def new_decoder(model: LanguageModel, *, store_distributions: bool = False, steps: StepsChoice = "auto") -> Decoder:
    """A decoder whose ids, times and entropy come from the operating system."""
    return Decoder(
        model,
        stamp=lambda: (f"evt_{uuid.uuid4().hex}", time.time()),
        entropy=os.urandom,
        store_distributions=store_distributions,
        steps=steps,
    )


def prepare(decoder: Decoder, spec: AuctionSpec, policy: Policy | None = None) -> Performance:
    """An auction with the prompts that its spec asks for, and its policy (made here if it is not at hand)."""
    if spec.own_model_ids:
        name = min(spec.own_model_ids)
        raise InvalidSpec(f"{name!r} runs its own model, for which only a server waits: serve, and create it there")
    tokenizer = decoder.model.tokenizer
    policy = policy or policy_for(spec, tokenizer)
    return decoder.prepare(spec, prompts_for(spec, tokenizer), policy, f"auc_{uuid.uuid4().hex}")


def submit(decoder: Decoder, spec: AuctionSpec, policy: Policy | None = None) -> Auction:
    """Prepare an auction and queue it."""
    performance = prepare(decoder, spec, policy)
    decoder.enqueue(performance)
    return performance.auction


def rows_of(spec: AuctionSpec) -> int:
    """How many rows of a model an auction takes when all of it runs at once."""
    if spec.finalizer is None:
        return len(spec.row_ids)
    return spec.finalizer.num_candidates * len(writing_ids(spec, spec.finalizer))


def settle_all(
    decoder: Decoder, specs: Iterable[AuctionSpec], on_settled: Callable[[], None]
) -> list[Mapping[str, Any]]:
    """Run many auctions as one batch at full speed; the fields of their last events, in the order of `specs`.

    Raises AuctionFailed for the first that fails: a table must not hide it.
    """
    left = iter(specs)
    policies: dict[tuple[str, ...], Policy] = {}
    order: list[str] = []
    settled: dict[str, Mapping[str, Any]] = {}
    while True:
        for spec in islice(left, MAX_QUEUED - len(decoder.scheduler.waiting)):
            if spec.banned_words not in policies:
                policies[spec.banned_words] = policy_for(spec, decoder.model.tokenizer)
            order.append(submit(decoder, spec, policies[spec.banned_words]).auction_id)
        if not decoder.has_work:
            return [settled[auction_id] for auction_id in order]
        for event in decoder.step():
            if event.type == "error":
                raise AuctionFailed(event.fields["message"], event.fields["code"])
            if event.type == "auction.settled":
                settled[event.auction_id] = event.fields
                on_settled()


def policy_for(spec: AuctionSpec, tokenizer: Tokenizer) -> Policy:
    """The policy of a spec: its banned words as text, and as the tokenizer spells them where a character is bytes."""
    if not spec.banned_words:
        return Policy()
    spellings = {form for word in spec.banned_words for form in (word, word.lower(), word.upper(), word.capitalize())}
    sequences = {tuple(tokenizer.encode(lead + form)) for form in spellings if not form.isascii() for lead in ("", " ")}
    return Policy(spec.banned_words, token_texts(tokenizer), tuple(sorted(sequences)))


def token_texts(tokenizer: Tokenizer) -> tuple[str, ...]:
    """The text of every id as it stands inside a text: what it adds behind another token."""
    read = inner_text(tokenizer)
    return tuple(read([token]) for token in range(tokenizer.vocab_size))

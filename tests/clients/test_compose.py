"""The pieces put together: many auctions through one decoder, and what a spec means for prompts and banned words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tokenauction.engine.errors import TokenAuctionError
from tokenauction.engine.spec import AgentSpec, AuctionSpec

pytestmark = pytest.mark.slow  # importing torch and tokenizers takes its time


def spec_of(seed: int, **changes: Any) -> AuctionSpec:
    agents = tuple(AgentSpec(name, f"Name {name}", "an offer", 1000) for name in ("a", "b"))
    return AuctionSpec("a query", agents, seed=seed, **{"max_tokens": 3, **changes})


@pytest.fixture
def decoder() -> Any:
    """A decoder on the toy world."""
    from tokenauction.clients.cli.compose import new_decoder
    from tokenauction.models.toy import ToyModel, ToyWorld

    return new_decoder(ToyModel(ToyWorld(3, "abcdefghij ."), max_rows=8, max_length=64))


def test_settle_all_answers_in_the_order_of_the_specs(decoder: Any) -> None:
    from tokenauction.clients.cli.compose import new_decoder, settle_all

    told: list[None] = []
    together = settle_all(
        decoder, [spec_of(seed, max_tokens=1 + seed % 5) for seed in range(12)], lambda: told.append(None)
    )
    assert len(told) == 12
    for seed, fields in enumerate(together):
        [alone] = settle_all(new_decoder(decoder.model), [spec_of(seed, max_tokens=1 + seed % 5)], lambda: None)
        assert (fields["seed"], fields["text"], fields["agents"]) == (alone["seed"], alone["text"], alone["agents"])


def test_settle_all_takes_more_auctions_than_may_wait(decoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from tokenauction.clients.cli import compose

    monkeypatch.setattr("tokenauction.engine.decoder.MAX_WAITING", 10)
    monkeypatch.setattr(compose, "MAX_QUEUED", 10)
    specs = (spec_of(seed, max_tokens=1) for seed in range(35))
    assert len(compose.settle_all(decoder, specs, lambda: None)) == 35


def test_settle_all_queues_no_more_than_may_wait() -> None:
    from tokenauction.clients.cli.compose import MAX_QUEUED
    from tokenauction.engine.scheduler import MAX_WAITING

    assert MAX_QUEUED <= MAX_WAITING


def test_settle_all_of_nothing_is_nothing(decoder: Any) -> None:
    from tokenauction.clients.cli.compose import settle_all

    assert settle_all(decoder, [], lambda: None) == []


def test_settle_all_stops_at_an_auction_that_fails(decoder: Any) -> None:
    from tokenauction.clients.cli.compose import settle_all

    with pytest.raises(TokenAuctionError, match="longer than the model's context of 64") as failed:
        settle_all(decoder, [spec_of(0), spec_of(1, max_tokens=1000), spec_of(2)], lambda: None)
    assert failed.value.code == "prompt_too_long"


def test_prompts_for_gives_every_row_its_own(decoder: Any) -> None:
    from tokenauction.clients.cli.compose import prompts_for

    tokenizer = decoder.model.tokenizer
    spec = spec_of(0, reference_weight_micros=5)
    prompts = prompts_for(spec, tokenizer)
    assert len(prompts) == len(spec.row_ids) == 3
    assert len({tuple(prompt) for prompt in prompts}) == 3


@pytest.mark.parametrize("name", ["nobody", "everyone", "2"])
def test_prompts_for_an_advertiser_with_an_odd_name_are_its_own(decoder: Any, name: str) -> None:
    """An agent called "nobody" must not be given the reference's prompt."""
    from tokenauction.clients.cli.compose import prompts_for

    agents = (AgentSpec("a", name, "an offer", 1000), AgentSpec("b", "Beta", "an offer", 1000))
    spec = AuctionSpec("a query", agents, reference_weight_micros=5)
    assert len({tuple(prompt) for prompt in prompts_for(spec, decoder.model.tokenizer)}) == 3


@pytest.fixture(scope="module")
def tokenizer(tiny_checkpoint: Any) -> Any:
    """A byte-level tokenizer."""
    from tokenauction.models.tokenizer import HuggingFaceTokenizer

    return HuggingFaceTokenizer.load(tiny_checkpoint)


def test_token_texts_say_what_a_token_adds_inside_a_text(tokenizer: Any) -> None:
    from tokenauction.clients.cli.compose import token_texts

    texts = token_texts(tokenizer)
    assert len(texts) == tokenizer.vocab_size
    ids = tokenizer.encode("Fly to Hawaii.")
    assert "".join(texts[token] for token in ids) == "Fly to Hawaii."


Policy = Callable[[str], Any]


@pytest.fixture
def policy(tokenizer: Any) -> Policy:
    """`policy(word)`: the policy of a spec that bans one word."""
    from tokenauction.clients.cli.compose import policy_for

    return lambda word: policy_for(spec_of(0, banned_words=(word,)), tokenizer)


@pytest.mark.parametrize("word", ["Hawaii", "hawaii", "Grüße", "€", "航空", "🏝"])
def test_policy_for_a_word_bans_every_spelling_of_it(tokenizer: Any, policy: Policy, word: str) -> None:
    banned = policy(word)
    for form in {word, word.lower(), word.upper(), word.capitalize()}:
        for text in (form, f"to {form}", f"to {form} now"):
            ids = tokenizer.encode(text)
            assert any(token in banned.forbidden(ids[:place]) for place, token in enumerate(ids)), text


@pytest.mark.parametrize("text", ["a way to swim", "Alpha", "Grund"])
def test_policy_for_a_word_leaves_others_alone(tokenizer: Any, policy: Policy, text: str) -> None:
    ids = tokenizer.encode(text)
    for word in ("Hawaii", "Grüße"):
        banned = policy(word)
        assert not any(token in banned.forbidden(ids[:place]) for place, token in enumerate(ids))


def test_policy_for_no_words_bans_nothing(tokenizer: Any) -> None:
    from tokenauction.clients.cli.compose import policy_for

    assert not policy_for(spec_of(0), tokenizer).has_bans

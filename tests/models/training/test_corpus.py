"""The corpus: what is held out stays out, decisions belong to who controlled them, texts do not see each other."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from tokenauction import models
from tokenauction.models.prompts import EVERYONE, NOBODY
from tokenauction.models.training import words
from tokenauction.models.training.briefs import BriefWriter, side_of
from tokenauction.models.training.corpus import Corpus, make_batch
from tokenauction.models.training.texts import TextWriter, Writer

MANY = 200


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(Path(models.__file__).parent / "default" / "tokenizer.json"))


LISTS = {
    "modifiers": words.MODIFIERS,
    "materials": words.MATERIALS,
    "products": words.PRODUCTS,
    "places": words.PLACES,
    "name words": words.NAME_WORDS,
}


@pytest.mark.parametrize("name", LISTS)
def test_each_list_is_split_into_two_sides_that_share_nothing(name: str) -> None:
    trained, held_out = (set(side_of(LISTS[name], held_out=side)) for side in (False, True))
    assert not trained & held_out
    assert len(held_out) >= 5
    assert 0.03 < len(held_out) / len(trained | held_out) < 0.25


def test_held_out_briefs_draw_their_products_from_the_held_out_side() -> None:
    trained = set(side_of(words.PRODUCTS, held_out=False))
    writer = BriefWriter(held_out=True)
    for number in range(MANY):
        brief = writer.brief(random.Random(number), 2)
        for advertiser, category in zip(brief.advertisers, brief.categories, strict=True):
            own = " ".join((*words.CATEGORIES[category].plurals, *words.CATEGORIES[category].singles))
            heads = [w for w in advertiser.offer.split() if w in trained and w not in own]
            assert not heads, f"{advertiser.offer} holds {heads}, which training saw as products"


def test_briefs_keep_the_examples_words_out_of_training() -> None:
    writer = BriefWriter(held_out=False)
    for number in range(MANY):
        brief = writer.brief(random.Random(number), 3)
        text = f"{brief.query} {brief.advertisers}".lower()
        assert not any(re.search(rf"\b{word}\b", text) for word in ("alpha", "beta", "hawaii"))


def test_briefs_give_advertisers_that_can_be_told_apart() -> None:
    for number in range(MANY):
        brief = BriefWriter(held_out=True).brief(random.Random(number), 4)
        for i, a in enumerate(brief.advertisers):
            for b in brief.advertisers[:i]:
                assert a.name not in b.name
                assert b.name not in a.name


def text_of(pieces: list[Any]) -> str:
    return "".join(piece.text for piece in pieces)


def test_writers_alone_name_themselves_and_the_reference_names_nobody() -> None:
    num_own_only = 0
    for number in range(MANY):
        rng = random.Random(number)
        brief = BriefWriter(held_out=False).brief(rng, 2)
        own = text_of(TextWriter(brief, Writer(1), (), 1.0, rng).write(None))
        assert brief.advertisers[1].name in own
        num_own_only += brief.advertisers[0].name not in own
        neutral = text_of(TextWriter(brief, Writer(None, NOBODY), (), 1.0, rng).write(None))
        assert not any(a.name in neutral for a in brief.advertisers)
        everyone = text_of(TextWriter(brief, Writer(None, EVERYONE), (), 1.0, rng).write(None))
        assert brief.advertisers[0].name in everyone
    assert num_own_only / MANY > 0.85


def test_a_writer_learns_no_decision_that_a_partner_took() -> None:
    for number in range(MANY):
        rng = random.Random(number)
        brief = BriefWriter(held_out=False).brief(rng, 2)
        pieces = TextWriter(brief, Writer(0), (Writer(1),), 0.0, rng).write(None)
        ends = [piece for piece in pieces if piece.text in (".", "", ", and", ", while", " and", ", then")]
        assert all(piece.weight == 0.0 for piece in ends)


def test_examples_are_a_function_of_seed_and_number(tokenizer: Any) -> None:
    first, second = Corpus(tokenizer, 1), Corpus(tokenizer, 1)
    second.example(3)
    assert vars(first.example(5)) == vars(second.example(5))
    assert vars(first.example(5)) != vars(first.example(6))
    assert vars(first.example(5)) != vars(Corpus(tokenizer, 2).example(5))


def nodes_of(example: Any) -> list[list[int]]:
    """The places of each node's tokens."""
    return [[i for i, n in enumerate(example.nodes) if n == node] for node in range(max(example.nodes) + 1)]


def test_example_is_a_tree_of_brief_lines_and_texts(tokenizer: Any) -> None:
    corpus = Corpus(tokenizer, 1)
    for number in range(20):
        example = corpus.example(number)
        assert len({len(column) for column in vars(example).values()}) == 1
        brief, *others = nodes_of(example)
        for places in others:
            above = nodes_of(example)[example.parents[places[0]]]
            assert len({example.parents[i] for i in places}) == 1
            start = example.positions[above[-1]] + 1
            assert [example.positions[i] for i in places] == list(range(start, start + len(places)))
            assert [example.targets[i] for i in places[:-1]] == [example.ids[i] for i in places[1:]]
        texts = [places for places in others if example.parents[places[0]] != 0]
        assert len(texts) >= 2
        assert all(example.targets[places[-1]] == corpus.end_id for places in texts)
        assert all(example.weights[i] == 0.0 for i in brief)


def test_texts_of_one_line_begin_where_a_prompt_ends(tokenizer: Any) -> None:
    corpus = Corpus(tokenizer, 1)
    stop = corpus.encode("x.")[-1]
    for number in range(20):
        example = corpus.example(number)
        for places in nodes_of(example)[1:]:
            is_text = example.parents[places[0]] != 0
            assert (example.ids[places[0]] == stop) == is_text
            if not is_text:
                assert example.targets[places[-1]] == stop
                assert example.weights[places[-1]] == 0.0


def test_lines_carry_a_loss_on_what_the_list_tells(tokenizer: Any) -> None:
    corpus = Corpus(tokenizer, 1)
    example = corpus.example(1)
    brief, line, *_ = nodes_of(example)
    learnt = tokenizer.decode([example.targets[i] for i in line if example.weights[i] > 0])
    assert learnt.strip() in tokenizer.decode([example.ids[i] for i in brief])
    assert ":" in learnt


def test_batch_mask_lets_a_token_see_its_node_and_those_above(tokenizer: Any) -> None:
    corpus = Corpus(tokenizer, 1)
    examples = [corpus.example(number) for number in range(3)]
    batch = make_batch(examples)
    for row, example in enumerate(examples):
        for query in range(0, len(example.ids), 7):
            seen = batch.mask[row, 0, query, : len(example.ids)].tolist()
            path = {0, example.nodes[query], example.parents[query]}
            assert seen == [k <= query and example.nodes[k] in path for k in range(len(example.ids))]
    assert torch.equal(batch.targets >= 0, batch.targets != -1)

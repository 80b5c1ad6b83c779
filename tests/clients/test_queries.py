"""The shipped queries are fifty, told apart, and of words that training never saw; a file of one's own is checked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tokenauction.clients.cli.reproduction.queries import SHIPPED, load_queries
from tokenauction.engine.errors import InvalidInput, InvalidSpec

pytestmark = pytest.mark.slow  # importing transformers takes its time

GOOD = """
- id: one
  relation: competing
  query: "Where to?"
  advertisers: [{name: Aa, offer: trips}, {name: Bb, offer: tours}]
"""


def test_shipped_queries_are_fifty_with_two_advertisers_each() -> None:
    queries = load_queries()
    assert len(queries) == 50
    assert len({query.text for query in queries}) == 50
    assert len({advertiser.name for query in queries for advertiser in query.advertisers}) == 100
    assert [query.relation for query in queries].count("competing") == 25


def test_shipped_queries_share_no_drawn_word_with_training() -> None:
    from tokenauction.models.training import words
    from tokenauction.models.training.briefs import is_held_out

    categories = words.CATEGORIES.values()
    lists = [words.MODIFIERS, words.MATERIALS, words.PRODUCTS, words.PLACES, words.NAME_WORDS]
    drawn = {item.lower() for items in [*lists, *(c.plurals + c.singles for c in categories)] for item in items}
    kinds_of_business = {word.lower() for category in categories for kind in category.types for word in kind.split()}

    def trained_on(text: str) -> list[str]:
        found, rest = [], re.findall(r"[\w'&-]+", text.lower())
        while rest:  # the longest item of a list counts: "car policies" is one, whatever "policies" is
            sizes = [size for size in range(len(rest), 0, -1) if " ".join(rest[:size]) in drawn]
            if sizes and not is_held_out(" ".join(rest[: sizes[0]])):
                found.append(" ".join(rest[: sizes[0]]))
            rest = rest[sizes[0] if sizes else 1 :]
        return found

    for query in load_queries():
        for advertiser in query.advertisers:
            assert not trained_on(advertiser.offer), advertiser
            assert set(trained_on(advertiser.name)) <= kinds_of_business, advertiser


def test_queries_of_ones_own_are_read(tmp_path: Path) -> None:
    path = tmp_path / "queries.yaml"
    path.write_text(GOOD)
    [query] = load_queries(path)
    assert (query.id, query.text, query.relation) == ("one", "Where to?", "competing")
    assert [(a.name, a.offer) for a in query.advertisers] == [("Aa", "trips"), ("Bb", "tours")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold a list of 1 to 10000 queries"),
        ("[]", "must hold a list of 1 to 10000 queries"),
        ("query: x", "must hold a list of 1 to 10000 queries"),
        ("- x", "query 1 must have the fields advertisers, id, query, relation"),
        (GOOD + GOOD, "the id 'one' is given twice"),
        (GOOD.replace("competing", "friends"), "relation is 'friends'"),
        (GOOD.replace("  query:", "  question:"), "must have the fields"),
        (GOOD.replace("{name: Aa, offer: trips}, ", ""), "a list of two"),
        (GOOD.replace("name: Bb", "name: Aab"), "cannot be told apart"),
        (GOOD.replace("Where to?", " "), "query 1: query is ' '"),
        (GOOD.replace("Where to?", "a" * 301), "at most 300 characters"),
        (GOOD.replace("Where to?", "a\\nb"), "it must be a line"),
        (GOOD.replace("offer: trips", "offer: 7"), "offer is 7"),
        (GOOD.replace("{name: Aa, offer: trips}", "Aa"), "must have the fields name, offer"),
    ],
)
def test_queries_are_refused_with_the_place(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "queries.yaml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=re.escape(says)):
        load_queries(path)


def test_queries_are_refused_where_there_is_no_file_or_no_yaml(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be read"):
        load_queries(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("- [x")
    with pytest.raises(InvalidSpec, match="not YAML"):
        load_queries(tmp_path / "bad.yaml")
    assert SHIPPED.name == "queries.yaml"

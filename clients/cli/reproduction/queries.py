"""The queries that candidates are drawn for: what is asked, and which two brands would like to be in the answer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

from tokenauction.clients.cli.spec_file import read_yaml
from tokenauction.engine.errors import InvalidInput
from tokenauction.models.prompts import Advertiser

Relation = Literal["cooperating", "competing"]  # sell what goes together, or sell the same
SHIPPED: Final = Path(__file__).parent / "queries.yaml"
MAX_QUERIES = 10_000
MAX_CHARACTERS = 300  # of any text of a query: prompts are short


@dataclass(frozen=True)
class Query:
    """One question and its two advertisers."""

    id: str
    text: str
    relation: Relation
    advertisers: tuple[Advertiser, Advertiser]


def load_queries(path: Path = SHIPPED) -> list[Query]:
    """The queries of a YAML file, in its order; raises InvalidInput, which names the place, for what is none."""
    items = read_yaml(path)
    if not isinstance(items, list) or not 1 <= len(items) <= MAX_QUERIES:
        raise InvalidInput(f"{path} must hold a list of 1 to {MAX_QUERIES} queries")
    queries = [_query(item, f"{path}, query {number}") for number, item in enumerate(items, start=1)]
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise InvalidInput(f"{path}: the id {query.id!r} is given twice; each query has its own")
        seen.add(query.id)
    return queries


def _query(item: Any, where: str) -> Query:
    fields = _fields(item, where, {"id", "query", "relation", "advertisers"})
    relation = fields["relation"]
    if relation not in get_args(Relation):
        raise InvalidInput(f"{where}: relation is {relation!r}; it is cooperating or competing")
    advertisers = fields["advertisers"]
    if not isinstance(advertisers, list) or len(advertisers) != 2:
        raise InvalidInput(f"{where}: advertisers must be a list of two")
    first, second = (_advertiser(advertiser, where) for advertiser in advertisers)
    if first.name in second.name or second.name in first.name:
        raise InvalidInput(f"{where}: {first.name!r} and {second.name!r} cannot be told apart in a text")
    return Query(
        _text(fields["id"], f"{where}: id"), _text(fields["query"], f"{where}: query"), relation, (first, second)
    )


def _advertiser(item: Any, where: str) -> Advertiser:
    fields = _fields(item, where, {"name", "offer"})
    return Advertiser(_text(fields["name"], f"{where}: name"), _text(fields["offer"], f"{where}: offer"))


def _fields(item: Any, where: str, names: set[str]) -> dict[str, Any]:
    if not isinstance(item, dict) or set(item) != names:
        raise InvalidInput(f"{where} must have the fields {', '.join(sorted(names))}, and no others")
    return item


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_CHARACTERS or not value.isprintable():
        raise InvalidInput(f"{where} is {value!r}; it must be a line of at most {MAX_CHARACTERS} characters")
    return value

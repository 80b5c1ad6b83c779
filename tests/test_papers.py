"""docs/papers.md says what benchmarks/results/papers.json holds, and that file what the papers' claims need."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tokenauction.clients.cli.reproduction.claims import rows
from tokenauction.clients.cli.reproduction.report import markdown

ROOT = Path(__file__).resolve().parent.parent
RESULTS: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / "papers.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8")


def test_page_holds_the_tables_of_the_results() -> None:
    begin, end = (f"<!-- {word}: benchmarks/papers.py -->\n" for word in ("begin", "end"))
    assert PAGE.split(begin)[1].split(end)[0].strip() == markdown(RESULTS).strip()


def test_results_are_of_all_queries_and_worlds() -> None:
    assert {name: world["num_queries"] for name, world in RESULTS["worlds"].items()} == {"toy": 50, "model": 50}
    assert RESULTS["model"]["name"] == "tokenauction-default"
    assert set(RESULTS["sweep"]) == {"cooperating", "competing"}


def test_shipped_model_shows_what_the_papers_claim() -> None:
    found = {row.claim: row.found for row in rows(RESULTS)}
    for claim, by_world in found.items():
        if "context-aware candidates beat 20" in claim or claim.endswith("rises with M (context-aware)"):
            assert by_world["model"][1], claim
    assert found["Utility correlates with reward gain (Pearson)"]["model"][1]


@pytest.mark.slow
def test_benchmark_writes_the_page_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    try:
        import papers
    finally:
        sys.modules.pop("papers", None)
    assert papers.page_with(PAGE, RESULTS) == PAGE
    other = papers.page_with(PAGE, {"worlds": {}, "slopes": RESULTS["slopes"]})
    assert other.split(papers.BEGIN)[0] == PAGE.split(papers.BEGIN)[0] and "R² " in other

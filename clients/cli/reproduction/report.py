"""A run in words: the papers' claims beside what was found, as a table for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.table import Table

from tokenauction.clients.cli.reproduction.claims import Row, rows
from tokenauction.clients.cli.reproduction.statistics import Estimate

Results = Mapping[str, Any]

COLUMNS: Final = ("figure", "claim", "paper", "found", "holds")
TABLE_1: Final[Mapping[str, str]] = {
    "reward_gain_exact": "reward gain",
    "revenue": "revenue",
    "utility": "utility",
    "log_probability": "ln π*",
    "divergence": "KL",
    "effective_sample_size": "effective sample size",
}


def claim_table(results: Results) -> Table:
    """The claims, for a terminal."""
    table = Table(*COLUMNS, title="What the papers claim, and what was found")
    for cells in _claim_cells(rows(results)):
        table.add_row(*cells)
    return table


def summary_tables(results: Results) -> list[Table]:
    """Table 1 of every world, for a terminal."""
    tables = []
    for name, world in results["worlds"].items():
        table = Table("proposal", "M", *TABLE_1.values(), title=_summary_title(name, world))
        for cells in _summary_cells(world):
            table.add_row(*cells)
        tables.append(table)
    return tables


def markdown(results: Results) -> str:
    """Both kinds of table, as they stand in docs/papers.md."""
    parts = [_markdown_table(COLUMNS, _claim_cells(rows(results)))]
    for name, world in results["worlds"].items():
        heading = f"**Table 1, {_summary_title(name, world)}**"
        parts.append(f"{heading}\n\n{_markdown_table(('proposal', 'M', *TABLE_1.values()), _summary_cells(world))}")
        if world.get("examples"):
            texts = _markdown_table(("query", *world["curves"]), _example_cells(world))
            parts.append(f"The first text that each proposal drew ({name}):\n\n{texts}")
    return "\n\n".join(parts) + "\n"


def _claim_cells(found: Sequence[Row]) -> list[list[str]]:
    return [
        [
            row.figure,
            row.claim,
            row.paper,
            "; ".join(f"{world}: {finding[0]}" for world, finding in row.found.items()),
            row.verdict,
        ]
        for row in found
    ]


def _summary_title(name: str, world: Results) -> str:
    return f"{name}: means over {world['num_queries']} queries with 95 % intervals, in nats"


def _summary_cells(world: Results) -> list[list[str]]:
    cells = []
    for proposal, curves in world["curves"].items():
        last = len(curves["revenue"]) - 1
        for place in (0, last) if last else (0,):
            points = [curves[metric][place] for metric in TABLE_1]
            shown = [str(Estimate(point["value"], point["low"], point["high"])) for point in points]
            cells.append([proposal, str(curves["revenue"][place]["num_candidates"]), *shown])
    return cells


def _example_cells(world: Results) -> list[list[str]]:
    return [
        [example["query"], *(example[proposal][0] or "(empty)" for proposal in world["curves"])]
        for example in world["examples"]
    ]


def _markdown_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_cell(text) for text in row] for row in cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    """A text as it may stand in a table: on one line, its signs meaning nothing."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")

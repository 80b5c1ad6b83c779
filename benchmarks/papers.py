"""Both papers' experiments in full, written into the repository: results, figures, and the tables of docs/papers.md.

    python benchmarks/papers.py [--folder runs/papers] [--model FOLDER] [--quick] [--keep]

The run is that of `tokenauction reproduce` and goes on with what its folder holds. With --keep the files of this
repository are written again; a quick run, or one of another model, is not kept. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import peers_report
from rich.console import Console

from tokenauction.clients.cli.compose import ModelChoice
from tokenauction.clients.cli.reproduce import RunPlan, run
from tokenauction.clients.cli.reproduction.figures import draw_all
from tokenauction.clients.cli.reproduction.report import claim_table, markdown, summary_tables

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "papers.md"
RESULTS = ROOT / "benchmarks" / "results" / "papers.json"
IMAGES = ROOT / "docs" / "images"
BEGIN, END = "<!-- begin: benchmarks/papers.py -->\n", "<!-- end: benchmarks/papers.py -->\n"


def page_with(page: str, results: Mapping[str, Any]) -> str:
    """The page with its tables made anew from these results."""
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{markdown(results)}\n{END}{after}"


def keep(results: Mapping[str, Any]) -> None:
    """Write results, figures and tables into the repository."""
    RESULTS.write_text(json.dumps(results, allow_nan=False) + "\n", encoding="utf-8")
    draw_all(results, IMAGES)
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


def main() -> None:
    """Run, print, and keep where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None, help="runs/papers, or runs/papers-quick")
    parser.add_argument("--model", default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--keep", action="store_true", help="write results, figures and tables into the repository")
    arguments = parser.parse_args()
    if arguments.keep and (arguments.quick or arguments.model):
        parser.error("--keep is for the whole run of the shipped model")
    folder = arguments.folder or ROOT / "runs" / ("papers-quick" if arguments.quick else "papers")
    found = run(RunPlan(folder, ModelChoice(arguments.model), is_quick=arguments.quick))
    results = {"benchmark": "papers", **peers_report.origin(), **found}
    if arguments.keep:
        keep(results)
    console = Console()
    for table in (*summary_tables(results), claim_table(results)):
        console.print(table)
    json.dump(results, sys.stdout, allow_nan=False)
    print()


if __name__ == "__main__":
    main()

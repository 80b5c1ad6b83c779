"""The commands that study the mechanism, from clear to reproduce; each hands over to the file of its name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokenauction.clients.cli.options import CacheGib, Model, Numerics, Runner, SpecFile
from tokenauction.clients.cli.reproduction.part import Part


class TableFormat(StrEnum):
    """How `compare`, `sweep` and `reproduce` show their tables."""

    rich = "rich"
    json = "json"


def add_study_commands(app: typer.Typer) -> None:
    """Put the commands of this file into an app."""
    for command in (clear, finalize, compare, sweep, reproduce):
        app.command()(command)


def clear(
    file: Annotated[str, typer.Argument(help="JSON with distributions and bids; - for standard input.")] = "-",
) -> None:
    """Clear one step of your own distributions: aggregate, draw, price. JSON in, JSON out."""
    from tokenauction.clients.cli.clear import clear_file

    clear_file(file)


def finalize(
    file: Annotated[str, typer.Argument(help="JSON with candidates and rewards; - for standard input.")] = "-",
) -> None:
    """Choose among your own candidate texts by the softmax auction, and price it. JSON in, JSON out."""
    from tokenauction.clients.cli.finalize import finalize_file

    finalize_file(file)


def compare(
    spec: SpecFile,
    texts: Annotated[int, typer.Option(help="Texts of the token auction, whose means are shown.", min=1, max=64)] = 8,
    format: Annotated[TableFormat, typer.Option(help="A table, or JSON.")] = TableFormat.rich,
    seed: Annotated[int | None, typer.Option(help="Whole number; drawn if left out.", min=0)] = None,
    num_candidates: Annotated[int | None, typer.Option(help="Texts that compete.")] = None,
    proposal: Annotated[str | None, typer.Option(help="reference, context_aware or token_auction.")] = None,
    model: Model = None,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    cache_gib: CacheGib = 2.0,
) -> None:
    """One request under the softmax auction, VCG, best-of-M, the reference alone, and the token auction."""
    from tokenauction.clients.cli.compare import compare as run_compare
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.spec_file import load_spec

    given = {"seed": seed, "num_candidates": num_candidates, "proposal": proposal}
    overrides = {name: value for name, value in given.items() if value is not None}
    loaded = load_spec(spec, {"mechanism": "softmax", **overrides})
    run_compare(loaded, texts, format.value, ModelChoice(model, runner, numerics, cache_gib))


def sweep(
    spec: SpecFile,
    points: Annotated[int, typer.Option(help="Weights of the first agent, evenly from 0 to 1.", min=2, max=101)] = 11,
    seeds: Annotated[int, typer.Option(help="Texts per weight and rule.", min=1, max=100_000)] = 50,
    format: Annotated[TableFormat, typer.Option(help="A table, or JSON.")] = TableFormat.rich,
    plot: Annotated[Path | None, typer.Option(help="Write a PNG plot here.")] = None,
    model: Model = None,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    cache_gib: CacheGib = 2.0,
) -> None:
    """Shift weight from the second agent to the first, under both rules: who is mentioned?"""
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.spec_file import load_spec
    from tokenauction.clients.cli.sweep import sweep as run_sweep

    run_sweep(load_spec(spec), points, seeds, format.value, plot, ModelChoice(model, runner, numerics, cache_gib))


def reproduce(
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the run here, and go on with what is done; runs/papers, or runs/papers-quick."),
    ] = None,
    part: Annotated[list[Part] | None, typer.Option(help="Only this part; may be repeated. All if left out.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few queries and candidates: two minutes.")] = False,
    queries: Annotated[Path | None, typer.Option(help="Your own queries, as YAML; 50 are shipped.")] = None,
    candidates: Annotated[
        int | None, typer.Option(help="Drawn from each proposal for each query; 60, or 20.", min=2, max=256)
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other draws.", min=0, max=2**32)] = 0,
    figures: Annotated[
        bool | None, typer.Option("--figures/--no-figures", help="PNGs; where matplotlib is there if left out.")
    ] = None,
    format: Annotated[TableFormat, typer.Option(help="Tables, or JSON.")] = TableFormat.rich,
    model: Model = None,
    runner: Runner = "auto",
    numerics: Numerics = "auto",
    cache_gib: CacheGib = 2.0,
) -> None:
    """Run both papers' experiments again, and show what they claim beside what is found."""
    from tokenauction.clients.cli.compose import ModelChoice
    from tokenauction.clients.cli.reproduce import RunPlan
    from tokenauction.clients.cli.reproduce import reproduce as run_reproduction
    from tokenauction.clients.cli.reproduction.queries import SHIPPED

    plan = RunPlan(
        folder or Path("runs/papers-quick" if quick else "runs/papers"),
        ModelChoice(model, runner, numerics, cache_gib),
        tuple(part or Part),
        queries or SHIPPED,
        seed,
        quick,
        candidates,
        figures,
    )
    run_reproduction(plan, format.value)

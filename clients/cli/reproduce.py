"""`tokenauction reproduce`: the experiments of both papers, query by query, so that a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tokenauction.clients.cli.compose import ModelChoice, new_decoder
from tokenauction.clients.cli.output import plain_console, print_json
from tokenauction.clients.cli.reproduction.drawn import DrawnQuery
from tokenauction.clients.cli.reproduction.figures import check_can_draw, draw_all
from tokenauction.clients.cli.reproduction.model_world import ModelWorldSource
from tokenauction.clients.cli.reproduction.part import Part
from tokenauction.clients.cli.reproduction.queries import SHIPPED, Query, load_queries
from tokenauction.clients.cli.reproduction.report import claim_table, markdown, summary_tables
from tokenauction.clients.cli.reproduction.results import (
    convergence_results,
    slope_results,
    sweep_results,
    world_results,
)
from tokenauction.clients.cli.reproduction.run_log import RunLog
from tokenauction.clients.cli.reproduction.token_sweep import TokenSweep
from tokenauction.clients.cli.reproduction.toy_world import ToyWorldSource
from tokenauction.engine.decoder import Decoder
from tokenauction.engine.errors import InvalidInput

NUM_CANDIDATES: Final = 60  # of each proposal and query: three sets of the paper's largest M
NUM_MARKETS, NUM_CONVERGING = 50, 20
QUICK_CANDIDATES, QUICK_QUERIES, QUICK_CONVERGING = 20, 8, 5
MAX_ROWS: Final = 128
SWEEP, QUICK_SWEEP = TokenSweep(num_points=11, num_texts=2), TokenSweep(num_points=3, num_texts=2)


@dataclass(frozen=True)
class RunPlan:
    """What is to be run, and where it is kept."""

    folder: Path
    model: ModelChoice
    parts: tuple[Part, ...] = tuple(Part)
    queries: Path = SHIPPED
    seed: int = 0
    is_quick: bool = False
    num_candidates: int | None = None  # None: NUM_CANDIDATES, or fewer where the run is quick
    draws: bool | None = None  # None: figures where matplotlib is here

    @property
    def num_drawn(self) -> int:
        return self.num_candidates or (QUICK_CANDIDATES if self.is_quick else NUM_CANDIDATES)

    @property
    def num_markets(self) -> tuple[int, int]:
        """Of the toy world, and how many of them are followed to large M."""
        return (QUICK_QUERIES, QUICK_CONVERGING) if self.is_quick else (NUM_MARKETS, NUM_CONVERGING)

    @property
    def sweep(self) -> TokenSweep:
        return QUICK_SWEEP if self.is_quick else SWEEP

    def load_queries(self) -> list[Query]:
        """The queries of this run: all, or a few spread evenly over them."""
        queries = load_queries(self.queries)
        if len(queries) < 2:
            raise InvalidInput(f"{self.queries} has one query; means over queries need at least two")
        return queries[:: max(1, len(queries) // QUICK_QUERIES)][:QUICK_QUERIES] if self.is_quick else queries


def reproduce(plan: RunPlan, output: str) -> None:
    """Run what the plan says, write results, report and figures into its folder, and show the report."""
    if plan.draws:
        check_can_draw()
    results = run(plan)
    if output == "json":
        print_json(results)
        return
    console = plain_console()
    for table in (*summary_tables(results), claim_table(results)):
        console.print(table)
    console.print(f"results, report and figures: {plan.folder}")


def run(plan: RunPlan) -> dict[str, Any]:
    """The results, also written into the plan's folder beside report and figures; raises InvalidInput or ModelError."""
    queries = plan.load_queries()
    try:
        results = _results(plan, queries)
        plan.folder.mkdir(parents=True, exist_ok=True)
        (plan.folder / "results.json").write_text(json.dumps(results, allow_nan=False) + "\n", encoding="utf-8")
        (plan.folder / "report.md").write_text(markdown(results), encoding="utf-8")
        if plan.draws is not False and _can_draw(plan):
            draw_all(results, plan.folder)
    except OSError as error:
        raise InvalidInput(f"--folder: {error.filename or plan.folder}: {error.strerror}") from None
    return results


def _results(plan: RunPlan, queries: Sequence[Query]) -> dict[str, Any]:
    results: dict[str, Any] = {"seed": plan.seed, "num_candidates": plan.num_drawn, "worlds": {}}
    if Part.slopes in plan.parts:
        results["slopes"] = slope_results(plan.seed)
    with _progress() as track:
        if Part.toy in plan.parts:
            num_markets, num_converging = plan.num_markets
            source = ToyWorldSource(num_markets, plan.num_drawn, plan.seed)
            log = RunLog(plan.folder / "toy.jsonl", {"part": "toy", "seed": plan.seed, "candidates": plan.num_drawn})
            done = track("toy world", source.query_ids)
            results["worlds"]["toy"] = _world(
                log.complete(source.query_ids, lambda q: source.draw(q).to_mapping(), done)
            )
            results["convergence"] = convergence_results(plan.seed, num_converging)
        if {Part.model, Part.token_auction} & set(plan.parts):
            _add_model(plan, queries, results, track)
    return results


def _add_model(plan: RunPlan, queries: Sequence[Query], results: dict[str, Any], track: Track) -> None:
    model = plan.model.load(max_rows=MAX_ROWS)
    decoder: Decoder = new_decoder(model)
    results["model"] = {"name": model.name, "hash": model.hash, "numerics": model.numerics, "runner": model.runner}
    settings = {**results["model"], "seed": plan.seed, "queries": _hash(queries)}
    ids = [query.id for query in queries]
    by_id = {query.id: query for query in queries}
    if Part.model in plan.parts:
        source = ModelWorldSource(decoder, tuple(queries), plan.num_drawn, plan.seed)
        log = RunLog(plan.folder / "model.jsonl", {"part": "model", **settings, "candidates": plan.num_drawn})
        lines = log.complete(ids, lambda query_id: source.draw(query_id).to_mapping(), track("candidates", ids))
        results["worlds"]["model"] = _world(lines)
    if Part.token_auction in plan.parts:
        points = {"points": plan.sweep.num_points, "texts": plan.sweep.num_texts}
        log = RunLog(plan.folder / "token_auction.jsonl", {"part": "token_auction", **settings, **points})
        lines = log.complete(ids, lambda query_id: plan.sweep.find(decoder, by_id[query_id]), track("λ sweep", ids))
        results["sweep"] = sweep_results(lines)


def _hash(queries: Sequence[Query]) -> str:
    """Names the queries of a run: another run's candidates are not for the same prompts."""
    return hashlib.sha256(repr([asdict(query) for query in queries]).encode()).hexdigest()


def _world(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return world_results([DrawnQuery.from_mapping(line, f"the line of query {line.get('query')!r}") for line in lines])


def _can_draw(plan: RunPlan) -> bool:
    try:
        check_can_draw()
    except InvalidInput as error:
        plain_console(stderr=True).print(f"no figures: {error}")
        return False
    return True


Track = Callable[[str, Sequence[str]], Callable[[], None]]


@contextmanager
def _progress() -> Iterator[Track]:
    """A bar for each part, with what is left of it; nothing where nobody looks."""
    console = plain_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as progress:

        def track(name: str, of: Sequence[str]) -> Callable[[], None]:
            task = progress.add_task(name, total=len(of))
            return lambda: progress.advance(task)

        yield track

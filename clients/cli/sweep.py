"""`tokenauction sweep`: weight moves from the second agent to the first, under both rules; who is mentioned?

The demonstration of the token auction's authors (Google Research, 2025), with any two advertisers and any model.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.progress import Progress
from rich.table import Table

from tokenauction.clients.cli.compose import ModelChoice, new_decoder, settle_all
from tokenauction.clients.cli.output import check_target, plain_console, print_json
from tokenauction.engine.errors import InvalidInput, InvalidSpec
from tokenauction.engine.spec import AuctionSpec
from tokenauction.engine.weight_sweep import at_weight, names_in

RULES: tuple[Literal["linear", "log_linear"], ...] = ("linear", "log_linear")
OUTCOMES = ("first_only", "both", "second_only", "none")
NUM_EXAMPLES = 3
MAX_ROWS = 128


def sweep(spec: AuctionSpec, points: int, seeds: int, output: str, plot: Path | None, model: ModelChoice) -> None:
    """Run points × seeds × both rules and show the mention rates."""
    check_sweepable(spec)
    check_target("--plot", plot)
    if plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise InvalidInput("--plot needs matplotlib; install it with: pip install 'tokenauction[plot]'")
    result = sweep_table(spec, points, seeds, model)
    if output == "json":
        print_json(result)
    else:
        _print_tables(spec, result, seeds)
    if plot is not None:
        draw_plot(spec, result, plot)


def check_sweepable(spec: AuctionSpec) -> None:
    """InvalidSpec unless there are exactly two agents."""
    if len(spec.agents) != 2:
        raise InvalidSpec(f"a sweep shifts weight between two agents; this spec has {len(spec.agents)}")


def sweep_table(spec: AuctionSpec, points: int, seeds: int, model: ModelChoice) -> dict[str, list[dict[str, Any]]]:
    """Per rule and weight of the first agent, the shares of texts that name whom; without a reference agent."""
    weights = [point / (points - 1) for point in range(points)]
    cells = [(rule, weight) for rule in RULES for weight in weights]
    specs = (at_weight(spec, rule, weight, seed) for rule, weight in cells for seed in range(seeds))
    decoder = new_decoder(model.load(max_rows=MAX_ROWS))
    console = plain_console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("writing", total=len(cells) * seeds)
        settled = settle_all(decoder, specs, lambda: progress.advance(task))
    texts = [str(fields["text"]) for fields in settled]
    first, second = (agent.name for agent in spec.agents)
    table: dict[str, list[dict[str, Any]]] = {rule: [] for rule in RULES}
    for number, (rule, weight) in enumerate(cells):
        written = texts[number * seeds : (number + 1) * seeds]
        table[rule].append(
            {"weight": weight, **mention_shares(written, first, second), "examples": written[:NUM_EXAMPLES]}
        )
    return table


def mention(text: str, first: str, second: str) -> str:
    """Which of two brands a text names, spelled exactly and not as a part of a longer word."""
    names = names_in(text, (first, second))
    if len(names) == 2:
        return "both"
    return "first_only" if first in names else "second_only" if names else "none"


def mention_shares(texts: Sequence[str], first: str, second: str) -> dict[str, float]:
    """Shares of texts per outcome, in 0…1."""
    outcomes = [mention(text, first, second) for text in texts]
    return {outcome: outcomes.count(outcome) / len(outcomes) for outcome in OUTCOMES}


def _print_tables(spec: AuctionSpec, result: dict[str, list[dict[str, Any]]], seeds: int) -> None:
    console = plain_console()
    first, second = (agent.name for agent in spec.agents)
    for rule, rows in result.items():
        title = f"{rule}: share of {seeds} texts that name …"
        table = Table(f"weight of {first}", f"only {first}", "both", f"only {second}", "none", "a text", title=title)
        for row in rows:
            shares = [f"{row[outcome]:.0%}" for outcome in OUTCOMES]
            table.add_row(f"{row['weight']:.2f}", *shares, row["examples"][0])
        console.print(table)


def draw_plot(spec: AuctionSpec, result: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """A PNG with one panel per rule; InvalidInput if it cannot be written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    first, second = (agent.name.replace("$", r"\$") for agent in spec.agents)  # a pair of $ would begin a formula
    labels = {"first_only": f"only {first}", "both": "both", "second_only": f"only {second}", "none": "none"}
    styles = {"first_only": "-o", "both": "-s", "second_only": "-^", "none": ":x"}
    figure, axes = pyplot.subplots(1, len(result), figsize=(10, 4), sharey=True, layout="constrained")
    for axis, (rule, rows) in zip(axes, result.items(), strict=True):
        for outcome, label in labels.items():
            axis.plot([r["weight"] for r in rows], [r[outcome] for r in rows], styles[outcome], label=label)
        axis.set(title=rule, xlabel=f"λ, weight of {first}", ylim=(-0.02, 1.02))
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("share of texts that name")
    axes[-1].legend()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph")  # a brand in a script that the font lacks: boxes will do
            figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise InvalidInput(f"--plot: {path} cannot be written: {error.strerror}") from None
    finally:
        pyplot.close(figure)

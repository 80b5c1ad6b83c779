"""The figures as PNG, from a run's results alone; one file a figure and world."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tokenauction.clients.cli.sweep import OUTCOMES
from tokenauction.engine.errors import InvalidInput

Results = Mapping[str, Any]

LABELS: Final[Mapping[str, str]] = {
    "reference": "baseline: the reference's own texts",
    "context_aware": "context-aware",
    "token_auction": "token auction, equal weights",
}
STYLES: Final[Mapping[str, str]] = {"reference": ":o", "context_aware": "-s", "token_auction": "--^"}
OUTCOME_LABELS: Final = ("only the first", "both", "only the second", "none")


def check_can_draw() -> None:
    """InvalidInput unless matplotlib is here."""
    if importlib.util.find_spec("matplotlib") is None:
        raise InvalidInput("figures need matplotlib; install it with: pip install 'tokenauction[plot]'")


def draw_all(results: Results, folder: Path) -> list[Path]:
    """Write every figure that the results have the numbers for; the files, in the order of the figures."""
    check_can_draw()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, world in results["worlds"].items():
        for number, figure in enumerate((_figure_1, _figure_2, _figure_3, _figure_4, _figure_5), start=1):
            written.append(_draw(folder / f"papers_{name}_{number}.png", figure, world))
    if results.get("convergence"):
        written.append(_draw(folder / "papers_convergence.png", _convergence, results["convergence"]))
    if results.get("sweep"):
        written.append(_draw(folder / "papers_sweep.png", _sweep, results["sweep"]))
    return written


def _draw(path: Path, figure: Callable[[Any, Any], None], numbers: Any) -> Path:
    with _pyplot() as pyplot:
        figure(pyplot, numbers)
        try:
            pyplot.savefig(path, dpi=110, format="png")
        except OSError as error:
            raise InvalidInput(f"{path} cannot be written: {error.strerror}") from None
    return path


@contextmanager
def _pyplot() -> Iterator[Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    try:
        yield pyplot
    finally:
        pyplot.close("all")


def _panels(pyplot: Any, titles: Sequence[str]) -> list[Any]:
    _, axes = pyplot.subplots(1, len(titles), figsize=(5 * len(titles), 3.8), layout="constrained", squeeze=False)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
    return list(axes[0])


def _lines(axis: Any, world: Results, metric: str, label: str) -> None:
    for proposal, curve in world["curves"].items():
        _curve(axis, curve[metric], STYLES[proposal], LABELS[proposal])
    axis.set(xlabel="number of candidates M", ylabel=label)


def _curve(axis: Any, points: Sequence[Mapping[str, float]], style: str, label: str) -> None:
    x, y, low, high = ([point[key] for point in points] for key in ("num_candidates", "value", "low", "high"))
    [line] = axis.plot(x, y, style, label=label, markersize=4)
    axis.fill_between(x, low, high, color=line.get_color(), alpha=0.15)


def _figure_1(pyplot: Any, world: Results) -> None:
    left, right = _panels(pyplot, ["1a. Log-probability under the optimum", "1b. Reward gain of all advertisers"])
    _lines(left, world, "log_probability", "E ln π*(text), nats")
    if world["optimum_log_probability"] is not None:
        left.axhline(world["optimum_log_probability"], color="black", linewidth=0.8, label="the optimum itself")
    left.legend(fontsize=8)
    _lines(right, world, "reward_gain", "nats beyond a brand-free text")


def _figure_2(pyplot: Any, world: Results) -> None:
    left, right = _panels(pyplot, ["2a. Revenue", "2b. Utility of all advertisers"])
    _lines(left, world, "revenue", "what all pay, nats")
    _lines(right, world, "utility", "nats beyond the reference")
    left.legend(fontsize=8)


def _figure_3(pyplot: Any, world: Results) -> None:
    left, right = _panels(pyplot, ["3a. Without the offset", "3b. With the offset"])
    for axis, kind, suffix in ((left, "utility_without_offset", "_without_offset"), (right, "utility", "")):
        axis.scatter(world["points"]["reward_gain"], world["points"][kind], s=6, alpha=0.5)
        slope, r_squared = (world["advertisers"][f"{name}{suffix}"]["value"] for name in ("slope", "r_squared"))
        axis.set(xlabel="reward gain of an advertiser, nats", ylabel="its utility, nats")
        axis.annotate(f"slope {slope:.2f}, R² {r_squared:.2f}", (0.04, 0.92), xycoords="axes fraction")


def _figure_4(pyplot: Any, world: Results) -> None:
    [axis] = _panels(pyplot, ["4. Gains beyond the market without i"])
    x, y = zip(*world["bins"], strict=True)
    axis.plot(x, y, "-o", label="an eighth of the advertisers each")
    ends = [min(x), max(x)]
    axis.plot(ends, [value / 2 for value in ends], ":", label="slope ½: small rewards")
    axis.plot(ends, ends, "--", label="slope 1: a large reward, a flat market")
    axis.set(xlabel="reward gain, nats", ylabel="utility gain, nats", xscale="log", yscale="log")
    axis.minorticks_off()  # their labels would lie on each other
    axis.legend(fontsize=8)


def _figure_5(pyplot: Any, world: Results) -> None:
    left, right = _panels(pyplot, ["5a. What is left of the reference", "5b. Divergence from its choice"])
    _lines(left, world, "log_reference", "E ln π_ref(text), nats")
    _lines(right, world, "divergence", "KL, nats")
    left.legend(fontsize=8)


def _convergence(pyplot: Any, found: Results) -> None:
    [axis] = _panels(pyplot, ["Toy world: what each proposal misses of ln Z"])
    for proposal, points in found.items():
        _curve(axis, points, STYLES[proposal], LABELS[proposal])
    axis.set(xlabel="number of candidates M", ylabel="E ln(mean weight) - ln Z, nats", xscale="log")
    axis.set_yscale("symlog", linthresh=0.01)
    axis.legend(fontsize=8)


def _sweep(pyplot: Any, sweep: Results) -> None:
    titles = [f"{relation}, {rule}" for relation, rules in sweep.items() for rule in rules]
    axes = iter(_panels(pyplot, titles))
    for rules in sweep.values():
        for rows in rules.values():
            axis = next(axes)
            for outcome, label in zip(OUTCOMES, OUTCOME_LABELS, strict=True):
                points = [{"num_candidates": row["weight"], **row[outcome]} for row in rows]
                _curve(axis, points, "-o", label)
            axis.set(xlabel="λ, weight of the first advertiser", ylabel="share of texts", ylim=(-0.02, 1.02))
            axis.legend(fontsize=8)

"""What `peers.py` found: a table for people, a picture, and one JSON line for programs."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from peers_floor import Floor
from rich.console import Console
from rich.table import Table

PACKAGES = ("torch", "transformers", "numpy", "onnxruntime", "onnxruntime-genai", "llama-cpp-python", "gguf")


@dataclass
class Result:
    """One peer: how long its tokens took and how right they are, or why it was not timed."""

    name: str
    num_agents: int = 3
    numerics: str = ""  # of the weights; not known of a peer that is not there
    note: str = ""
    tokens_equal: float | None = None
    logits_rms_error: float | None = None
    skipped: str | None = None
    step_ms: list[float] = field(default_factory=list)

    @property
    def p10(self) -> float:
        return statistics.quantiles(self.step_ms, n=10)[0]

    @property
    def median(self) -> float:
        return statistics.median(self.step_ms)

    def to_mapping(self) -> dict[str, Any]:
        """The result as it stands in the JSON line."""
        mapping: dict[str, Any] = {"name": self.name, "n": self.num_agents, "numerics": self.numerics or None}
        if self.step_ms:
            mapping |= {"ms_per_token_p10": self.p10, "ms_per_token_median": self.median}
        mapping |= {"tokens_equal": self.tokens_equal, "logits_rms_error": self.logits_rms_error}
        return mapping | {key: value for key in ("note", "skipped") if (value := getattr(self, key))}


@dataclass(frozen=True)
class Report:
    """One run, whole."""

    shape: str
    threads: int
    floor: Floor
    results: list[Result]

    def print_table(self, file: TextIO) -> None:
        """The peers, slowest first, each beside the floor of its own precision."""
        floor = self.floor
        title = (
            f"{self.shape}, 3 agents, {self.threads} thread(s): float32 weights, keys and values of a token are "
            f"{floor.num_bytes['float32'] / 1e6:.1f} MB, read at {floor.bandwidth['float32'] / 1e9:.1f} GB/s in "
            f"{floor.ms('float32'):.2f} ms"
        )
        columns = ("peer", "ms per token, p10", "median", "× floor", "tokens equal", "logits rms error", "")
        table = Table(*columns, title=title)
        for result in self._slowest_first():
            timed = result.step_ms
            table.add_row(
                result.name,
                f"{result.p10:.2f}" if timed else "–",
                f"{result.median:.2f}" if timed else "–",
                f"{result.p10 / floor.ms(result.numerics):.1f}" if timed else "–",
                "–" if result.tokens_equal is None else f"{result.tokens_equal:.0%}",
                "–" if result.logits_rms_error is None else f"{result.logits_rms_error:.1e}",
                result.skipped or result.note,
            )
        Console(file=file, width=None if file.isatty() else 160).print(table)

    def to_mapping(self) -> dict[str, Any]:
        """The JSON line."""
        floor = self.floor
        return {
            "benchmark": "peers",
            "shape": self.shape,
            "threads": self.threads,
            "floor_ms": floor.ms("float32"),
            "bandwidth_gb_s": floor.bandwidth["float32"] / 1e9,
            "bytes_per_token": floor.num_bytes["float32"],
            "floors": {
                name: {"ms": floor.ms(name), "bytes_per_token": num, "bandwidth_gb_s": floor.bandwidth[name] / 1e9}
                for name, num in floor.num_bytes.items()
            },
            **origin(),
            "results": [result.to_mapping() for result in self.results],
        }

    def plot(self, path: Path) -> None:
        """Bars of the p10, coloured by precision, with the floor of each precision as a line."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        rows = [result for result in self._slowest_first() if result.step_ms]
        colours = {"float32": "#4c72b0", "bf16": "#dd8452", "int8": "#55a868", "int4": "#8172b3"}
        figure = Figure(figsize=(9, 1.6 + 0.34 * len(rows)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        bars = axes.barh([r.name for r in rows], [r.p10 for r in rows], color=[colours[r.numerics] for r in rows])
        axes.bar_label(bars, [f" {r.p10:.2f}" + (f"  ({r.note})" if r.note else "") for r in rows], fontsize=9)
        for name in sorted({result.numerics for result in rows}, key=list(colours).index):
            axes.axvline(self.floor.ms(name), color=colours[name], linestyle="--", label=f"floor, {name}")
        axes.invert_yaxis()
        axes.margins(x=0.22)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"ms per token of 3 agents, p10; shape {self.shape}, {self.threads} thread(s)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(loc="lower right", frameon=False)
        figure.savefig(path, dpi=150)

    def _slowest_first(self) -> list[Result]:
        return sorted(self.results, key=lambda result: -result.p10 if result.step_ms else 0.0)


def origin() -> dict[str, Any]:
    """Where and when something was measured, and with what."""
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {"machine": machine(), "versions": versions(), "date": date}


def machine() -> str:
    """Processor, cores this process may use, system."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}"


def versions() -> dict[str, str]:
    """Versions of what was measured, as far as installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found

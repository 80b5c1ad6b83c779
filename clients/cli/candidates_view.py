"""The live view of a softmax auction in a terminal: candidates as they are completed, the choice, the bill."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Column, Table
from rich.text import Text

from tokenauction.clients.cli.output import one_line, plain_console, visible
from tokenauction.clients.cli.view import COLOURS
from tokenauction.engine.events import Event

BAR_WIDTH = 10
MAX_SHOWN = 24  # candidates in the table; more of them would not fit on a screen


class CandidatesView:
    """Shows events as they come; on a terminal it redraws in place, elsewhere it prints once, at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console()
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.created: dict[str, Any] = {}
        self.progress: dict[str, Any] = {"num_done": 0, "num_tokens": 0}
        self.candidates: list[dict[str, Any]] = []
        self.finalized: dict[str, Any] = {}
        self.settled: dict[str, Any] = {}
        self.problem = ""

    def show(self, event: Event) -> None:
        """Take in one event and redraw."""
        if event.type == "auction.created":
            self.created = event.fields
            if self.console.is_terminal:
                self.live.start()
        elif event.type == "candidates.progress":
            self.progress = event.fields
        elif event.type == "candidate.completed":
            self.candidates.append(event.fields)
        elif event.type == "auction.finalized":
            self.finalized = event.fields
        elif event.type == "error":
            self.problem = f"error ({event.fields['code']}): {one_line(event.fields['message'])}"
        elif event.type == "auction.settled":
            self.settled = event.fields
        if self.console.is_terminal:
            self.live.update(self._render(), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing; where nothing was redrawn in place, print it now."""
        if self.console.is_terminal:
            self.live.stop()
        elif self.created:
            self.console.print(self._render())

    def _render(self) -> RenderableType:
        spec = self.created["spec"]
        text = Text(visible(self.settled["text"] if self.settled else self.finalized.get("text", "…")), style="bold")
        subtitle = f"softmax · {spec['proposal']} · {spec['num_candidates']} candidates"
        parts: list[RenderableType] = [
            Panel(text, title=Text(visible(spec["query"])), subtitle=subtitle, padding=(1, 2))
        ]
        if self.problem:
            parts.append(Text(self.problem, style="red"))
        if not self.finalized and not self.settled:
            done, most = self.progress["num_done"], spec["num_candidates"]
            parts.append(Text(f"{done} of {most} candidates complete, {self.progress['num_tokens']} tokens"))
        parts.append(self._table())
        if self.finalized:
            parts.append(self._bill())
        if self.settled:
            parts.append(self._footer())
        return Group(*parts)

    def _table(self) -> Table:
        """Every candidate: how likely it was to win, what it is worth to whom in nats, and its text if it is shown."""
        agents = self.finalized.get("agents", [])
        names = {agent["id"]: agent["name"] for agent in self.created["spec"]["agents"]}
        heads = [Column(visible(names[agent["id"]]), style=COLOURS[i % len(COLOURS)]) for i, agent in enumerate(agents)]
        table = Table("", "wins", *heads, "text", box=None, expand=True)
        for candidate in self.candidates[:MAX_SHOWN]:
            index = candidate["index"]
            chance = Text("…")
            if self.finalized:
                p = self.finalized["candidates"][index]["probability"]
                chance = Text(f"{'█' * round(p * BAR_WIDTH)} {p:.0%}")
            is_chosen = bool(self.finalized) and index == self.finalized["chosen"]
            worth = [_nats(agent["rewards"][index]) for agent in agents]
            text = candidate.get("text", self.finalized.get("text", "") if is_chosen else "")
            row = [Text("▶" if is_chosen else str(index)), chance, *worth, Text(visible(text))]
            table.add_row(*row, style="bold" if is_chosen else None)
        return table

    def _bill(self) -> Table:
        currency = self.created["spec"]["currency"]
        table = Table(
            "advertiser", "value per nat", "worth of this text", "utility", f"to pay ({currency})",
            expand=True, title="Bill", title_justify="left",
        )  # fmt: skip
        names = {agent["id"]: agent["name"] for agent in self.created["spec"]["agents"]}
        for row, agent in enumerate(self.finalized["agents"]):
            value = agent["value_per_nat_micros"] / 1e6
            table.add_row(
                Text(f"■ {visible(names[agent['id']])}", style=COLOURS[row % len(COLOURS)]),
                f"{value:.6f}",
                f"{agent['reward']:+.2f} nats",
                f"{agent['exact_utility_micros'] / 1e6:+.6f}",
                f"{agent['total_micros'] / 1e6:.6f}",
            )
        table.add_section()
        table.add_row("total", "", "", "", f"{sum(a['total_micros'] for a in self.finalized['agents']) / 1e6:.6f}")
        return table

    def _footer(self) -> Text:
        lines = [f"{self.settled['num_tokens']} tokens, finished by {self.settled['finish_reason']}"]
        if self.finalized:
            size, loss = self.finalized["effective_sample_size"], self.finalized["divergence"]
            lines[0] += f"; effective sample size {size:.1f}; {loss:.2f} nats from the reference"
        lines.append(self.created["guarantee"]["summary"])
        if self.settled["voids"]:
            lines.append(f"the guarantee is void: {', '.join(self.settled['voids'])}")
        lines.append(f"receipt head {self.settled['receipt_head'][:16]}…")
        return Text("\n".join(lines), style="dim")


def _nats(reward: float | None) -> Text:
    return Text("−∞" if reward is None else f"{reward:+.1f}")

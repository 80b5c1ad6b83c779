"""The live view of one auction in a terminal: the text tinted by influence, running payments, the bill."""

from __future__ import annotations

from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tokenauction.clients.cli.output import one_line, plain_console, visible
from tokenauction.engine.events import Event

COLOURS = ("cyan", "magenta", "yellow", "green", "blue", "red")
REFERENCE_COLOUR = "bright_black"
SHARED = 0.65  # below this share of influence no single row is named as a token's author
BAR_WIDTH = 12


class RichView:
    """Shows events as they come; on a terminal it redraws in place, elsewhere it prints once, at the end."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or plain_console()
        self.live = Live(console=self.console, auto_refresh=False, transient=False)
        self.text = Text()
        self.num_characters = 0  # of the text so far
        self.created: dict[str, Any] = {}
        self.agents: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.settled: dict[str, Any] = {}
        self.problem = ""

    def show(self, event: Event) -> None:
        """Take in one event and redraw."""
        if event.type == "auction.created":
            self.created = event.fields
            if self.console.is_terminal:
                self.live.start()
        elif event.type == "auction.token":
            self._add_token(event.fields)
        elif event.type == "error":
            self.problem = f"error ({event.fields['code']}): {one_line(event.fields['message'])}"
        elif event.type == "auction.settled":
            self.settled = event.fields
            self.text.append(visible(event.fields["text"][self.num_characters :]))
        if self.console.is_terminal:
            self.live.update(self._render(), refresh=True)

    def close(self) -> None:
        """Leave the last picture standing; where nothing was redrawn in place, print it now."""
        if self.console.is_terminal:
            self.live.stop()
        elif self.created:
            self.console.print(self._render())

    def _add_token(self, fields: dict[str, Any]) -> None:
        self.last, self.agents = fields, fields["agents"]
        shares = [agent["influence"] for agent in self.agents]
        leader = max(range(len(shares)), key=shares.__getitem__)
        style = f"bold {self._colour(leader)}" if shares[leader] >= SHARED else "default"
        self.text.append(visible(fields["text"]), style)
        self.num_characters += len(fields["text"])

    def _colour(self, row: int) -> str:
        is_reference = self.created["rows"][row] == "reference"
        return REFERENCE_COLOUR if is_reference else COLOURS[row % len(COLOURS)]

    def _render(self) -> RenderableType:
        spec = self.created["spec"]
        title = Text(visible(spec["query"]))  # a str would be read as markup
        subtitle = f"{spec['rule']} · {spec['sampler']} · {spec['pricing']}"
        parts: list[RenderableType] = [Panel(self.text or Text("…"), title=title, subtitle=subtitle, padding=(1, 2))]
        if self.problem:
            parts.append(Text(self.problem, style="red"))
        parts.append(self._bill() if self.settled else self._standings())
        if self.settled:
            parts.append(self._footer())
        return Group(*parts)

    def _name(self, row: int) -> Text:
        row_id = self.created["rows"][row]
        names = {agent["id"]: agent["name"] for agent in self.created["spec"]["agents"]}
        return Text(f"■ {visible(names.get(row_id, row_id))}", style=self._colour(row))

    def _standings(self) -> Table:
        """While it runs: this token's influence and payments."""
        table = Table("advertiser", "bid", "influence", "this token pays", "running total", expand=True, box=None)
        for row, agent in enumerate(self.agents):
            share = agent["influence"]
            bar = Text("█" * round(share * BAR_WIDTH), style=self._colour(row)) + Text(f" {share:4.0%}")
            paid = f"{agent['exact_payment_micros'] / 1e6:.6f}"
            total = f"{agent['total_micros'] / 1e6:.6f}"
            table.add_row(self._name(row), f"{agent['bid_micros'] / 1e6:.6f}", bar, paid, total)
        return table

    def _bill(self) -> Table:
        currency = self.settled["currency"]
        table = Table(
            "advertiser", "bid per token", f"to pay ({currency})", expand=True, title="Bill", title_justify="left"
        )
        for row, agent in enumerate(self.settled["agents"]):
            bid = self.agents[row]["bid_micros"] / 1e6 if self.agents else 0.0
            table.add_row(self._name(row), f"{bid:.6f}", f"{agent['total_micros'] / 1e6:.6f}")
        table.add_section()
        table.add_row("total", "", f"{self.settled['total_micros'] / 1e6:.6f}")
        return table

    def _footer(self) -> Text:
        tokens, reason = self.settled["num_tokens"], self.settled["finish_reason"]
        lines = [f"{tokens} tokens, finished by {reason}; {self.created['guarantee']['summary']}"]
        if self.settled["voids"]:
            lines.append(f"the guarantee is void: {', '.join(self.settled['voids'])}")
        lines.append(f"receipt head {self.settled['receipt_head'][:16]}…")
        return Text("\n".join(lines), style="dim")

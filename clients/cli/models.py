"""`tokenauction models`: which checkpoints are here, and whether one works."""

from __future__ import annotations

from rich.table import Column, Table

from tokenauction.clients.cli.compose import DEFAULT_MODEL, ModelChoice, new_decoder, settle_all
from tokenauction.clients.cli.output import plain_console
from tokenauction.engine.spec import AgentSpec, AuctionSpec

CHECK = AuctionSpec(
    query="Vacations in Hawaii",
    agents=(AgentSpec(id="alpha", name="Alpha Airlines", offer="flights to Hawaii", bid_micros=1000),),
    max_tokens=40,
    seed=0,
)


def list_models() -> None:
    """The shipped checkpoint, with its size; every other folder or hub name goes to --model."""
    table = Table("name", "weights", "where")
    size = sum(file.stat().st_size for file in DEFAULT_MODEL.glob("*.safetensors"))
    table.add_row("default", f"{size / 1e6:.1f} MB", str(DEFAULT_MODEL))
    console = plain_console()
    console.print(table)
    console.print("Any other causal language model: --model FOLDER, or a hub name where the hub is reached.")


def check_model(model: ModelChoice) -> None:
    """Load a checkpoint, print what the engine sees of it, and write one sentence for one advertiser."""
    loaded = model.load()
    tokenizer = loaded.tokenizer
    table = Table("", Column(overflow="fold"), show_header=False)
    table.add_row("name", loaded.name)
    table.add_row("weights (SHA-256)", loaded.hash)
    table.add_row("tokenizer (SHA-256)", tokenizer.hash)
    table.add_row("vocabulary", f"{tokenizer.vocab_size} tokens, logits {loaded.vocab_size} wide")
    table.add_row(
        "ends with", ", ".join(map(str, sorted(tokenizer.end_ids))) or "no end token: texts run to max_tokens"
    )
    table.add_row("chat template", "yes" if tokenizer.has_chat_template else "no")
    table.add_row("longest row", f"{loaded.max_length} tokens")
    table.add_row("numerics", f"{loaded.numerics} on {loaded.device}, computed by the {loaded.runner} runner")
    [settled] = settle_all(new_decoder(loaded), [CHECK], lambda: None)
    table.add_row("writes", settled["text"])
    plain_console().print(table)

"""The options that several commands share, as types."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

SpecFile = Annotated[Path, typer.Argument(help="The auction, as YAML.", show_default=False)]
Model = Annotated[str | None, typer.Option(help="A checkpoint folder or hub name; the shipped one if left out.")]
Runner = Annotated[
    str,
    typer.Option(
        help="What computes the model: cpp, packed, cuda or transformers; auto is the fastest there is.",
        envvar="TOKENAUCTION_RUNNER",
    ),
]
Numerics = Annotated[
    str,
    typer.Option(
        help="float32, bf16 or int8 weights; auto is float32 on a CPU and bf16 on a GPU.",
        envvar="TOKENAUCTION_NUMERICS",
    ),
]
CacheGib = Annotated[float, typer.Option(help="Memory for keys and values.", min=0.0, max=1e6)]
ReceiptFile = Annotated[Path | None, typer.Option(help="Write the receipt here, as JSON lines.")]
StoreDistributions = Annotated[
    bool, typer.Option(help="Store every distribution in the receipt, so that all of it can be recomputed.")
]

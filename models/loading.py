"""A folder or hub name becomes a model that runs: loaded through transformers, computed by the runner that fits it.

Which runner that is depends on the architecture and on what was asked for alone, never on a timing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import torch

from tokenauction.models.admissions import context_length
from tokenauction.models.base import LanguageModel
from tokenauction.models.causal_network import DTYPES
from tokenauction.models.checkpoint import load_causal_model, weight_files
from tokenauction.models.huggingface import HuggingFaceModel
from tokenauction.models.llama import LlamaModel
from tokenauction.models.llama_config import unsupported
from tokenauction.models.tokenizer import HuggingFaceTokenizer, end_ids_of

Runner = Literal["auto", "llama", "transformers"]


def load_model(
    source: str | Path,
    *,
    runner: str = "auto",
    dtype: str = "auto",
    device: str = "auto",
    max_rows: int = 64,
    max_length: int | None = None,
    name: str | None = None,
) -> LanguageModel:
    """Load model and tokenizer from a folder (without touching the network) or a hub name.

    The runner "auto" is "llama" for the architectures that it computes and "transformers", which computes any, for the
    rest. The device "auto" is the GPU in bf16 where there is one, else the CPU in float32. `name` is what receipts call
    the model; the folder's own name, or the hub name, if left out. Raises ModelNotLoadable; ValueError for an option
    that is unknown, or a runner that cannot compute the model.
    """
    if runner not in get_args(Runner):
        raise ValueError(f"runner {runner!r} is unknown; choose one of {', '.join(get_args(Runner))}")
    if dtype not in ("auto", *DTYPES):
        raise ValueError(f"dtype {dtype!r} is unknown; choose one of auto, {', '.join(DTYPES)}")
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r} and this torch finds no CUDA device; use cpu")
    if dtype == "auto":
        dtype = "bf16" if device.startswith("cuda") else "float32"
    model: Any = load_causal_model(source, DTYPES[dtype]).to(device)
    if runner == "auto":
        reason = unsupported(model.config, context_length(model.config, max_length))
        runner = "llama" if reason is None else "transformers"
    ends = end_ids_of(model.generation_config) | end_ids_of(model.config.get_text_config())
    build = LlamaModel if runner == "llama" else HuggingFaceModel
    return build(
        model,
        HuggingFaceTokenizer.load(source, ends),
        name=name or (Path(source).resolve().name if Path(source).is_dir() else str(source)),
        max_rows=max_rows,
        max_length=max_length,
        weights=weight_files(source),
    )

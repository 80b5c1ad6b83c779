"""A folder or hub name becomes a model that runs: loaded through transformers, computed by the runner that fits it.

    cpp            Llama family, CPU: one call of compiled C++ a step          float32, bf16, int8
    packed         Llama family, CPU: PyTorch with products laid out once      float32, bf16, int8
    cuda           Llama family, GPU                                           float32, bf16
    transformers   any causal model, any device: slow, the others' oracle      float32, bf16

Which runner that is depends on what was asked for, on the architecture and on whether there is a compiler; never on a
timing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tokenauction.models.admissions import context_length
from tokenauction.models.base import LanguageModel, Tokenizer
from tokenauction.models.causal_network import DTYPES
from tokenauction.models.checkpoint import load_causal_model, weight_files
from tokenauction.models.compiler import NotCompiled, load_library
from tokenauction.models.huggingface import HuggingFaceModel
from tokenauction.models.llama import CACHE_BYTES, LlamaModel
from tokenauction.models.llama_compiled import SOURCE
from tokenauction.models.llama_config import unsupported
from tokenauction.models.llama_cuda import DeviceLlama
from tokenauction.models.llama_networks import has_triton
from tokenauction.models.tokenizer import HuggingFaceTokenizer, end_ids_of

log = logging.getLogger(__name__)

# What each runner computes in, and on which kind of device ("" is any).
RUNNERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "cpp": ("cpu", ("float32", "bf16", "int8")),
    "packed": ("cpu", ("float32", "bf16", "int8")),
    "cuda": ("cuda", ("float32", "bf16")),
    "transformers": ("", ("float32", "bf16")),
}
NUMERICS = ("float32", "bf16", "int8")


def load_model(
    source: str | Path,
    *,
    runner: str = "auto",
    numerics: str = "auto",
    device: str = "auto",
    max_rows: int = 64,
    max_length: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    name: str | None = None,
) -> LanguageModel:
    """Load model and tokenizer from a folder (without touching the network) or a hub name.

    The device "auto" is the GPU where there is one, else the CPU; numerics "auto" are bf16 there and float32 here; the
    runner "auto" is the first of the module's table that computes the model. `cache_bytes` bound the keys and values of
    the Llama runners. `name` is what receipts call the model; the folder's own name, or the hub name, if left out.
    Raises ModelNotLoadable; ValueError for an option that is unknown, or a runner that cannot compute the model.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"device is {device!r} and this torch finds no CUDA device; use cpu")
    if numerics == "auto":
        numerics = "bf16" if device.startswith("cuda") else "float32"
    _check_options(runner, numerics, device)
    model: Any = load_causal_model(source, DTYPES.get(numerics, torch.float32)).to(device)  # int8 is made of float32
    ends = end_ids_of(model.generation_config) | end_ids_of(model.config.get_text_config())
    return build_model(
        model,
        HuggingFaceTokenizer.load(source, ends),
        runner=runner,
        numerics=numerics,
        name=name or (Path(source).resolve().name if Path(source).is_dir() else str(source)),
        max_rows=max_rows,
        max_length=max_length,
        cache_bytes=cache_bytes,
        weights=weight_files(source),
    )


def build_model(
    model: Any,
    tokenizer: Tokenizer,
    *,
    runner: str = "auto",
    numerics: str = "float32",
    name: str = "in-memory",
    max_rows: int = 64,
    max_length: int | None = None,
    cache_bytes: int = CACHE_BYTES,
    weights: Sequence[Path] = (),
) -> LanguageModel:
    """The runner for a transformers model that is in memory, on its own device; options and errors as `load_model`."""
    _check_options(runner, numerics, model.device.type)
    reason = unsupported(model.config, context_length(model.config, max_length))
    if runner == "auto":
        runner = "transformers" if reason is not None else _best_runner(model.device.type)
        _check_options(runner, numerics, model.device.type)
    options: dict[str, Any] = {"name": name, "max_rows": max_rows, "max_length": max_length, "weights": weights}
    if runner == "transformers":
        return HuggingFaceModel(model.to(DTYPES[numerics]), tokenizer, **options)
    try:
        build = DeviceLlama if runner == "cuda" and has_triton() else LlamaModel
        return build(model, tokenizer, runner=runner, numerics=numerics, cache_bytes=cache_bytes, **options)
    except NotCompiled as error:
        raise ValueError(str(error)) from error


def _best_runner(device: str) -> str:
    """The fastest runner for the Llama family there."""
    if device != "cpu":
        return device
    try:
        load_library(SOURCE)
        return "cpp"
    except NotCompiled as error:
        log.warning("%s: the slower runner packed is used instead", str(error).partition(";")[0])
        return "packed"


def _check_options(runner: str, numerics: str, device: str) -> None:
    if numerics not in NUMERICS:
        raise ValueError(f"numerics {numerics!r} are unknown; choose one of auto, {', '.join(NUMERICS)}")
    if runner == "auto":
        return
    if runner not in RUNNERS:
        raise ValueError(f"runner {runner!r} is unknown; choose one of auto, {', '.join(RUNNERS)}")
    needs, able = RUNNERS[runner]
    if not device.startswith(needs):
        raise ValueError(f"the runner {runner} computes on {needs}, and the model is on {device}")
    if numerics not in able:
        raise ValueError(f"the runner {runner} computes in {' or '.join(able)}, not in {numerics}")

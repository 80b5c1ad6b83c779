"""What a folder or hub name holds of a model: loading it through transformers, in one-line errors, and its hash.

A folder is never looked up on the network. It must not know how a model computes.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from tokenauction.models import base

# What transformers raises for files that are missing, damaged, of the wrong kind, or in need of another package.
LOADING_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
)


HUB_TIMEOUT = 5.0  # seconds until the hub counts as out of reach


def load_pretrained(auto_class: Any, source: str | Path, **options: Any) -> Any:
    """`auto_class.from_pretrained`: a folder without the network, a hub name from the cache or else from the network.

    Raises ModelNotLoadable for a folder that is not there, and one of LOADING_ERRORS for the rest.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return auto_class.from_pretrained(str(folder), local_files_only=True, **options)
    name = str(source)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1 or folder.exists():
        raise base.ModelNotLoadable(f"{source} is not a folder; name the folder that holds config.json and the weights")
    try:
        return auto_class.from_pretrained(name, local_files_only=True, **options)
    except LOADING_ERRORS:  # Whatever is missing from the cache, the hub may have it.
        _check_hub_is_reached()
        return auto_class.from_pretrained(name, **options)


def _check_hub_is_reached() -> None:
    """Raise OSError at once where nothing answers: asking for each file again and again takes half a minute to fail."""
    from transformers.utils.hub import is_offline_mode  # type: ignore[attr-defined]

    if is_offline_mode() or any(name in urllib.request.getproxies() for name in ("https", "all")):
        return  # transformers says it by itself, or a proxy answers in the hub's place
    host = urllib.parse.urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((host.hostname or "", host.port or 443), timeout=HUB_TIMEOUT).close()
    except OSError as error:
        raise OSError(f"it is not a folder, nor in the cache, and {host.hostname} is not reached") from error


def load_causal_model(source: str | Path, dtype: torch.dtype) -> Any:
    """The transformers model in `source`, with every weight it needs; raises ModelNotLoadable."""
    from transformers import AutoModelForCausalLM

    folder = Path(source).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise base.ModelNotLoadable(f"{source} holds no config.json; name the folder that model.save_pretrained wrote")
    options = {"dtype": dtype, "output_loading_info": True, "trust_remote_code": False}
    try:
        model, report = load_pretrained(AutoModelForCausalLM, source, **options)
    except LOADING_ERRORS as error:
        remedy = "check that the folder is complete and of a causal language model that this transformers knows"
        if not folder.is_dir():
            remedy = f"check the name, or while online run `hf download {source}`, or name a folder"
        raise base.ModelNotLoadable(f"{source} cannot be loaded ({first_line(error)}); {remedy}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise base.ModelNotLoadable(
            f"{source} lacks {len(missing)} weights ({missing[0]} first), which would be random; name a complete model"
        )
    return model


def first_line(error: BaseException) -> str:
    """The first line of an error's message, to be put into one of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def weight_files(source: str | Path) -> list[Path]:
    """The safetensors files that a loaded model came from, in order; none if its weights are in another format."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _cached_folder(str(source))
    index = folder / "model.safetensors.index.json"
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    if index.is_file():
        return sorted({folder / name for name in json.loads(index.read_text())["weight_map"].values()})
    return []


def hash_files(files: Sequence[Path]) -> str:
    """Hex SHA-256 over the files' bytes, one after the other: for one file, what `sha256sum` prints."""
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def hash_parameters(model: torch.nn.Module) -> str:
    """Hex SHA-256 over the names, dtypes, shapes and bytes of a model's parameters and buffers, sorted by name."""
    digest = hashlib.sha256()
    for key, tensor in sorted(model.state_dict().items()):
        digest.update(f"{key} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _cached_folder(name: str) -> Path:
    """Where the files of a hub model lie after it has been loaded."""
    from transformers.utils.hub import cached_file

    config = cached_file(name, "config.json", local_files_only=True)
    assert config is not None, "the model has just been loaded, so its config lies in the cache"
    return Path(config).parent

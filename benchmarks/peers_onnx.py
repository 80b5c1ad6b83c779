"""The peer of `peers.py` that onnxruntime-genai computes: one batch, its model built from a folder of transformers'."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_draw import Draft, Peer, PeerMissing
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

try:
    import onnx_ir  # noqa: F401  what the builder needs
    import onnxruntime_genai as genai
except ImportError as error:
    raise PeerMissing(f"{error.name} is not installed") from error

PRECISIONS = {"float32": "fp32", "int8": "int8", "int4": "int4"}
BUILD_SECONDS = 1800.0


def save_for_builder(model: Any, folder: Path) -> None:
    """Save the model with a tokenizer of as many words, which the builder asks for and nobody uses."""
    if (folder / "config.json").exists():
        return
    model.save_pretrained(folder)
    words = {f"t{token}": token for token in range(model.config.vocab_size)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="t0")), eos_token="t0"
    ).save_pretrained(folder)


def build(source: Path, target: Path, precision: str, end_id: int, threads: int) -> None:
    """Run onnxruntime-genai's own builder; then say which id never occurs, and how many threads to use.

    The generator ends a row at the end id and takes it for padding in a prompt, so it must be in neither.
    """
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(target)]
    command += ["-p", precision, "-e", "cpu", "-c", str(target.parent / "cache")]
    built = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    if built.returncode != 0:
        raise PeerMissing(f"its model builder fails: {built.stderr.strip().splitlines()[-1]}")
    path = target / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"] |= {"eos_token_id": end_id, "pad_token_id": end_id, "bos_token_id": end_id}
    config["model"]["decoder"]["session_options"] |= {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
    path.write_text(json.dumps(config))


class OnnxRuntime(Peer):
    """Its loop takes the logits out, and takes the drawn token in as logits that leave no other choice.

    That is the way its interface leaves open: tokens can be appended once only to a batch of more than one row.
    """

    def __init__(self, model: Any, max_tokens: int, folder: Path, numerics: str, threads: int, never: int) -> None:
        self.numerics = numerics
        self.max_tokens = max_tokens
        save_for_builder(model, folder / "transformers")
        target = folder / numerics
        build(folder / "transformers", target, PRECISIONS[numerics], never, threads)
        self.model = genai.Model(str(target))

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        assert len(set(map(len, prompts))) == 1, "the prompts are one array"
        options = genai.GeneratorParams(self.model)
        options.set_search_options(batch_size=len(prompts), max_length=self.max_tokens, do_sample=False)
        generator = genai.Generator(self.model, options)
        generator.append_tokens(np.array(prompts, dtype=np.int32))
        for step in range(num_tokens):
            logits = generator.get_logits()[:, -1]
            token = draft(torch.from_numpy(logits))
            if step + 1 < num_tokens:
                generator.set_logits(_only(token, logits.shape))
                generator.generate_next_token()


def _only(token: int, shape: tuple[int, ...]) -> np.ndarray:
    """Logits after which a greedy search takes `token`."""
    chosen = np.full((shape[0], 1, shape[1]), -1e9, dtype=np.float32)
    chosen[:, :, token] = 0.0
    return chosen


PEERS = {"onnxruntime-genai-fp32": "float32", "onnxruntime-genai-int8": "int8", "onnxruntime-genai-int4": "int4"}

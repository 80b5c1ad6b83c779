"""The training run: seeded, resumable, one process; writes a checkpoint that plain transformers loads."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tokenauction.models.training.gradients import GradientPool
from tokenauction.models.training.network import Network, Shape
from tokenauction.models.training.optimizer import Optimizer
from tokenauction.models.training.vocabulary import BEGIN, END, token_id, train_tokenizer


@dataclass(frozen=True)
class Run:
    """What a run is made of; two runs of one Run give the same weights, up to the order of float sums."""

    folder: Path
    num_steps: int = 3000
    num_examples: int = 32  # examples per step
    seed: int = 1
    muon_lr: float = 0.005
    adam_lr: float = 0.003
    warmup: int = 40  # steps
    decay: float = 0.8  # last share of the run, over which the learning rate falls to zero
    save_every: int = 50  # steps
    num_processes: int = 2
    compiles: bool = shutil.which("c++") is not None  # needs a C++ compiler; a seventh more tokens per second
    start_from: Path | None = None  # a checkpoint to go on from, where the folder holds no state yet

    def factor(self, step: int) -> float:
        """Learning-rate factor: a short warm-up, a plateau, a linear fall to zero."""
        left = (self.num_steps - step) / max(1.0, self.decay * self.num_steps)
        return min(1.0, (step + 1) / self.warmup, left)


def train(run: Run, *, stop_after: int | None = None) -> None:
    """Train from the last saved state of `run.folder`, or from the start, to the end or to `stop_after` steps."""
    run.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # each process computes on one core
    torch.set_flush_denormal(True)  # moments of rare tokens decay into numbers that a CPU is slow with
    tokenizer = _tokenizer(run)
    network = Network(Shape(vocab_size=tokenizer.get_vocab_size()), run.seed)
    if run.start_from is not None:
        network.load_transformers(load_file(run.start_from / "model.safetensors"))
    optimizer = Optimizer(network, run.muon_lr, run.adam_lr)
    state_file = run.folder / "state.pt"
    first = 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        first = int(state["step"])
    pool = GradientPool(network, tokenizer, run.seed, run.num_examples, run.num_processes, run.compiles)
    started, num_tokens = time.monotonic(), 0
    last = run.num_steps if stop_after is None else min(stop_after, run.num_steps)
    for step in range(first, last):
        loss, tokens = pool.compute(step)
        torch.set_num_threads(run.num_processes)  # the other processes wait meanwhile
        optimizer.step(run.factor(step))
        torch.set_num_threads(1)
        num_tokens += tokens
        if (step + 1) % 10 == 0:
            seconds = time.monotonic() - started
            line = {
                "step": step + 1,
                "of": run.num_steps,
                "loss": round(loss, 4),
                "tokens_per_s": round(num_tokens / seconds),
            }
            print(json.dumps(line), flush=True)
        if (step + 1) % run.save_every == 0 or step + 1 == last:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, run.folder / "state.tmp")
            (run.folder / "state.tmp").replace(state_file)
            export(network, tokenizer, run.folder / "checkpoint")
    pool.close()


def _tokenizer(run: Run) -> Tokenizer:
    file = run.folder / "tokenizer.json"
    if not file.exists() and run.start_from is not None:
        shutil.copy(run.start_from / "tokenizer.json", file)
    elif not file.exists():
        train_tokenizer(run.seed, Shape().vocab_size).save(str(file))
    return Tokenizer.from_file(str(file))


def export(network: Network, tokenizer: Tokenizer, folder: Path) -> None:
    """Write config, weights and tokenizer so that `AutoModelForCausalLM.from_pretrained(folder)` loads them."""
    folder.mkdir(parents=True, exist_ok=True)
    begin, end = token_id(tokenizer, BEGIN), token_id(tokenizer, END)
    config = network.shape.to_transformers(begin, end)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    generation = {"bos_token_id": begin, "eos_token_id": end}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "clean_up_tokenization_spaces": False,
        "model_max_length": network.shape.max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(network.to_transformers(), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone

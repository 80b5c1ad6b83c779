"""Gradients of one step, computed by several processes that take micro-batches from one counter.

Every process holds the same weights in shared memory and adds up its own gradients; whoever is faster takes more, so a
busy core costs its share and no more. The sum does not depend on who computed what, up to the order of float additions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier
from typing import Any

import torch
import torch.multiprocessing as multiprocessing
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from tokenauction.models.training.corpus import Corpus, make_batch
from tokenauction.models.training.network import Network

MICRO_BATCH = 4  # examples


@dataclass
class _Shared:
    """What the processes share; created once, by the parent."""

    network: Network
    gradients: list[list[Tensor]]  # [process][parameter]
    sums: Tensor  # float64 [process, 2]: loss, tokens
    step: Any  # Synchronized[int]; -1 ends the workers
    next_micro_batch: Any  # Synchronized[int]
    barrier: Any  # Barrier


class GradientPool:
    """`num_processes` - 1 workers and the caller itself; `compute` leaves the summed gradients in `network`."""

    def __init__(
        self, network: Network, tokenizer: Tokenizer, seed: int, num_examples: int, num_processes: int, compiles: bool
    ) -> None:
        context = multiprocessing.get_context("spawn")
        network.share_memory()
        gradients = [[_shared_zeros(p.shape) for p in network.parameters()] for _ in range(num_processes)]
        step: Synchronized[int] = context.Value("q", 0)
        counter: Synchronized[int] = context.Value("q", 0)
        barrier: Barrier = context.Barrier(num_processes)
        sums = _shared_zeros((num_processes, 2), torch.float64)
        self.shared = _Shared(network, gradients, sums, step, counter, barrier)
        self.corpus = Corpus(tokenizer, seed)
        self.num_examples = num_examples
        arguments = (tokenizer.to_str(), seed, num_examples, compiles, self.shared)
        self.workers = [
            context.Process(target=_work, args=(rank, *arguments), daemon=True) for rank in range(1, num_processes)
        ]
        for worker in self.workers:
            worker.start()
        if compiles:
            network.compile_layers()

    def compute(self, step: int) -> tuple[float, int]:
        """Gradients over the examples of `step`, summed over processes; returns the loss and the tokens read."""
        shared = self.shared
        shared.next_micro_batch.value = 0
        shared.step.value = step
        shared.barrier.wait()  # the workers see the step
        _take_micro_batches(0, shared, self.corpus, self.num_examples, step)
        shared.barrier.wait()  # every gradient is there
        for index, parameter in enumerate(shared.network.parameters()):
            parameter.grad = torch.stack([g[index] for g in shared.gradients]).sum(0)
        loss, num_tokens = shared.sums.sum(0).tolist()
        return loss, int(num_tokens)

    def close(self) -> None:
        """End the workers."""
        self.shared.step.value = -1
        self.shared.barrier.wait()
        for worker in self.workers:
            worker.join()


def _shared_zeros(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    zeros: Any = torch.zeros(tuple(shape), dtype=dtype)
    shared: Tensor = zeros.share_memory_()
    return shared


def _work(rank: int, tokenizer: str, seed: int, num_examples: int, compiles: bool, shared: _Shared) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if compiles:
        shared.network.compile_layers()
    corpus = Corpus(Tokenizer.from_str(tokenizer), seed)
    while True:
        shared.barrier.wait()
        step = shared.step.value
        if step < 0:
            return
        _take_micro_batches(rank, shared, corpus, num_examples, step)
        shared.barrier.wait()


def _take_micro_batches(rank: int, shared: _Shared, corpus: Corpus, num_examples: int, step: int) -> None:
    """Add up the gradients of the micro-batches that this process takes from the counter."""
    examples = [corpus.example(step * num_examples + i) for i in range(num_examples)]
    examples.sort(key=lambda e: -len(e.ids))  # the longest first, so that the last to finish is short
    total_weight = sum(sum(e.weights) for e in examples)
    parameters = list(shared.network.parameters())
    for parameter in parameters:
        parameter.grad = None
    loss_sum, num_tokens = 0.0, 0
    while True:
        with shared.next_micro_batch.get_lock():
            start = shared.next_micro_batch.value
            shared.next_micro_batch.value = start + MICRO_BATCH
        if start >= num_examples:
            break
        batch = make_batch(examples[start : start + MICRO_BATCH])
        wanted = batch.weights > 0
        logits = shared.network(batch.ids, batch.positions, batch.mask, wanted)
        losses = F.cross_entropy(logits, batch.targets[wanted], reduction="none")
        loss = (losses * batch.weights[wanted]).sum() / total_weight
        torch.autograd.backward(loss)
        loss_sum += float(loss.detach())
        num_tokens += batch.ids.numel()
    for mine, parameter in zip(shared.gradients[rank], parameters, strict=True):
        if parameter.grad is None:
            mine.zero_()
        else:
            mine.copy_(parameter.grad)
    shared.sums[rank, 0] = loss_sum
    shared.sums[rank, 1] = num_tokens

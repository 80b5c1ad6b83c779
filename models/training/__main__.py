"""`python -m tokenauction.models.training`: train the shipped checkpoint, resuming where the last run stopped."""

from __future__ import annotations

import argparse
from pathlib import Path

from tokenauction.models.training.train import Run, train


def main() -> None:
    """Parse the arguments and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("runs/default"), help="state, tokenizer and checkpoint")
    parser.add_argument("--steps", type=int, default=Run.num_steps)
    parser.add_argument("--examples", type=int, default=Run.num_examples, help="briefs per step")
    parser.add_argument("--seed", type=int, default=Run.seed)
    parser.add_argument("--start-from", type=Path, default=None, help="a checkpoint whose weights to go on from")
    parser.add_argument("--muon-lr", type=float, default=Run.muon_lr)
    parser.add_argument("--adam-lr", type=float, default=Run.adam_lr)
    parser.add_argument("--decay", type=float, default=Run.decay, help="last share of the run, falling to zero")
    parser.add_argument("--processes", type=int, default=Run.num_processes)
    arguments = parser.parse_args()
    train(
        Run(
            folder=arguments.folder,
            num_steps=arguments.steps,
            num_examples=arguments.examples,
            seed=arguments.seed,
            start_from=arguments.start_from,
            muon_lr=arguments.muon_lr,
            adam_lr=arguments.adam_lr,
            decay=arguments.decay,
            num_processes=arguments.processes,
        )
    )


if __name__ == "__main__":
    main()

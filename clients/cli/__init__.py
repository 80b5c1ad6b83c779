"""The command line: the one place that composes engine, models and clients."""

from __future__ import annotations

import os


def main() -> None:
    """Run `tokenauction`; see `tokenauction --help`."""
    # Idle OpenMP threads must sleep, not spin. OpenMP reads this once, when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tokenauction.clients.cli.app import run_app

    run_app()

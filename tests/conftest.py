"""Every test runs the mechanism with its array shapes and types checked at each call; users pay nothing for that.

No property is timed: a machine that has other things to do must not fail a test.
"""

import os

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # its kernels then run on a CPU; read when triton is first imported

MODULES_OF_ARRAYS = (
    "aggregation",
    "clearing",
    "device_buffers",
    "device_clearing",
    "geometric_path",
    "myerson_integral",
    "pricing",
    "properties",
    "randomness",
    "sampling",
    "shaping",
    "summation",
)

install_import_hook([f"tokenauction.engine.{name}" for name in MODULES_OF_ARRAYS], "beartype.beartype")

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

"""Every Triton kernel compiles for GPUs that are not there: what the interpreter lets pass, a compiler may refuse."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

SCRIPT = """
import sys
import warnings

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tokenauction.engine import auction_kernels
from tokenauction.models import llama_fused, paged_attention

warnings.simplefilter("ignore")
TARGET = GPUTarget("cuda", int(sys.argv[1]), 32)


def compiled(kernel, types, **constants):
    fixed = {name: value for name, value in constants.items() if name in kernel.arg_names}
    others = (name for name in kernel.arg_names if name not in fixed)
    signature = {name: types.get(name, types[""]) for name in others} | dict.fromkeys(fixed, "constexpr")
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed, attrs={})
    triton.compile(source, target=TARGET, options={"num_warps": 8 if types[""] == "*fp64" else 4})


auction = {"": "*fp64", "vocab": "i32", "span": "i32", "num_blocks": "i32", "logits": "*fp32", "tokens": "*i64"}
for width, block, blocks in ((4, 512, 512), (16, 128, 1024)):
    for name in ("_normalise", "_mix", "_draw", "_counterfactual"):
        compiled(getattr(auction_kernels, name), auction, WIDTH=width, BLOCK=block, PARTS=16, BLOCKS=blocks)

for dtype in ("*bf16", "*fp32"):
    cache = {"": dtype, "pages": "*i32", "lengths": "*i64", "scale": "fp32"}
    cache |= dict.fromkeys(("query_stride", "key_stride", "page_stride"), "i32")
    cache |= dict.fromkeys(("parts", "tops", "sums"), "*fp32")
    for size, splits in ((64, 1), (80, 8), (96, 8), (128, 8)):
        sizes = {"SIZE": size, "SPLITS": splits, "SIZE_PAD": triton.next_power_of_2(size)}
        compiled(
            paged_attention._attend, cache, **sizes, GROUP=4, GROUP_PAD=16, PAGE=16, BLOCK=64, WIDE=False
        )
        compiled(paged_attention._combine, cache, **sizes, SPLITS_PAD=splits)
    layer = {"": dtype, "width": "i32", "eps": "fp32", "cos": "*fp32", "sin": "*fp32", "slots": "*i64"}
    compiled(llama_fused._gate, layer, BLOCK=1024)
    for flag in (False, True):
        compiled(llama_fused._add_normalise, layer, HAS_DELTA=flag, BLOCK=4096)
        compiled(llama_fused._turn, layer, QUERIES=32, KEYS=8, SIZE=80, HALF_PAD=64, HAS_NORM=flag)
"""


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_every_kernel_compiles_for_a_gpu_that_is_not_there(capability: int) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
    command = [sys.executable, "-c", SCRIPT, str(capability)]
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr[-2000:]

"""The compiled clearing's own exponential, against 35 digits."""

from __future__ import annotations

import ctypes
import math
from pathlib import Path

import mpmath
import numpy as np
import pytest

import tokenauction.engine
from tokenauction.models.compiler import find_compiler, load_library


@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")
@pytest.mark.slow
def test_exponential_is_right_to_one_unit_in_the_last_place(tmp_path: Path) -> None:
    header = Path(tokenauction.engine.__file__).with_name("exponentials.hpp")
    source = tmp_path / "exponential.cpp"
    source.write_text(
        f'#include "{header}"\n'
        'extern "C" void eight(const double* x, double* y) { store(y, exp_of_negative(load(x, 8)), 8); }'
    )
    library = load_library(source)
    rng = np.random.default_rng(0)
    edges = [0.0, -5e-324, -1e-300, -1e-17, -0.34657359027997264, -0.3465735902799727, -707.9999999, -708.0]
    parts = [-rng.random(4000), -rng.random(4000) * 40, -rng.random(4000) * 708, -(10.0 ** rng.uniform(-20, 2, 4000))]
    x = np.concatenate([edges, *parts])
    y = np.empty_like(x)
    for start in range(0, len(x), 8):
        library.eight(*(ctypes.c_void_p(a[start:].ctypes.data) for a in (x, y)))
    mpmath.mp.prec = 120
    worst = max(
        abs(mpmath.mpf(float(b)) - mpmath.exp(mpmath.mpf(float(a)))) / math.ulp(b) for a, b in zip(x, y, strict=True)
    )
    assert worst <= 1.0, worst
    beyond = np.array([-708.1, -745.0, -1e300, -np.inf, np.nan, 0.0, 0.0, 0.0])
    library.eight(*(ctypes.c_void_p(a.ctypes.data) for a in (beyond, y)))
    assert y[:8].tolist()[:4] == [0, 0, 0, 0] and math.isnan(y[4]) and y[5] == 1

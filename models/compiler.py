"""C++ that is built where it runs: one file to one library, once, by whatever compiler there is, and kept.

A library is named by everything it follows from (source, headers, flags, compiler, processor), so that it is never
stale and two machines may share a home. It is written under another name and renamed, so that a build that was
interrupted leaves nothing, and two at once do no harm. PyTorch's own extension builder was left alone: it needs ninja,
reads a minute of headers that a plain C interface has no use for, and waits for ever behind the lock of a build that
was killed. This file knows no model and no auction.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")
_COMMON = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")
# The first that the compiler takes: with threads or without, for this very processor or for any of its kind.
_VARIANTS = (
    ("-march=native", "-fopenmp"),
    ("-mcpu=native", "-fopenmp"),
    ("-march=native",),
    ("-mcpu=native",),
    (),
)
BUILD_SECONDS = 300.0


class NotCompiled(Exception):
    """There is no compiler, or it refuses; the message is one line for people."""


def find_compiler() -> str | None:
    """The path of the C++ compiler: what CXX names, else the first of the usual names; None if there is none."""
    named = os.environ.get("CXX", "").strip()
    return next((path for name in ([named] if named else _COMPILERS) if (path := shutil.which(name))), None)


@cache
def load_library(source: Path, *flags: str) -> ctypes.CDLL:
    """The library built from `source`; raises NotCompiled. Calls into it let other Python threads run.

    `flags` replace the choice among the variants. Building takes a few seconds, the first time.
    """
    compiler = find_compiler()
    if compiler is None:
        named = os.environ.get("CXX", "").strip()
        asked = f"CXX names {named!r}, which is not there" if named else "no C++ compiler is installed"
        raise NotCompiled(f"{asked}; install g++ or clang++, or choose the runner packed")
    errors = []
    for variant in [flags] if flags else _VARIANTS:
        options = (*_COMMON, *variant)
        path = _cache_folder() / f"{source.stem}-{_key(source, compiler, options)}.so"
        try:
            if not path.is_file():
                _build(compiler, options, source, path)
            return ctypes.CDLL(str(path))
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            errors.append(next((line for line in said.splitlines() if "error" in line), said.strip() or "it failed"))
    raise NotCompiled(f"{compiler} does not compile {source.name}: {errors[-1].splitlines()[0]}")


def _cache_folder() -> Path:
    """Where libraries are kept: TOKENAUCTION_CACHE, else the user's cache, else a folder of this user's alone."""
    named = os.environ.get("TOKENAUCTION_CACHE", "").strip()
    base = Path(os.environ.get("XDG_CACHE_HOME", "").strip() or Path.home() / ".cache")
    folder = Path(named) if named else base / "tokenauction"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError:
        return _temporary_folder()


@cache
def _temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="tokenauction-"))  # nobody else can write there; it lasts for this process


def _key(source: Path, compiler: str, options: tuple[str, ...]) -> str:
    digest = hashlib.sha256(text := source.read_bytes())
    for header in re.findall(rb'^#include "(.+)"', text, flags=re.MULTILINE):  # of ours: beside it, including no other
        digest.update(b"\0" + (source.parent / header.decode()).read_bytes())
    for part in (compiler, _version(compiler), _processor(), *options):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:20]


@cache
def _version(compiler: str) -> str:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise NotCompiled(f"{compiler} does not run: {str(error).splitlines()[0]}") from error


@cache
def _processor() -> str:
    """What `native` means here: the processor's instruction sets."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.platform())


def _build(compiler: str, options: tuple[str, ...], source: Path, path: Path) -> None:
    """Compile to `path`, all or nothing."""
    log.info("compiling %s, once", source.name)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        command = [compiler, *options, str(source), "-o", unfinished]
        subprocess.run(command, capture_output=True, text=True, timeout=BUILD_SECONDS, check=True)
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)

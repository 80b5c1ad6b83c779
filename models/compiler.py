"""C++ that is built where it runs: one file to one library, once, by whatever compiler there is, and kept.

A library is named by everything it follows from (source, headers, flags, compiler, processor), so that it is never
stale and two machines may share a home. It is written under another name and renamed, so that a build that was
interrupted leaves nothing, and two at once do no harm. PyTorch's own extension builder was left alone: it needs ninja,
reads a minute of headers that a plain C interface has no use for, and waits for ever behind the lock of a build that
was killed. This file knows no model and no auction.
"""

from __future__ import annotations

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

_COMPILERS = ("c++", "g++", "clang++")
_COMMON = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fPIC", "-shared")
# The first that the compiler takes: with threads or without, for this very processor or for any of its kind.
_NATIVE = "-march=native" if platform.machine() in ("x86_64", "AMD64", "i686") else "-mcpu=native"
_VARIANTS = ((_NATIVE, "-fopenmp"), (_NATIVE,), ())
BUILD_SECONDS = 300.0


class NotCompiled(Exception):
    """There is no compiler, or it refuses; the message is one line for people."""


def find_compiler() -> tuple[str, ...] | None:
    """The C++ compiler as a command: what CXX says, else the first of the usual names; None if there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    for name, *options in [named] if named else [[name] for name in _COMPILERS]:
        path = shutil.which(name)
        if path is not None:
            return (path, *options)
    return None


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
        try:
            return _load(compiler, options, source)
        except subprocess.TimeoutExpired as error:
            raise NotCompiled(f"{compiler[0]} was still compiling {source.name} after {error.timeout:g} s") from error
        except subprocess.CalledProcessError as error:
            says = error.stderr.decode(errors="replace").splitlines() or [f"it ended with {error.returncode}"]
            errors.append(next((line for line in says if "error" in line), says[-1]))
        except OSError as error:
            errors.append(str(error))
    raise NotCompiled(f"{compiler[0]} does not compile {source.name}: {errors[-1]}")


def _load(compiler: tuple[str, ...], options: tuple[str, ...], source: Path) -> ctypes.CDLL:
    """The library from where it is kept, or built; one that does not load is built once more."""
    name = f"{source.stem}-{_key(source, compiler, options)}.so"
    folder = _cache_folder()
    if folder is not None and (folder / name).is_file():
        try:
            return ctypes.CDLL(str(folder / name))
        except OSError:
            log.info("%s does not load and is built again", folder / name)
    path = (folder if folder is not None and _is_writable(folder) else _temporary_folder()) / name
    _build(compiler, options, source, path)
    return ctypes.CDLL(str(path))


def _cache_folder() -> Path | None:
    """Where libraries are kept: TOKENAUCTION_CACHE, else the user's cache; None for a user without a home."""
    try:
        for variable, below in (("TOKENAUCTION_CACHE", ""), ("XDG_CACHE_HOME", "tokenauction")):
            named = os.environ.get(variable, "").strip()
            if named:
                return (Path(named).expanduser() / below).resolve()
        return (Path.home() / ".cache" / "tokenauction").resolve()
    except RuntimeError:
        return None


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@cache
def _temporary_folder() -> Path:
    """A folder where nobody else can write, for as long as this process lasts."""
    folder = Path(tempfile.mkdtemp(prefix="tokenauction-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _key(source: Path, compiler: tuple[str, ...], options: tuple[str, ...]) -> str:
    digest = hashlib.sha256(text := source.read_bytes())
    for header in re.findall(rb'^#include "(.+)"', text, flags=re.MULTILINE):  # of ours: beside it, including no other
        digest.update(b"\0" + (source.parent / header.decode()).read_bytes())
    digest.update(_version(compiler[0]))
    for part in (*compiler, _processor(), *options):
        digest.update(b"\0" + part.encode())
    return digest.hexdigest()[:20]


@cache
def _version(compiler: str) -> bytes:
    try:
        return subprocess.run([compiler, "--version"], capture_output=True, timeout=60, check=True).stdout
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


def _build(compiler: tuple[str, ...], options: tuple[str, ...], source: Path, path: Path) -> None:
    """Compile to `path`, all or nothing."""
    log.info("compiling %s, once", source.name)
    handle, unfinished = tempfile.mkstemp(dir=path.parent, suffix=".so")
    os.close(handle)
    try:
        command = [*compiler, *options, str(source), "-o", unfinished]
        subprocess.run(command, capture_output=True, timeout=BUILD_SECONDS, check=True)
        Path(unfinished).chmod(0o755)  # who shares the folder shares the library
        Path(unfinished).replace(path)
    finally:
        Path(unfinished).unlink(missing_ok=True)

"""C++ built where it runs: once, all or nothing, with errors of one line."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tokenauction.models import compiler
from tokenauction.models.compiler import NotCompiled, find_compiler, load_library

Write = Callable[[str], Path]

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler is installed")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for what is built."""
    monkeypatch.setenv("TOKENAUCTION_CACHE", str(tmp_path / "built"))
    return tmp_path / "built"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(text)`: a source file that no other test has built."""

    def write(text: str) -> Path:
        path = tmp_path / "answer.cpp"
        path.write_text(text)
        load_library.cache_clear()
        return path

    return write


def answer(number: int) -> str:
    return f'extern "C" int answer() {{ return {number}; }}'


@needs_compiler
@pytest.mark.slow
def test_library_is_built_once_and_again_when_its_source_changes(folder: Path, write: Write) -> None:
    assert load_library(write(answer(41))).answer() == 41
    [built] = folder.iterdir()
    time_of_build = built.stat().st_mtime_ns
    load_library(write(answer(41)))
    assert [path.stat().st_mtime_ns for path in folder.iterdir()] == [time_of_build]
    assert load_library(write(answer(42))).answer() == 42
    assert len(list(folder.iterdir())) == 2


@needs_compiler
@pytest.mark.slow
def test_library_is_built_again_when_a_header_beside_its_source_changes(folder: Path, write: Write) -> None:
    source = write('#include "number.hpp"\n' + answer(0).replace("0", "NUMBER"))
    for number in (3, 4):
        source.with_name("number.hpp").write_text(f"constexpr int NUMBER = {number};")
        load_library.cache_clear()
        assert load_library(source).answer() == number
    assert len(list(folder.iterdir())) == 2


@needs_compiler
@pytest.mark.slow
def test_source_that_does_not_compile_says_so_on_one_line_and_leaves_nothing(folder: Path, write: Write) -> None:
    with pytest.raises(NotCompiled, match=r"does not compile answer.cpp: .*error.*") as raised:
        load_library(write("int answer() { return nothing; }"))
    assert "\n" not in str(raised.value)
    assert list(folder.iterdir()) == []


@needs_compiler
@pytest.mark.slow
def test_build_that_was_cut_off_is_not_taken_for_a_library(folder: Path, write: Write) -> None:
    source = write(answer(7))
    load_library(source)
    [built] = folder.iterdir()
    (folder / "tmpcut.so").write_bytes(built.read_bytes()[:100])  # as a killed process leaves it
    assert load_library(write(answer(7))).answer() == 7


@pytest.mark.parametrize(
    ("named", "says"), [("/nowhere/c++", "CXX names '/nowhere/c++', which is not there"), ("", "no C++ compiler")]
)
def test_without_a_compiler_the_remedy_is_named(
    named: str, says: str, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", named)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(NotCompiled, match=re.escape(says) + ".*install g"):
        load_library(write(answer(1)))


@needs_compiler
@pytest.mark.slow
def test_library_that_does_not_load_is_built_again_and_others_may_read_it(
    folder: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_library(write(answer(8)))
    [built] = folder.iterdir()
    assert built.stat().st_mode & 0o777 == 0o755
    broken = tmp_path / "elsewhere" / built.name
    broken.parent.mkdir()
    broken.write_bytes(b"")
    monkeypatch.setenv("TOKENAUCTION_CACHE", str(broken.parent))
    assert load_library(write(answer(8))).answer() == 8
    assert broken.stat().st_size > 0


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("named", [".", "~/cached"])
def test_cache_may_be_named_in_any_way(
    named: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TOKENAUCTION_CACHE", named)
    assert load_library(write(answer(9))).answer() == 9
    assert len(list(tmp_path.rglob("answer-*.so"))) == 1


@needs_compiler
@pytest.mark.slow
def test_compiler_may_be_named_with_options(folder: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "c++ -DNUMBER=6")
    assert load_library(write('extern "C" int answer() { return NUMBER; }')).answer() == 6


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("sleep 60", "was still compiling answer.cpp after 0.2 s"),
        ("printf '\\377 error\\n' >&2; exit 1", "does not compile answer.cpp: .* error"),
        ("exit 9", "does not compile answer.cpp: it ended with 9"),
    ],
)
def test_strange_compiler_is_one_line(
    script: str, says: str, folder: Path, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = tmp_path / "fake"
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\n{script}\n')
    fake.chmod(0o700)
    monkeypatch.setenv("CXX", str(fake))
    monkeypatch.setattr(compiler, "BUILD_SECONDS", 0.2)
    with pytest.raises(NotCompiled, match=says):
        load_library(write(answer(1)))


def test_program_that_is_no_compiler_is_refused(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "fake"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o700)
    monkeypatch.setenv("CXX", str(fake))
    with pytest.raises(NotCompiled, match="does not run"):
        load_library(write(answer(1)))


@needs_compiler
@pytest.mark.slow
def test_folder_that_cannot_be_written_is_replaced_by_a_private_one(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("TOKENAUCTION_CACHE", str(tmp_path / "file"))
    library = load_library(write(answer(5)))
    assert isinstance(library, ctypes.CDLL)
    assert library.answer() == 5
    assert compiler._temporary_folder().stat().st_mode & 0o077 == 0

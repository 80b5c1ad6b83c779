"""What a user installs: the wheel holds every file git knows under the package's folders, and nothing else.

The real code is in top-level folders that an editable install reaches through symlinks and a wheel through a mapping;
these tests hold the two together. Nothing here needs a network: the build backend comes with the dev extras.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tokenauction

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("engine", "models", "server", "clients", "examples")
WHEEL_LIMIT_BYTES = 45_000_000  # the checkpoint may have 40 MB; the rest is code

# Without these the wheel installs and then cannot do what the README promises.
INDISPENSABLE = frozenset(
    "tokenauction/" + name
    for name in (
        "__init__.py",
        "py.typed",
        "engine/errors.py",
        "engine/fused_clearing.cpp",
        "engine/exponentials.hpp",
        "models/base.py",
        "models/llama_step.cpp",
        "models/panels.hpp",
        "models/default/config.json",
        "models/default/model.safetensors",
        "models/default/tokenizer.json",
        "clients/cli/__init__.py",
        "clients/web/tokenauction.js",
        "clients/web/tokenauction.d.ts",
        "clients/web/verify.js",
        "clients/web/verification/arithmetic.js",
        "server/web/index.html",
        "examples/hawaii.yaml",
    )
)


def build(out: Path, *options: str) -> Path:
    """Build with the backend of this environment and return the wheel; without options it is made from an sdist."""
    command = [sys.executable, "-m", "build", *options, "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}"
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("wheel"), "--wheel")


def names_in(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return sorted(archive.namelist())


def package_names_in(wheel: Path) -> list[str]:
    return [
        name for name in names_in(wheel) if not name.startswith(f"tokenauction-{tokenauction.__version__}.dist-info/")
    ]


def names_known_to_git() -> list[str]:
    """Files under the package's folders that git tracks, or would: what git ignores stays out of the wheel too."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *FOLDERS]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [name for name in names if name and (ROOT / name).is_file()]


def test_wheel_holds_exactly_what_git_knows(wheel: Path) -> None:
    expected = {"tokenauction/" + name for name in ("__init__.py", "py.typed", *names_known_to_git())}
    assert package_names_in(wheel) == sorted(expected)


def test_wheel_holds_what_the_readme_promises(wheel: Path) -> None:
    assert INDISPENSABLE - set(names_in(wheel)) == set()


def test_wheel_names_every_file_once_and_leaves_out_the_workshop(wheel: Path) -> None:
    names = names_in(wheel)
    assert len(names) == len(set(names))
    assert [name for name in names if "__pycache__" in name or name.startswith(("src/", "tests/", "engine/"))] == []


def test_wheel_carries_version_licence_and_command(wheel: Path) -> None:
    folder = f"tokenauction-{tokenauction.__version__}.dist-info"
    names = set(names_in(wheel))
    assert {f"{folder}/licenses/LICENSE", f"{folder}/licenses/NOTICE"} <= names
    with zipfile.ZipFile(wheel) as archive:
        assert "tokenauction = tokenauction.clients.cli:main" in archive.read(f"{folder}/entry_points.txt").decode()


def test_wheel_stays_within_its_size(wheel: Path) -> None:
    assert wheel.stat().st_size <= WHEEL_LIMIT_BYTES


def test_sdist_makes_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    assert names_in(build(tmp_path)) == names_in(wheel)


def test_unpacked_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    program = (
        "import importlib.resources, tokenauction.clients.cli as cli\n"
        "root = importlib.resources.files('tokenauction')\n"
        "assert (root / 'examples' / 'hawaii.yaml').is_file()\n"
        "assert (root / 'models' / 'default' / 'config.json').is_file()\n"
        "print(cli.__file__)"
    )
    # PYTHONPATH goes before the editable install, so what is imported is the wheel's copy.
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def test_editable_install_reads_the_same_files() -> None:
    package = Path(tokenauction.__file__).parent
    assert package == ROOT / "src" / "tokenauction", "run the tests from an editable install: make test"
    assert [name for name in names_known_to_git() if not (package / name).samefile(ROOT / name)] == []

"""What a user installs: the wheel holds every file git knows under the package's folders, and nothing else.

The real code is in top-level folders that an editable install reaches through symlinks and a wheel through a mapping;
these tests hold the two together. Nothing here needs a network: the build backend comes with the dev extras.
"""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import tokenauction

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
CODE = ("engine", "models", "server", "clients")
FOLDERS = (*CODE, "examples")
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


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = ("gpu", "mqtt", "otel", "plot", "postgres")


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def requirements(extra: str) -> set[str]:
    """The packages of an extra, or those of every installation, as pyproject.toml names them."""
    texts = PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]
    return {canonical(Requirement(text).name) for text in texts}


def foreign_imports() -> dict[str, set[str]]:
    """Everything imported that is neither ours nor Python's, and the packages it may come from."""
    names: set[str] = set()
    for path in (path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    owners = importlib.metadata.packages_distributions()
    foreign = names - sys.stdlib_module_names - {"tokenauction"}
    return {name: {canonical(owner) for owner in owners.get(name, [name])} for name in foreign}


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


@pytest.fixture(scope="module")
def elsewhere(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment of its own with nothing but the wheel in it, installed by pip.

    What the wheel depends on is found beside these tests, torch alone being too large to fetch for each run: their
    packages stand behind its own, and without the editable install, whose link is only followed where it lies.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = ["-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    done = subprocess.run([sys.executable, *install], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    [packages] = (folder / "env" / "lib").glob("python*/site-packages")
    (packages / "zz-dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run_elsewhere(folder: Path, *command: str) -> str:
    """What a command of that environment prints, from a folder that has nothing to do with the checkout."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TOKENAUCTION"))}
    program, *rest = command
    where = [str(folder / "env" / "bin" / program), *rest]
    done = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_installed_wheel_has_every_dependency_it_declares_and_runs_its_own_code(elsewhere: Path) -> None:
    program = (
        "import importlib.metadata as m, tokenauction.clients.cli.app as app\n"
        "from packaging.requirements import Requirement\n"
        "wanted = [r for r in map(Requirement, m.requires('tokenauction')) if 'extra' not in str(r.marker)]\n"
        "assert len(wanted) > 10\n"
        "assert [str(r) for r in wanted if not r.specifier.contains(m.version(r.name), prereleases=True)] == []\n"
        "print(app.__file__)"
    )
    assert Path(run_elsewhere(elsewhere, "python", "-c", program).strip()).is_relative_to(elsewhere)
    assert run_elsewhere(elsewhere, "tokenauction", "--version").strip() == tokenauction.__version__


def test_demo_of_the_installed_wheel_works_from_another_folder(elsewhere: Path) -> None:
    printed = run_elsewhere(elsewhere, "tokenauction", "demo")
    assert "Alpha Airlines" in printed and "Beta Resort" in printed and "total" in printed


def test_everything_imported_is_a_declared_dependency() -> None:
    declared = {name for extra in ("", *OPTIONAL) for name in requirements(extra)}
    assert {name for name, owners in foreign_imports().items() if not owners & declared} == set()


def test_server_and_commands_start_without_what_only_extras_bring(elsewhere: Path) -> None:
    always = requirements("")
    extra = {name for name, owners in foreign_imports().items() if not owners & always} - {"opentelemetry"}
    assert extra >= {"aiomqtt", "asyncpg", "matplotlib", "triton"}
    program = (
        f"import sys; sys.modules.update(dict.fromkeys({sorted(extra | {'opentelemetry.sdk'})}))\n"
        "import tokenauction.clients.cli.app, tokenauction.clients.cli.serve, tokenauction.clients.cli.doctor"
    )
    run_elsewhere(elsewhere, "python", "-c", program)


def test_development_has_every_extra_that_can_be_tested_here() -> None:
    extras = set(PROJECT["optional-dependencies"])
    [own] = [Requirement(text) for text in PROJECT["optional-dependencies"]["dev"] if text.startswith("tokenauction[")]
    assert own.extras | {"dev", "gpu", "peers", "plot"} == extras


def test_metadata_names_the_pythons_it_is_for() -> None:
    named = {text.rpartition(" ")[2] for text in PROJECT["classifiers"] if ":: 3." in text}
    assert named == {"3.11", "3.12", "3.13"} and PROJECT["requires-python"] == ">=3.11"
    assert "Typing :: Typed" in PROJECT["classifiers"] and (ROOT / "src" / "tokenauction" / "py.typed").is_file()


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

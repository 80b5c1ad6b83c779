"""The README and the docs say what is true: their code runs, their commands exist, their file tree is the tree."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "models" / "default" / "README.md"]


def blocks(text: str, language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [body for name, body in fenced if name == language]


def test_readme_python_runs_and_prints_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = blocks(README, "python")
    exec(compile(code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    claimed = re.findall(r"\.\d{4}", code.splitlines()[-1])
    assert len(claimed) == 6
    assert all(f"0{number}" in printed for number in claimed), printed


def test_page_of_files_names_every_file_once() -> None:
    [tree] = blocks((ROOT / "docs" / "files.md").read_text(encoding="utf-8"), "")
    named = set(re.findall(r"[\w/]+\.py", tree))
    listed = subprocess.run(
        "git ls-files --cached --others --exclude-standard engine models server clients benchmarks".split(),
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    unnamed = ("__init__.py", "__main__.py")
    files = {Path(f).name for f in listed if f.endswith(".py") and not f.endswith(unnamed) and "migrations" not in f}
    assert {Path(name).name for name in named} == files


def test_readme_commands_exist() -> None:
    from typer.main import get_command

    from tokenauction.clients.cli.app import app

    commands = get_command(app).commands  # type: ignore[attr-defined]
    used = set(re.findall(r"^tokenauction (\w+)", README, flags=re.MULTILINE))
    assert used == set(commands)


def test_readme_targets_exist_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in {
        first or second for first, second in re.findall(r"^make (\w+)|`make (\w+)", README, flags=re.MULTILINE)
    }:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_link_to_files_that_exist(page: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not link.startswith(("http://", "https://")):
            assert (page.parent / link).exists(), link


def test_pages_of_the_docs_stand_in_the_site_and_link_to_each_other_alone() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    named = {name for entry in site["nav"] for name in entry.values()}
    assert named == {page.name for page in (ROOT / "docs").glob("*.md")}, "put the page into nav of mkdocs.yml"
    for page in (ROOT / "docs").glob("*.md"):
        out = re.findall(r"\]\((\.\./[^)]*)\)", page.read_text(encoding="utf-8"))
        assert not out, f"{page.name}: what is not in docs/ is not on the site; write `{out[0][3:]}` without a link"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_pages_name_files_that_exist(page: Path) -> None:
    for name in re.findall(
        r"`((?:engine|models|clients|tests|benchmarks|examples|docs)/[\w./]+)`", page.read_text(encoding="utf-8")
    ):
        path = ROOT / name
        assert (
            path.exists()
            or path.with_suffix(".py").exists()
            or (ROOT / Path(name).with_suffix("")).with_suffix(".py").exists()
        ), name

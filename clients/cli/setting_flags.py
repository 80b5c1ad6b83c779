"""Settings as the options of a command, and as a table: one flag a field, read by typer, checked by the settings.

python -m tokenauction.clients.cli.setting_flags < docs/operations.md    the page, with its table as it must be
"""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.main
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from tokenauction.clients.cli.settings import PREFIX, ServeSettings

CONFIG_HELP = f"A file of settings, as TOML; every flag is a key of it, and a variable {PREFIX}…."


def run_by_settings(context: typer.Context, run: Callable[[ServeSettings], None], about: str | None) -> None:
    """Read the rest of a command line as settings, and run; raises typer.Exit as `run` does."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=about, context_settings={"help_option_names": ["-h", "--help"]})(command_of(run))
    code = typer.main.get_command(app).main(context.args, context.command_path, standalone_mode=False)
    if code:
        raise typer.Exit(code)


def command_of(run: Callable[[ServeSettings], None]) -> Callable[..., None]:
    """`run` as a command whose options are the settings."""

    def command(config: Path | None, **flags: Any) -> None:
        given = {name: value for name, value in flags.items() if value is not None and value != []}
        run(ServeSettings.load(given, config))

    flags = [_parameter(name, field) for name, field in ServeSettings.model_fields.items()]
    config = Annotated[Path | None, typer.Option(help=CONFIG_HELP, envvar=f"{PREFIX}CONFIG")]
    parameters = [_option("config", config), *flags]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _parameter(name: str, field: FieldInfo) -> inspect.Parameter:
    shown = default_of(field)
    dashed = name.replace("_", "-")
    names = [f"--{dashed}/--no-{dashed}"] if bool in _kinds(field) else []
    option = typer.Option(*names, help=field.description, show_default=shown or False)
    return _option(name, Annotated[_flag_type(field) | None, option])


def _option(name: str, annotation: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def default_of(field: FieldInfo) -> str:
    """A default as it is shown; empty for none."""
    value = field.default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    return "" if value in (None, ()) else f"{value:g}" if isinstance(value, float) else str(value)


def _kinds(field: FieldInfo) -> set[Any]:
    is_union = isinstance(field.annotation, types.UnionType)
    return set(typing.get_args(field.annotation)) - {types.NoneType} if is_union else {field.annotation}


def _flag_type(field: FieldInfo) -> Any:
    [kind] = _kinds(field)
    if typing.get_origin(kind) is tuple:
        return list[str]
    is_word = kind is SecretStr or typing.get_origin(kind) is typing.Literal  # what it may be, the settings say
    return str if is_word else kind


def filled(page: str) -> str:
    """The page with its table of settings as it must be."""
    rows = [("flag, key of the file", "environment", "default", "what it says"), ("---",) * 4]
    for name, field in ServeSettings.model_fields.items():
        dashed = name.replace("_", "-")
        flag = f"--{dashed}`, `--no-{dashed}" if bool in _kinds(field) else f"--{dashed}"
        shown = f"`{default_of(field)}`" if default_of(field) else ""
        rows.append((f"`{flag}`", f"`{PREFIX}{name.upper()}`", shown, str(field.description)))
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    marks = "<!-- table settings -->", "<!-- end -->"
    return re.sub(f"{marks[0]}.*?{marks[1]}", f"{marks[0]}\n{table}\n{marks[1]}", page, flags=re.DOTALL)


if __name__ == "__main__":
    sys.stdout.write(filled(sys.stdin.read()))

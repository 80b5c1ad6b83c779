"""What a server can be told, in one place: each setting is a flag, a variable of the environment and a key of a file.

    a flag (--port)  >  the environment (TOKENAUCTION_PORT)  >  a file (TOML; --config, TOKENAUCTION_CONFIG)  >  default

It must not know what a setting is used for. A value that may hold a secret is in no message.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from tokenauction.engine.errors import InvalidInput
from tokenauction.server.log import Format, Level

PREFIX = "TOKENAUCTION_"
ELSEWHERE = frozenset({"CACHE", "CONFIG", "TOKEN", "URL"})  # variables that are no settings of a server
MAX_FILE_BYTES = 2**20


class ServeSettings(BaseSettings):
    """The settings of `tokenauction serve`; in Python, names have _ where flags have -."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, extra="forbid", frozen=True, env_ignore_empty=True, hide_input_in_errors=True
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8400, ge=0, le=65_535, description="0 takes a free one.")
    ledger: SecretStr = Field(
        SecretStr("tokenauction.db"), description="A file, or postgresql://USER@HOST/DATABASE; may hold a password."
    )
    model: str | None = Field(None, description="A folder or hub name; the shipped one if left out.")
    runner: str = Field(
        "auto", description="What computes the model: cpp, packed, cuda or transformers; auto is the fastest there is."
    )
    numerics: str = Field(
        "auto", description="float32, bf16 or int8 weights; auto is float32 on a CPU and bf16 on a GPU."
    )
    cache_gib: float = Field(2.0, ge=0, le=1e6, description="Memory for keys and values; full, auctions wait.")
    auth: bool | None = Field(None, description="Ask for tokens; the default, except on 127.0.0.1.")
    origin: Annotated[tuple[str, ...], NoDecode] = Field((), description="Whose pages may connect; may be repeated.")
    play_money: str | None = Field(
        None, description="What every new account begins with; 100 where no token is asked for, else 0."
    )
    presets: Path | None = Field(None, description="A folder of spec files to offer by name; the examples.")
    mqtt: str | None = Field(
        None,
        description="A broker that is told everything, and brings bids: mqtt://HOST, mqtts://USER@HOST:PORT/PREFIX.",
    )
    mqtt_password: SecretStr | None = Field(None, description="For the broker; not as a flag, which others can read.")
    mqtt_ca: Path | None = Field(None, description="Who vouches for the broker; the system's authorities.")
    mqtt_certificate: Path | None = Field(None, description="The server's own for mqtts, with its key, one PEM file.")
    mqtt_trust: bool = Field(False, description="The broker says who bids for whom: its rules must.")
    mqtt_payments: bool = Field(False, description="Tell agents their payments; the broker must keep them apart.")
    drain_seconds: float = Field(60.0, ge=0, le=3600, description="For running auctions to finish.")
    log_format: Format = Field("text", description="Of the log on stderr: text or json.")
    log_level: Level = Field("info", description="From which level on: debug, info, warning or error.")
    traces: bool = Field(False, description="Send OpenTelemetry spans of auctions; needs the extra otel.")

    @field_validator("origin", mode="before")
    @classmethod
    def _separate(cls, value: Any) -> Any:
        return value.replace(",", " ").split() if isinstance(value, str) else value

    @field_validator("play_money", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @classmethod
    def load(cls, flags: Mapping[str, Any], file: Path | None = None) -> Self:
        """The settings by these flags, the environment and a file (TOKENAUCTION_CONFIG's where None is given).

        Raises InvalidInput, which says where a value came from and how to do better.
        """
        if file is None and (named := os.environ.get(f"{PREFIX}CONFIG")):
            file = Path(named)
        sources: dict[str, Any] = {**flags, FROM_FILE: {} if file is None else _read(file)}
        try:
            return cls(**sources)
        except ValidationError as error:
            raise InvalidInput(_complaint(error, flags, file, sorted(cls.model_fields))) from None
        except SettingsError as error:
            raise InvalidInput(str(error)) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Flags, environment, file."""
        flags = dict(init_settings())
        kept = flags.pop(FROM_FILE, {})
        return InitSettingsSource(settings_cls, flags), env_settings, InitSettingsSource(settings_cls, kept)


FROM_FILE = "from file"  # no flag can be called that


def strangers() -> list[str]:
    """Variables of the environment that look like settings and are none."""
    known = {name.upper() for name in ServeSettings.model_fields} | ELSEWHERE
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in known)


def _read(file: Path) -> dict[str, Any]:
    try:
        with file.open("rb") as opened:
            text = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"--config {file}: {error.strerror or error}") from None
    if len(text) > MAX_FILE_BYTES:
        raise InvalidInput(f"--config {file} has more than {MAX_FILE_BYTES} bytes, which is the limit")
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--config {file} is no TOML: {str(error).partition(': b')[0]}") from None


def _complaint(error: ValidationError, flags: Mapping[str, Any], file: Path | None, known: list[str]) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{file} has a setting {name!r}, which there is not; there are {', '.join(known)}"
    if name in flags:
        place = "--" + name.replace("_", "-")
    elif PREFIX + name.upper() in {variable.upper() for variable in os.environ}:
        place = PREFIX + name.upper()
    else:
        place = f"{name} in {file}"
    return f"{place} cannot be: {first['msg'][0].lower()}{first['msg'][1:]}"

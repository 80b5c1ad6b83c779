"""A spec file: YAML (or JSON) from a stranger, with single fields replaced by options, made into an AuctionSpec.

What YAML can do and no auction needs is refused: aliases (a few lines of them stand for gigabytes), a key given twice
(which one counts?), numbers without end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tokenauction.engine.errors import InvalidSpec
from tokenauction.engine.spec import AuctionSpec

MAX_CHARACTERS = 1_000_000
MAX_DIGITS = 300  # of a whole number; a seed has at most 78, or 258 in binary

# What PyYAML lets through from Python for a value that its type cannot hold, such as the date 2024-13-45.
VALUE_ERRORS = (ValueError, OverflowError, AttributeError, KeyError, IndexError, TypeError)


def load_spec(
    path: Path, overrides: Mapping[str, Any] | None = None, bids: Mapping[str, Any] | None = None
) -> AuctionSpec:
    """A spec from a YAML (or JSON) file, with single fields and single agents' bids replaced.

    Raises InvalidSpec, InvalidBid or UnsafeCombination, which say what is wrong.
    """
    source = read_yaml(path)
    if isinstance(source, dict):
        source |= overrides or {}
        _replace_bids(source, bids or {})
    return AuctionSpec.from_mapping(source)


def read_yaml(path: Path) -> Any:
    """What a YAML file holds, read as strictly as a spec; raises InvalidSpec."""
    return _parse(path, _read(path))


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_CHARACTERS + 1)
    except OSError as error:
        raise InvalidSpec(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidSpec(f"{path} is not UTF-8 text") from None
    if len(text) > MAX_CHARACTERS:
        raise InvalidSpec(f"{path} has more than {MAX_CHARACTERS} characters, which no auction needs")
    return text


def _parse(path: Path, text: str) -> Any:
    try:
        return yaml.load(text, _SpecLoader)
    except InvalidSpec as error:
        raise InvalidSpec(f"{path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        place = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise InvalidSpec(f"{path} is not YAML: {error.problem}{place}") from None
    except yaml.YAMLError as error:
        raise InvalidSpec(f"{path} is not YAML: {error}") from None
    except RecursionError:
        raise InvalidSpec(f"{path} is nested too deeply") from None
    except VALUE_ERRORS as error:
        raise InvalidSpec(f"{path} holds a value that its YAML type does not allow: {error}") from None


def _replace_bids(source: dict[Hashable, Any], bids: Mapping[str, Any]) -> None:
    agents = source.get("agents")
    listed = [agent for agent in agents if isinstance(agent, dict)] if isinstance(agents, list) else []
    known = {str(agent.get("id", agent.get("name"))).strip(): agent for agent in listed}
    for agent_id, amount in bids.items():
        if agent_id not in known:
            raise InvalidSpec(f"--bid names {agent_id!r}; the agents are {', '.join(known) or 'none'}")
        known[agent_id]["bid"] = amount


class _SpecLoader(yaml.SafeLoader):
    """SafeLoader without what the file's docstring refuses."""

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise InvalidSpec(f"an alias (*) in line {line}, which a spec cannot have; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = Counter(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for name, count in names.items():
            if count > 1:
                raise InvalidSpec(f"{name!r} is given {count} times (mapping in line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)

    def construct_yaml_str(self, node: yaml.ScalarNode) -> str:
        text: str = super().construct_yaml_str(node)  # JSON escapes a rare character as two halves; YAML leaves them so
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        if len(node.value) > MAX_DIGITS:
            raise InvalidSpec(f"a number of {len(node.value)} digits in line {node.start_mark.line + 1}")
        return super().construct_yaml_int(node)


_SpecLoader.add_constructor("tag:yaml.org,2002:int", _SpecLoader.construct_yaml_int)
_SpecLoader.add_constructor("tag:yaml.org,2002:str", _SpecLoader.construct_yaml_str)

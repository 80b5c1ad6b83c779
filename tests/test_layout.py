"""The rules of this tree that a machine can hold: who imports whom, what is pure, how long a file may be.

A rule is a function from one source file to its offences, registered with examples that it must catch and must let
pass, so that no rule goes blind unnoticed. To add one, write it and its examples; the tests at the end pick it up.
"""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tokenauction"
FOLDERS = ("engine", "models", "server", "clients")

MAX_FILE_LINES, MEDIAN_FILE_LINES = 300, 150
MAX_FUNCTION_LINES, USUAL_FUNCTION_LINES = 60, 30
DATA_MODULES = frozenset({"models.training.words"})  # word lists: nobody reads them from top to bottom

# The longest prefix of a module's name that stands here says which of our modules it may import; "" means all.
MAY_IMPORT_OURS: dict[str, tuple[str, ...]] = {
    "engine": ("engine", "models.base", "models.compiler"),
    "models": ("models",),
    "models.base": (),
    "models.compiler": (),
    "server": ("server", "engine", "models.base"),
    "clients": ("clients", "server.wire", "server.mqtt_link", "server.mqtt_topics", "server.openrtb"),
    "clients.cli": ("",),
}

# Engine and models run wherever these are installed; folders not named here may use every dependency of the package.
MAY_IMPORT_OTHERS: dict[str, frozenset[str]] = {
    "engine": frozenset({"jaxtyping", "numpy", "torch", "triton"}),
    "models": frozenset({"jaxtyping", "numpy", "safetensors", "tokenizers", "torch", "transformers", "triton"}),
}

# What a pure module does without: the world outside it ...
WORLD_MODULES = frozenset(
    "asyncio datetime http io logging multiprocessing os pathlib secrets select shutil signal socket sqlite3 ssl "
    "subprocess tempfile threading time urllib uuid".split()
)
WORLD_BUILTINS = frozenset({"breakpoint", "eval", "exec", "input", "open", "print"})
WORLD_METHODS = frozenset({"open", "read_bytes", "read_text", "write_bytes", "write_text"})
WORLD_FUNCTIONS = frozenset({"numpy.load", "numpy.save", "torch.load", "torch.save"})
# ... and generators with a state, which make a draw depend on what else was drawn.
RANDOM_MODULES = frozenset({"random", "numpy.random", "torch.distributions", "torch.random"})
RANDOM_FUNCTIONS = frozenset(
    "torch." + name
    for name in "Generator bernoulli initial_seed manual_seed multinomial normal poisson rand rand_like randint "
    "randint_like randn randn_like randperm seed".split()
)
RANDOM_METHODS = frozenset("bernoulli bernoulli_ exponential_ geometric_ multinomial normal_ random_ uniform_".split())

# The engine's only doors to the world, and what may pass through them. Nothing exempts a module from the random rules.
WORLD_EXEMPTIONS: dict[str, frozenset[str]] = {
    "engine.decoder": frozenset({"asyncio", "time"}),  # awaits the model between steps and stamps events
    "engine.scheduler": frozenset({"threading", "time"}),  # the model runs beside the record; how long it is waited for
    "engine.fused_clearing": frozenset({"pathlib"}),  # names its C++, which models.compiler reads
    "engine.receipt": frozenset({"io", "open", "pathlib"}),  # writes and reads receipts
}


@dataclass(frozen=True)
class Source:
    """One Python file of the package: its module name without the package's ("engine.pricing") and its text."""

    module: str
    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def folder(self) -> str:
        return self.module.partition(".")[0]

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())


@dataclass(frozen=True)
class Offence:
    line: int
    says: str


Rule = Callable[[Source], Iterator[Offence]]
Example = tuple[str, str]  # module name, text

RULES: dict[str, Rule] = {}
MUST_CATCH: list[tuple[Rule, Example]] = []
MUST_PASS: list[tuple[Rule, Example]] = []


def rule(*, catches: list[Example], passes: list[Example]) -> Callable[[Rule], Rule]:
    """Register a rule together with what it must catch and what it must let pass."""

    def register(function: Rule) -> Rule:
        RULES[function.__name__] = function
        MUST_CATCH.extend((function, example) for example in catches)
        MUST_PASS.extend((function, example) for example in passes)
        return function

    return register


@cache
def sources() -> tuple[Source, ...]:
    """Every Python file in the package's folders, in a stable order."""
    found = []
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            relative = path.relative_to(ROOT)
            parts = relative.with_suffix("").parts
            module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Source(module, relative.as_posix(), path.read_text(encoding="utf-8")))
    return tuple(found)


def imports(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported: `from a.b import c` gives "a.b.c"."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def imports_of_ours(source: Source) -> Iterator[tuple[int, str]]:
    """The same for our own modules, without the package's name; what the package itself defines is everybody's."""
    for line, name in imports(source):
        head, _, rest = name.partition(".")
        if head == PACKAGE and rest.partition(".")[0] in FOLDERS:
            yield line, rest


def within(name: str, prefix: str) -> bool:
    return prefix == "" or name == prefix or name.startswith(prefix + ".")


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def dotted_uses(source: Source) -> Iterator[tuple[int, str]]:
    """Line and full name of every `a.b.c` whose `a` was imported, with `import numpy as np` undone."""
    full_names = {}
    for node in ast.walk(source.tree):
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            head = alias.name.partition(".")[0]
            if isinstance(node, ast.ImportFrom):
                full_names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
            elif alias.asname:
                full_names[alias.asname] = alias.name
            else:
                full_names[head] = head
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            names, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                names.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in full_names:
                yield node.lineno, ".".join([full_names[inner.id], *reversed(names)])


# --- The rules ----------------------------------------------------------------------------------------------------


@rule(
    catches=[
        ("engine.clearing", "from tokenauction.models.huggingface import HuggingFaceModel"),
        ("engine.clearing", "import tokenauction.server.wire"),
        ("engine.clearing", "from tokenauction import clients"),
        ("engine.clearing", "if TYPE_CHECKING:\n    from tokenauction.models import toy"),
        ("models.toy", "def f():\n    from tokenauction.engine.errors import InvalidInput"),
        ("models.base", "from tokenauction.models.toy import ToyModel"),
        ("server.app", "from tokenauction.clients.client import watch"),
        ("clients.client", "from tokenauction.engine.auction import Auction"),
    ],
    passes=[
        ("engine.clearing", "from tokenauction.engine import pricing\nfrom tokenauction.models.base import Gang"),
        ("models.toy", "from tokenauction.models.base import Gang\nfrom tokenauction import __version__"),
        ("server.app", "from tokenauction.engine.auction import Auction"),
        ("clients.client", "from tokenauction.server.wire import decode"),
        ("clients.cli", "from tokenauction.models.toy import ToyModel\nfrom tokenauction.engine import decoder"),
    ],
)
def imports_point_one_way(source: Source) -> Iterator[Offence]:
    """A module imports only what MAY_IMPORT_OURS allows; what needs more is composed in clients/cli/."""
    prefix = max((p for p in MAY_IMPORT_OURS if within(source.module, p)), key=len)
    allowed = MAY_IMPORT_OURS[prefix]
    for line, name in imports_of_ours(source):
        if not any(within(name, a) for a in allowed):
            yield Offence(line, f"imports {PACKAGE}.{name}; {prefix} may use of ours: {', '.join(allowed) or '-'}")


@rule(
    catches=[
        ("engine.pricing", "import engine.sampling"),
        ("clients.cli", "from models import toy"),
        ("engine.pricing", "from . import sampling"),
        ("engine.pricing", "from ..models.base import Gang"),
    ],
    passes=[("engine.pricing", "import tokenauction.engine.sampling\nfrom torch import nn")],
)
def imports_carry_the_full_name(source: Source) -> Iterator[Offence]:
    """Ours is imported as `tokenauction.engine`: a bare folder is there in a checkout only, a dot hides the layer."""
    for line, name in imports(source):
        if name.partition(".")[0] in FOLDERS:
            yield Offence(line, f"imports {name}; write {PACKAGE}.{name}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.level > 0:
            yield Offence(node.lineno, "imports relatively; write the full name")


@rule(
    catches=[
        ("engine.pricing", "import transformers"),
        ("engine.pricing", "from rich.table import Table"),
        ("models.toy", "import yaml"),
    ],
    passes=[
        ("engine.pricing", "import math\nimport torch\nfrom jaxtyping import Float"),
        ("models.toy", "import transformers"),
        ("clients.cli", "import yaml"),
    ],
)
def engine_and_models_need_few_packages(source: Source) -> Iterator[Offence]:
    """Engine and models import the standard library and what MAY_IMPORT_OTHERS names: add to it on purpose."""
    allowed = MAY_IMPORT_OTHERS.get(source.folder)
    for line, name in imports(source):
        head = name.partition(".")[0]
        if allowed is not None and head not in allowed | sys.stdlib_module_names | {PACKAGE, *FOLDERS}:
            yield Offence(line, f"imports {head}; {source.folder} may use {', '.join(sorted(allowed))}")


@rule(
    catches=[
        ("engine.pricing", "import time"),
        ("engine.pricing", "from os import environ"),
        ("engine.pricing", "def f(path):\n    return open(path)"),
        ("engine.pricing", "print('sold')"),
        ("engine.pricing", "def f(path):\n    return path.read_text()"),
        ("engine.pricing", "import numpy as np\nnp.load('x')"),
        ("engine.decoder", "import socket"),
        ("engine.receipt", "import time"),
    ],
    passes=[
        ("engine.pricing", "import hashlib\nimport torch\ntorch.special.xlogy"),
        ("engine.decoder", "import asyncio"),
        ("engine.receipt", "def write(path):\n    return open(path)"),
        ("clients.cli", "import time\nprint(time.time())"),
    ],
)
def engine_does_no_io(source: Source) -> Iterator[Offence]:
    """Engine modules touch no file, clock, socket, terminal or environment: those are parameters (WORLD_EXEMPTIONS)."""
    if source.folder != "engine":
        return
    exempt = WORLD_EXEMPTIONS.get(source.module, frozenset())
    for line, name in imports(source):
        if (head := name.partition(".")[0]) in WORLD_MODULES - exempt:
            yield Offence(line, f"imports {head}; take what it gives as a parameter")
    for line, name in dotted_uses(source):
        if name in WORLD_FUNCTIONS:
            yield Offence(line, f"calls {name}; take the loaded value as a parameter")
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name) and node.func.id in WORLD_BUILTINS - exempt:
            yield Offence(node.lineno, f"calls {node.func.id}(); return the value and let the caller do it")
        if isinstance(node.func, ast.Attribute) and node.func.attr in WORLD_METHODS and "pathlib" not in exempt:
            yield Offence(node.lineno, f"calls .{node.func.attr}(); take the text as a parameter")


@rule(
    catches=[
        ("engine.sampling", "import random"),
        ("engine.sampling", "from numpy.random import default_rng"),
        ("engine.sampling", "import numpy as np\nnp.random.default_rng(7)"),
        ("engine.sampling", "import torch\ntorch.manual_seed(7)"),
        ("engine.sampling", "from torch import multinomial"),
        ("engine.sampling", "def f(x):\n    return x.exponential_()"),
        ("engine.decoder", "import torch\ntorch.rand(3)"),
    ],
    passes=[
        ("engine.sampling", "import torch\ntorch.cumsum(torch.ones(3), 0)"),
        ("models.toy", "import torch\ntorch.Generator().manual_seed(7)"),
    ],
)
def engine_draws_from_the_seed_alone(source: Source) -> Iterator[Offence]:
    """Engine modules use no generator with a state: a uniform is a pure function of seed, step and purpose."""
    if source.folder != "engine":
        return
    remedy = "take a uniform made from (seed, step, purpose)"
    for line, name in {*imports(source), *dotted_uses(source)}:
        if name in RANDOM_FUNCTIONS or any(within(name, module) for module in RANDOM_MODULES):
            yield Offence(line, f"uses {name}; {remedy}")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RANDOM_METHODS:
            yield Offence(node.lineno, f"calls .{node.func.attr}(); {remedy}")


@rule(
    catches=[
        ("models.toy", "cache = {}"),
        ("models.toy", "_seen: list[int] = []"),
        ("models.toy", "rows = [r for r in range(3)]"),
        ("models.toy", "counts = defaultdict(int)"),
        ("models.toy", "if DEBUG:\n    calls = collections.deque()"),
        ("models.toy", "def f():\n    global best\n    best = 3"),
    ],
    passes=[
        ("models.toy", "NAMES = {'a': 1}\n__all__ = ['f']\npair = (1, 2)\nempty = frozenset()"),
        ("models.toy", "def f():\n    rows = []\n    return rows"),
        ("models.toy", "class A:\n    names: list[int] = field(default_factory=list)"),
    ],
)
def modules_hold_no_state(source: Source) -> Iterator[Offence]:
    """No module-level list, dict or set that code can fill, and no `global`: pass the value, or name a CONSTANT."""
    containers = {"Counter", "OrderedDict", "bytearray", "defaultdict", "deque", "dict", "list", "set"}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            yield Offence(node.lineno, f"declares {', '.join(node.names)} global; pass and return the value")
    for node in run_on_import(source.tree):
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        made = node.value
        mutable = isinstance(made, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp) or (
            isinstance(made, ast.Call) and ast.unparse(made.func).rpartition(".")[2] in containers
        )
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            name = ast.unparse(target)
            if mutable and name != name.upper() and not name.startswith("__"):
                yield Offence(node.lineno, f"{name} is a mutable value at module level")


def run_on_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """Statements outside functions and classes, also those inside a module-level `if`, `try`, `for` or `with`."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        for child in ast.iter_child_nodes(waiting.pop()):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                continue
            if isinstance(child, ast.stmt):
                yield child
            if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
                waiting.append(child)


@rule(
    catches=[
        ("clients.cli", "try:\n    f()\nexcept:\n    raise"),
        ("clients.cli", "try:\n    f()\nexcept OSError:\n    pass"),
        ("clients.cli", "try:\n    f()\nexcept OSError:\n    ..."),
    ],
    passes=[
        ("clients.cli", "try:\n    f()\nexcept OSError as error:\n    raise ValueError('no') from error"),
        ("clients.cli", "for x in y:\n    try:\n        f(x)\n    except OSError:\n        continue"),
        ("clients.cli", "with contextlib.suppress(OSError):\n    f()"),
    ],
)
def errors_are_not_swallowed(source: Source) -> Iterator[Offence]:
    """No bare `except` and no empty handler: answer, report or raise, or say `with suppress(Named)` and why."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            if node.type is None:
                yield Offence(node.lineno, "a bare except catches everything; name the error")
            if all(isinstance(child, ast.Pass) or ast.unparse(child) == "..." for child in node.body):
                yield Offence(node.lineno, "drops the error; answer, report or raise it")


@rule(
    catches=[
        ("engine.pricing", "x = 1"),
        ("engine.pricing", '"""Prices."""\ndef critical_bid():\n    return 0'),
        ("engine.pricing", '"""Prices."""\nasync def step():\n    return 0'),
        ("engine.pricing", '"""Prices."""\nclass Clearing:\n    token = 0'),
    ],
    passes=[
        ("engine.pricing", '"""Prices."""\ndef price():\n    """The bid from which on."""\ndef _f():\n    return 0'),
        ("engine.pricing", '"""Prices."""\nclass _Row:\n    token = 0'),
    ],
)
def everything_public_is_documented(source: Source) -> Iterator[Offence]:
    """Every module, and every public function and class at its top level, says in its docstring what it does."""
    if not ast.get_docstring(source.tree):
        yield Offence(1, "has no module docstring: what it does and what it must not know")
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not ast.get_docstring(node):
            yield Offence(node.lineno, f"{node.name} has no docstring")


@rule(
    catches=[
        ("engine.pricing", "\n" * MAX_FILE_LINES + "x = 1"),
        ("engine.pricing", "def f():\n" + "    x = 1\n" * MAX_FUNCTION_LINES),
    ],
    passes=[
        ("models.training.words", "\n" * MAX_FILE_LINES + "x = 1"),
        ("engine.pricing", "\n" * (MAX_FILE_LINES - 1) + "x = 1"),
        ("engine.pricing", "def f():\n" + "    x = 1\n" * (MAX_FUNCTION_LINES - 1)),
    ],
)
def files_and_functions_stay_short(source: Source) -> Iterator[Offence]:
    """A file and a function have a hard limit; past it they are two nouns or two steps."""
    if source.num_lines > MAX_FILE_LINES and source.module not in DATA_MODULES:
        yield Offence(1, f"has {source.num_lines} lines, at most {MAX_FILE_LINES} are allowed; split it by noun")
    for node in functions(source.tree):
        if (lines := function_lines(node)) > MAX_FUNCTION_LINES:
            yield Offence(node.lineno, f"{node.name} has {lines} lines, at most {MAX_FUNCTION_LINES} are allowed")


@rule(
    catches=[
        ("engine.pricing", "x = 1  # TO" + "DO: price"),
        ("engine.pricing", "# FIX" + "ME"),
        ("engine.pricing", "def f():\n    raise NotImplementedError"),
        ("engine.pricing", "def f():\n    raise NotImplementedError('later')"),
    ],
    passes=[("engine.pricing", "def f():\n    raise ValueError('todo lists are not sold here')")],
)
def nothing_is_left_for_later(source: Source) -> Iterator[Offence]:
    """No placeholder: what is not there yet is not in the tree."""
    for number, line in enumerate(source.text.splitlines(), start=1):
        if found := re.search(r"\b(TODO|FIXME|XXX)\b", line):
            yield Offence(number, f"says {found[0]}; do it now or leave it out")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and node.id == "NotImplementedError":
            yield Offence(node.lineno, "raises NotImplementedError; a protocol's methods end in `...`")


# --- The tests ----------------------------------------------------------------------------------------------------


def named(pairs: list[tuple[Rule, Example]]) -> list[object]:
    return [pytest.param(check, example, id=f"{check.__name__}-{n}") for n, (check, example) in enumerate(pairs)]


@pytest.mark.parametrize("check", RULES.values(), ids=RULES)
def test_every_source_file_keeps_the_rule(check: Rule) -> None:
    broken = [f"  {s.path}:{o.line}: {o.says}" for s in sources() for o in check(s)]
    assert not broken, "\n".join([str(check.__doc__), *broken])


@pytest.mark.parametrize(("check", "example"), named(MUST_CATCH))
def test_rule_catches_what_breaks_it(check: Rule, example: Example) -> None:
    module, text = example
    assert list(check(Source(module, "example.py", text))), f"{check.__name__} missed in {module}:\n{text}"


@pytest.mark.parametrize(("check", "example"), named(MUST_PASS))
def test_rule_passes_what_keeps_it(check: Rule, example: Example) -> None:
    module, text = example
    assert list(check(Source(module, "example.py", text))) == []


def test_rules_have_sources_to_look_at() -> None:
    assert {source.folder for source in sources()} >= {"engine", "models", "clients"}


def test_modules_import_each_other_without_a_cycle() -> None:
    modules = {source.module for source in sources()}
    graph: dict[str, set[str]] = {}
    for source in sources():
        names = [name for _, name in imports_of_ours(source)]
        owners = (max((m for m in modules if within(name, m)), key=len, default=None) for name in names)
        graph[source.module] = {owner for owner in owners if owner and owner != source.module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("imports go round: " + " <- ".join(error.args[1]))


def test_half_of_all_files_fit_on_a_few_screens() -> None:
    median = statistics.median(source.num_lines for source in sources())
    assert median <= MEDIAN_FILE_LINES, f"the median file has {median} lines; split the longest by noun"


def test_nine_functions_in_ten_fit_on_one_screen() -> None:
    lengths = [function_lines(node) for source in sources() for node in functions(source.tree)]
    share = sum(length <= USUAL_FUNCTION_LINES for length in lengths) / len(lengths)
    assert share >= 0.9, f"only {share:.0%} of functions have at most {USUAL_FUNCTION_LINES} lines"


def test_src_holds_nothing_but_the_version_and_links() -> None:
    folder = ROOT / "src" / PACKAGE
    real = {path.name for path in folder.iterdir() if not path.is_symlink()} - {"__pycache__"}
    links = {path.name: path.readlink().as_posix() for path in folder.iterdir() if path.is_symlink()}
    assert real == {"__init__.py", "py.typed"}
    assert links == {name: f"../../{name}" for name in (*FOLDERS, "examples")}


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    place = re.compile(r"(?<![\w.:/-])/(?:work|root|home|Users)/\w|\bshared[/]\w|\bC:\\\\?Users")
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    found = ["A path here means nothing on another machine; make it relative to the checkout."]
    for name in filter(None, names):
        path = ROOT / name
        if path.is_symlink() or not path.is_file():
            continue
        raw = path.read_bytes()
        if b"\0" not in raw[:1024]:
            for number, line in enumerate(raw.decode("utf-8").splitlines(), start=1):
                found += [f"  {name}:{number}: {hit[0]}..." for hit in [place.search(line)] if hit]
    assert len(found) == 1, "\n".join(found)

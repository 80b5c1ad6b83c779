"""What the command line's tests share: running it in this process, a checkpoint made on the spot, models loaded once.

Nothing here imports a model at the top: the models' own tests check shapes, which must be set up before that.
"""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main

from tokenauction.clients.cli.app import run_app

PACKAGE = "tokenauction.clients.cli"
ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
REFUSAL = re.compile(r"error \((\w+)\): (.+)\n")


@dataclass(frozen=True)
class Result:
    """How a command ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What a command that succeeded wrote, which is one line of JSON and nothing else."""
        assert (self.code, self.err) == (0, ""), self
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The same for one JSON object a line."""
        assert (self.code, self.err) == (0, ""), self
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def refusal(self) -> tuple[str, str]:
        """Code and message of a refusal: exit code 2, nothing on stdout, one printable line on stderr."""
        assert (self.code, self.out) == (2, ""), self
        found = REFUSAL.fullmatch(self.err)
        assert found is not None, self.err
        assert found[2].isprintable() and len(found[2]) < 700, found[2]
        return found[1], found[2]

    @property
    def usage_error(self) -> str:
        """What is said of options that a command does not take: a refusal like any other."""
        code, message = self.refusal
        assert code == "usage", message
        return message


@pytest.fixture(scope="session", autouse=True)
def runner_is_chosen_where_there_is_no_compiler() -> Iterator[None]:
    """Else every command would say on stderr which one it took instead."""
    from tokenauction.models.compiler import find_compiler

    with pytest.MonkeyPatch.context() as patch:
        if find_compiler() is None:
            patch.setenv("TOKENAUCTION_RUNNER", "packed")
        yield


build_once = cache(typer.main.get_command)  # typer builds its commands anew at every call, which takes its time


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """`cli("run", "spec.yaml", stdin=b"")`: the command as typed, in this process; a traceback fails the test."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(typer.main, "get_command", build_once)

    def run(*arguments: str | Path, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "argv", ["tokenauction", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_app()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return run


def entry() -> list[str]:
    """The installed command; where the package is not installed, what the command would run."""
    script = Path(sys.executable).with_name("tokenauction")
    return [str(script)] if script.exists() else [sys.executable, "-c", f"from {PACKAGE} import main; main()"]


@pytest.fixture(scope="session")
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """`start("run", "spec.yaml", PYTHONUTF8="0")`: the command in a process of its own; what is left is ended."""
    started: list[subprocess.Popen[bytes]] = []

    def run(*arguments: str | Path, stdin: Any = None, stdout: Any = subprocess.PIPE, **environment: str) -> Any:
        command = [*entry(), *map(str, arguments)]
        environment = {**os.environ, **environment}
        process = subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment,
            # Whoever runs the tests in the background has SIGINT ignored, and would hand that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@dataclass(frozen=True)
class Recorded:
    """What a run in a process of its own printed, and the receipt it left."""

    events: list[dict[str, Any]]
    receipt: Path


@pytest.fixture(scope="session")
def recorded(start: Callable[..., subprocess.Popen[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """The demo's auction under seed 7, by the installed command."""
    receipt = tmp_path_factory.mktemp("recorded") / "receipt.jsonl"
    process = start("run", EXAMPLES / "hawaii.yaml", "--seed", "7", "--format", "jsonl", "--receipt", receipt)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (0, b"")
    return Recorded([json.loads(line) for line in out.splitlines()], receipt)


@pytest.fixture(scope="session")
def written(
    endless_checkpoint: Path, load_once: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Recorded:
    """The same auction with 16 tokens of random weights, whatever checkpoint is shipped."""
    from tokenauction.clients.cli.compose import load_model, new_decoder, submit
    from tokenauction.clients.cli.spec_file import load_spec
    from tokenauction.engine.receipt import write_receipt

    receipt = tmp_path_factory.mktemp("written") / "receipt.jsonl"
    events: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tokenauction.models.loading.load_causal_model", load_once)
        decoder = new_decoder(load_model(str(endless_checkpoint)))
    submit(decoder, load_spec(EXAMPLES / "hawaii.yaml", {"seed": 7, "max_tokens": 16}))
    while decoder.scheduler.has_work:
        events += decoder.step()
    write_receipt(receipt, events[-1].receipt)
    return Recorded([event.to_mapping() for event in events], receipt)


@pytest.fixture
def hawaii() -> Path:
    """The example that the demo runs."""
    return EXAMPLES / "hawaii.yaml"


@pytest.fixture(scope="session")
def load_once() -> Callable[..., Any]:
    """Reads the weights of one folder once per test session."""
    from tokenauction.models.checkpoint import load_causal_model

    return cache(load_causal_model)


@pytest.fixture
def models_load_once(monkeypatch: pytest.MonkeyPatch, load_once: Callable[..., Any]) -> None:
    """Commands of this test share the weights that another test has read."""
    monkeypatch.setattr("tokenauction.models.loading.load_causal_model", load_once)


VOCABULARY_TEXT = ["Alpha Airlines and Beta Resort invite you to Hawaii.", "Write for nobody: Grüße, 3 €"] * 3


def save_tiny_llama(folder: Path, *, end_token: str | None, max_length: int, chat_template: str | None = None) -> None:
    """A Llama with random weights, its logits wider than its byte-level vocabulary, as save_pretrained writes it."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(VOCABULARY_TEXT, trainer)
    tokenizer: Any = transformers.PreTrainedTokenizerFast
    tokenizer = tokenizer(tokenizer_object=backend, eos_token=end_token, chat_template=chat_template)
    tokenizer.save_pretrained(folder)
    sizes: dict[str, Any] = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": 2}
    ends: dict[str, Any] = {"eos_token_id": None if end_token is None else 0, "bos_token_id": None}
    config = transformers.LlamaConfig(vocab_size=320, max_position_embeddings=max_length, **sizes, **heads, **ends)
    model: Any = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that rows are far from alike
            if parameter.dim() > 1:
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def save_tiny() -> Callable[..., None]:
    """`save_tiny(folder, end_token=…, max_length=…)`: another one like it."""
    return save_tiny_llama


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama whose texts may end."""
    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    save_tiny_llama(folder, end_token="<|end|>", max_length=512)
    return folder


@pytest.fixture(scope="session")
def endless_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny random Llama that has no end token: its texts run to max_tokens."""
    folder = tmp_path_factory.mktemp("endless") / "endless-llama"
    save_tiny_llama(folder, end_token=None, max_length=8192)
    return folder


@pytest.fixture
def write_spec(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """`write_spec(text)` or `write_spec(field=value)`: a spec file; fields replace those of a small good spec."""

    def write(text: str | bytes | None = None, **fields: Any) -> Path:
        path = tmp_path / "spec.yaml"
        if text is None:
            agents = [
                {"id": "alpha", "name": "Alpha Airlines", "offer": "flights to Hawaii", "bid": "0.002"},
                {"id": "beta", "name": "Beta Resort", "offer": "a quiet beach resort", "bid": "0.001"},
            ]
            spec = {"query": "Vacations in Hawaii", "agents": agents, "max_tokens": 8, "seed": 7, **fields}
            text = json.dumps({name: value for name, value in spec.items() if value is not ...})
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return path

    yield write

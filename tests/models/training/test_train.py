"""Training: the network is a Llama to the last digit, a run resumes where it stopped, Muon orthogonalises."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from tokenizers import Tokenizer

from tokenauction import models
from tokenauction.models.compiler import find_compiler
from tokenauction.models.training.corpus import Corpus, make_batch
from tokenauction.models.training.network import Network, Shape
from tokenauction.models.training.optimizer import orthogonalise
from tokenauction.models.training.train import Run, export, train

DEFAULT = Path(models.__file__).parent / "default"
SMALL = Shape(vocab_size=4096, width=32, num_layers=2, num_heads=2, mlp_width=48)


@pytest.fixture(autouse=True)
def as_before_afterwards() -> Iterator[None]:
    """Training sets how this process computes, and these tests are not alone in it."""
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)
    torch.set_flush_denormal(False)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return Tokenizer.from_file(str(DEFAULT / "tokenizer.json"))


def test_orthogonalise_brings_every_singular_value_near_one() -> None:
    for shape in ((8, 8), (6, 20), (20, 6)):
        matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
        values = torch.linalg.svdvals(orthogonalise(matrix))
        assert 0.5 < float(values.min()) < float(values.max()) < 1.4


@pytest.mark.slow
def test_network_gives_the_logits_of_transformers_after_export(tokenizer: Any, tmp_path: Path) -> None:
    network = Network(SMALL, seed=1)
    export(network, tokenizer, tmp_path)
    auto: Any = transformers.AutoModelForCausalLM
    llama = auto.from_pretrained(tmp_path).eval()
    example = Corpus(tokenizer, 1).example(0)
    batch = make_batch([example])
    with torch.inference_mode():
        ours = network(batch.ids, batch.positions, batch.mask, torch.ones_like(batch.ids, dtype=torch.bool))
        for node in range(1, max(example.nodes) + 1):
            path = {0, node, example.parents[example.nodes.index(node)]}
            places = [i for i, n in enumerate(example.nodes) if n in path]
            theirs = llama(input_ids=batch.ids[:, places]).logits[0]
            assert torch.allclose(ours[places], theirs, atol=2e-5), f"node {node} is not an ordinary sequence"


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler (Debian: g++)")
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler, about itself
def test_compiled_layers_give_the_same_gradients(tokenizer: Any) -> None:
    batch = make_batch([Corpus(tokenizer, 1).example(number) for number in range(2)])
    gradients = []
    for compiles in (False, True):
        network = Network(SMALL, seed=1)
        if compiles:
            network.compile_layers()
        torch.autograd.backward(network(batch.ids, batch.positions, batch.mask, batch.weights > 0).square().mean())
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-3) for a, b in zip(*gradients, strict=True))


@pytest.mark.slow
def test_training_resumes_to_the_weights_of_an_unbroken_run(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tokenauction.models.training.train.Shape", lambda **_: SMALL)
    weights = []
    for name, stops in (("unbroken", (4,)), ("resumed", (2, 4))):
        folder = tmp_path / name
        folder.mkdir()
        tokenizer.save(str(folder / "tokenizer.json"))
        for stop in stops:
            run = Run(folder, num_steps=4, num_examples=4, save_every=2, num_processes=1, compiles=False)
            train(run, stop_after=stop)
        weights.append(torch.load(folder / "state.pt", weights_only=True)["network"])
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "loss" not in capsys.readouterr().out  # one line every ten steps only


@pytest.mark.slow
def test_training_goes_on_from_a_checkpoints_weights(
    tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokenauction.models.training.train.Shape", lambda **_: SMALL)
    export(Network(SMALL, seed=5), tokenizer, tmp_path / "old")
    run = Run(
        tmp_path / "new",
        num_examples=4,
        num_processes=1,
        compiles=False,
        start_from=tmp_path / "old",
        muon_lr=0.0,
        adam_lr=0.0,
    )
    train(run, stop_after=1)
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("old", "new/checkpoint"))
    assert all(torch.equal(old[name], new[name]) for name in old)
    with pytest.raises(ValueError, match="another"):
        Network(Shape(), seed=1).load_transformers(old)


def test_run_falls_from_the_plateau_to_zero() -> None:
    run = Run(Path("nowhere"), num_steps=1000, warmup=10, decay=0.5)
    factors = [run.factor(step) for step in range(1000)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[400] == 1.0
    assert factors[750] == pytest.approx(0.5)
    assert factors[-1] == pytest.approx(0.002)


def test_shipped_checkpoint_is_of_the_shape_that_training_makes() -> None:
    config = json.loads((DEFAULT / "config.json").read_text(encoding="utf-8"))
    shape = Shape()
    assert {k: config[k] for k in ("hidden_size", "num_hidden_layers", "vocab_size")} == {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.num_layers,
        "vocab_size": shape.vocab_size,
    }

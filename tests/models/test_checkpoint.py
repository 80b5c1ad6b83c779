"""Loading from folders and hub names: what loads, what is refused and in which words, and what the hash is of."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tokenauction.models import base, checkpoint
from tokenauction.models.compiler import find_compiler, load_library
from tokenauction.models.loading import load_model
from tokenauction.models.tokenizer import HuggingFaceTokenizer


@pytest.fixture
def folder(saved_model: Path, tmp_path: Path) -> Path:
    """A copy of the saved model that a test may damage."""
    return shutil.copytree(saved_model, tmp_path / "model")


@pytest.fixture
def hub_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Where the hub is said to be: a port of this machine that answers once the test makes it listen."""
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port.getsockname()[1]}")
        yield port


def edit_config(folder: Path, **changes: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_folder_loads_without_touching_the_network(saved_model: Path, no_network: list[object]) -> None:
    model = load_model(saved_model, device="cpu")
    best = "packed" if find_compiler() is None else "cpp"
    assert (model.numerics, model.runner, model.max_length) == ("float32", best, 64)
    assert model.name == saved_model.name
    assert load_model(saved_model, device="cpu", name="mine").name == "mine"
    assert isinstance(model.tokenizer, HuggingFaceTokenizer)
    assert model.tokenizer.end_ids == {0, 2}  # the tokenizer's own and the config's
    assert no_network == []


def test_loaded_model_computes_what_the_saved_one_did(
    saved_model: Path, true_logits: Callable[..., torch.Tensor]
) -> None:
    model = load_model(str(saved_model), device="cpu", max_rows=3, max_length=20)
    gang = model.admit([[5, 6, 7]], 0)
    torch.testing.assert_close(model.prefill([gang])[0], true_logits("llama", [5, 6, 7])[-1], atol=5e-5, rtol=0)
    assert (model.max_rows, model.free_rows, model.max_length) == (3, 2, 20)


@pytest.mark.parametrize("runner", ["cpp", "packed", "transformers"])
def test_runner_is_what_was_asked_for(runner: str, saved_model: Path, true_logits: Callable[..., torch.Tensor]) -> None:
    if runner == "cpp" and find_compiler() is None:
        pytest.skip("no C++ compiler is installed")
    model = load_model(saved_model, runner=runner, device="cpu")
    assert model.runner == runner
    gang = model.admit([[5, 6, 7], [8]], 1)
    model.prefill([gang])
    truth = torch.stack([true_logits("llama", [*prompt, 9])[-1] for prompt in gang.prompts])
    torch.testing.assert_close(model.step([gang], torch.tensor([9])), truth, atol=5e-5, rtol=0)


def test_runner_is_the_generic_one_for_a_model_of_another_family(
    saved_model: Path, tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    tiny_model("gpt2").save_pretrained(tmp_path)
    for file in saved_model.glob("tokenizer*"):
        shutil.copy(file, tmp_path)
    assert load_model(tmp_path, device="cpu").runner == "transformers"
    with pytest.raises(ValueError, match="gpt2 is not one of llama"):
        load_model(tmp_path, runner="packed", device="cpu")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"runner": "vllm"}, "runner 'vllm' is unknown; choose one of auto, cpp, packed, cuda, transformers"),
        ({"numerics": "int4"}, "numerics 'int4' are unknown; choose one of auto, float32, bf16, int8"),
        ({"runner": "cuda"}, "the runner cuda computes on cuda, and the model is on cpu"),
        ({"runner": "transformers", "numerics": "int8"}, "transformers computes in float32 or bf16, not in int8"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, str], says: str, saved_model: Path) -> None:
    with pytest.raises(ValueError, match=says):
        load_model(saved_model, device="cpu", **options)


@pytest.mark.parametrize("numerics", ["float32", "bf16", "int8"])
def test_numerics_are_what_was_asked_for(numerics: str, saved_model: Path) -> None:
    assert load_model(saved_model, numerics=numerics, device="cpu").numerics == numerics


def test_without_a_compiler_the_packed_runner_takes_over_and_says_so(
    saved_model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CXX", "/nowhere/c++")
    load_library.cache_clear()
    assert load_model(saved_model, device="cpu").runner == "packed"
    [record] = caplog.records
    assert record.getMessage().endswith("which is not there: the slower runner packed is used instead")
    with pytest.raises(ValueError, match=r"CXX names '/nowhere/c.*choose the runner packed"):
        load_model(saved_model, runner="cpp", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_device_is_refused_when_it_is_not_there(saved_model: Path) -> None:
    with pytest.raises(ValueError, match="this torch finds no CUDA device; use cpu"):
        load_model(saved_model, device="cuda")


# --- The hash -------------------------------------------------------------------------------------------------------


def test_hash_is_the_sha256_of_the_weight_file(saved_model: Path) -> None:
    model = load_model(saved_model, device="cpu")
    assert model.hash == hashlib.sha256((saved_model / "model.safetensors").read_bytes()).hexdigest()


def test_hash_of_shards_covers_those_the_index_names_and_no_other(
    tiny_model: Callable[..., Any], tmp_path: Path
) -> None:
    tiny_model("llama").save_pretrained(tmp_path, max_shard_size="8KB")
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(shards) > 1
    (tmp_path / "consolidated.safetensors").write_bytes(b"the same weights in another layout")
    assert checkpoint.weight_files(tmp_path) == shards
    joined = b"".join(shard.read_bytes() for shard in shards)
    assert checkpoint.hash_files(shards) == hashlib.sha256(joined).hexdigest()


def test_weight_files_are_none_when_there_is_no_safetensors_file(tmp_path: Path) -> None:
    assert checkpoint.weight_files(tmp_path) == []


def test_weight_files_of_a_hub_name_lie_in_the_cache(
    saved_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "abc"
    shutil.copytree(saved_model, snapshot)
    refs = tmp_path / "models--someone--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert checkpoint.weight_files("someone/tiny") == [snapshot / "model.safetensors"]


# --- What is refused, in one line that names the remedy -------------------------------------------------------------


def refusal(source: str | Path) -> str:
    with pytest.raises(base.ModelNotLoadable) as caught:
        load_model(source, device="cpu")
    message = str(caught.value)
    assert "\n" not in message
    assert caught.value.code == "model_not_loadable"
    return message


@pytest.mark.parametrize("source", ["/no/such/folder", "./no-such-folder", "a/b/c", "~/no-such-folder"])
def test_path_is_refused_when_nothing_is_there(source: str, no_network: list[object]) -> None:
    assert refusal(source) == f"{source} is not a folder; name the folder that holds config.json and the weights"
    assert no_network == []


def test_file_is_refused_for_a_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert refusal("model.safetensors").startswith("model.safetensors is not a folder")


def test_folder_is_refused_without_a_config(folder: Path, no_network: list[object]) -> None:
    (folder / "config.json").unlink()
    assert "holds no config.json; name the folder that model.save_pretrained wrote" in refusal(folder)


def test_folder_is_refused_when_the_config_is_no_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    assert "is not a valid JSON file" in refusal(folder)


def test_folder_is_refused_without_weights(folder: Path, no_network: list[object]) -> None:
    (folder / "model.safetensors").unlink()
    assert "no file named model.safetensors" in refusal(folder)
    assert no_network == []


def test_folder_is_refused_when_the_weights_are_cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    assert "cannot be loaded" in refusal(folder)


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 3}, {"hidden_size": 32}])
def test_folder_is_refused_when_weights_are_missing_or_do_not_fit(changes: dict[str, int], folder: Path) -> None:
    edit_config(folder, **changes)
    message = refusal(folder)
    assert "which would be random; name a complete model" in message or "cannot be loaded" in message


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ["t5", "vit", "no_such_type"])
def test_folder_is_refused_when_it_holds_no_causal_language_model(model_type: str, folder: Path) -> None:
    edit_config(folder, model_type=model_type)
    assert "of a causal language model that this transformers knows" in refusal(folder)


def test_folder_is_refused_when_it_wants_its_own_code_run(folder: Path) -> None:
    edit_config(folder, model_type="custom", auto_map={"AutoConfig": "x.C", "AutoModelForCausalLM": "x.M"})
    (folder / "x.py").write_text("raise SystemExit('this must never run')")
    assert "contains custom code" in refusal(folder)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_folder_is_refused_without_a_tokenizer(
    architecture: str, tiny_model: Callable[..., Any], tmp_path: Path, no_network: list[object]
) -> None:
    # For GPT-2, transformers makes up a tokenizer of one special token where there is none.
    tiny_model(architecture).save_pretrained(tmp_path)
    message = refusal(tmp_path)
    assert "holds no tokenizer" in message
    assert "save one there with tokenizer.save_pretrained" in message
    assert no_network == []


def test_hub_name_is_refused_offline_with_the_command_that_fetches_it(
    no_network: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = refusal("someone/no-such-model")
    assert "check the name, or while online run `hf download someone/no-such-model`, or name a folder" in message
    assert no_network == []


def test_hub_name_is_looked_up_in_the_cache_before_the_network(hub_port: socket.socket) -> None:
    hub_port.listen()
    calls: list[bool] = []

    class Auto:
        @staticmethod
        def from_pretrained(name: str, local_files_only: bool = False) -> str:
            calls.append(local_files_only)
            if local_files_only:
                raise OSError("not in the cache")
            return f"fetched {name}"

    assert checkpoint.load_pretrained(Auto, "someone/model") == "fetched someone/model"
    assert calls == [True, False]


def test_first_line_of_an_error_is_never_empty() -> None:
    assert checkpoint.first_line(OSError("one\ntwo")) == "one"
    assert checkpoint.first_line(KeyError()) == "KeyError"


def test_hub_name_is_refused_at_once_where_the_hub_is_not_reached(hub_port: socket.socket) -> None:
    asked: list[str] = []

    class Hub:
        @staticmethod
        def from_pretrained(name: str, **options: object) -> None:
            asked.append(name)
            raise OSError("not cached")

    with pytest.raises(OSError, match=r"nor in the cache, and 127\.0\.0\.1 is not reached"):
        checkpoint.load_pretrained(Hub, "nobody/nothing")
    assert asked == ["nobody/nothing"]  # the cache alone

"""Tiny models of many architectures and tiny tokenizers of every kind, made here: nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import strategies as st
from jaxtyping import install_import_hook
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

# Shapes in signatures are checked while these tests run. The training code is not among these modules.
CHECKED = (
    "base",
    "admissions",
    "causal_network",
    "checkpoint",
    "huggingface",
    "kv_cache",
    "llama",
    "llama_compiled",
    "llama_cuda",
    "llama_network",
    "llama_weights",
    "padded_cache",
    "products",
    "token_batch",
    "tokenizer",
    "toy",
    "toy_laws",
    "toy_market",
)
install_import_hook([f"tokenauction.models.{name}" for name in CHECKED], "beartype.beartype")

from tokenauction.models import base  # noqa: E402
from tokenauction.models.huggingface import HuggingFaceModel  # noqa: E402
from tokenauction.models.llama import LlamaModel  # noqa: E402
from tokenauction.models.toy import ToyTokenizer  # noqa: E402

# transformers leaves these two without types.
AUTO_MODEL: Any = transformers.AutoModelForCausalLM
FAST_TOKENIZER: Any = transformers.PreTrainedTokenizerFast

VOCAB_SIZE = 50

SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "max_position_embeddings": 64}

CONFIGS: dict[str, Callable[[], Any]] = {
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),  # biases
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=8),  # norms of queries and keys
    "llama-tied": lambda: transformers.LlamaConfig(**GROUPED, tie_word_embeddings=True),
    "llama-biased": lambda: transformers.LlamaConfig(**GROUPED, attention_bias=True, mlp_bias=True),
    "llama-one-head": lambda: transformers.LlamaConfig(**{**GROUPED, "num_key_value_heads": 1}),
    "llama-linear": lambda: transformers.LlamaConfig(
        **GROUPED, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 100.0}
    ),
    "llama-yarn": lambda: transformers.LlamaConfig(
        **GROUPED,
        rope_parameters={
            "rope_type": "yarn",
            "factor": 4.0,
            "rope_theta": 100.0,
            "original_max_position_embeddings": 16,
        },
    ),
    "llama3": lambda: transformers.LlamaConfig(
        **GROUPED,
        rope_parameters={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 16,
            "rope_theta": 500.0,
        },
    ),
    "llama-dynamic": lambda: transformers.LlamaConfig(
        **GROUPED, rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 100.0}
    ),
    "llama-gelu": lambda: transformers.LlamaConfig(**GROUPED, hidden_act="gelu"),
    "mistral-wide": lambda: transformers.MistralConfig(**GROUPED, sliding_window=None),
    "gemma": lambda: transformers.GemmaConfig(**GROUPED, head_dim=8),  # scaled embeddings, tied weights
    "gpt2": lambda: transformers.GPT2Config(  # learned positions
        vocab_size=VOCAB_SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=2
    ),
    "opt": lambda: transformers.OPTConfig(  # learned positions with an offset
        vocab_size=VOCAB_SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        ffn_dim=32,
        word_embed_proj_dim=16,
        max_position_embeddings=64,
    ),
    "bloom": lambda: transformers.BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=16, n_layer=2, n_head=2),  # ALiBi
    "mpt": lambda: transformers.MptConfig(  # ALiBi by columns
        vocab_size=VOCAB_SIZE, d_model=16, n_layers=2, n_heads=2, max_seq_len=64
    ),
    "mixtral": lambda: transformers.MixtralConfig(**GROUPED, num_local_experts=4),  # experts
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=4),
    "gemma2": lambda: transformers.Gemma2Config(**GROUPED, head_dim=8, sliding_window=4),  # every other layer slides
    "mamba": lambda: transformers.MambaConfig(vocab_size=VOCAB_SIZE, hidden_size=16, num_hidden_layers=2, state_size=4),
    "jamba": lambda: transformers.JambaConfig(  # attention and recurrence
        **GROUPED, num_experts=2, use_mamba_kernels=False
    ),
    "bart": lambda: transformers.BartConfig(  # takes a cache of plain layers and leaves it empty
        vocab_size=VOCAB_SIZE, d_model=16, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=32
    ),
    # Its positions are counted from the padding id, so the ones we give it are wrong: only trying it out shows that.
    "roberta": lambda: transformers.RobertaConfig(
        **{**SIZES, "pad_token_id": 1}, is_decoder=True, max_position_embeddings=64
    ),
    "bert": lambda: transformers.BertConfig(**SIZES, max_position_embeddings=64),  # not causal
}


def make_model(architecture: str, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model with weights large enough that attention is far from even and positions matter."""
    generator = torch.Generator().manual_seed(11)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = AUTO_MODEL.from_config(CONFIGS[architecture]())
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.to(dtype).eval()


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Any]:
    """`tiny_model(architecture, dtype)`: a transformers model; the same object for the same arguments."""
    build = cache(make_model)
    return lambda architecture, dtype=torch.float32: build(architecture, dtype)


@pytest.fixture(scope="session")
def true_logits(tiny_model: Callable[..., Any]) -> Callable[..., torch.Tensor]:
    """`true_logits(architecture, ids)`: the logits behind `ids` by a plain forward pass of that row alone."""

    @cache
    def read(architecture: str, ids: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        with torch.no_grad():
            logits: torch.Tensor = tiny_model(architecture, dtype)(
                input_ids=torch.tensor([ids]), use_cache=False
            ).logits
        return logits[0].float()

    def all_logits(architecture: str, ids: Sequence[int], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return read(architecture, tuple(ids), dtype)

    return all_logits


# --- Models under test ----------------------------------------------------------------------------------------------

RUNNERS: dict[str, Any] = {
    "transformers": HuggingFaceModel,
    "packed": partial(LlamaModel, runner="packed"),
    "cpp": partial(LlamaModel, runner="cpp"),
}

# Logits here have a standard deviation of 1 to 5; float32 sums in another order part by about 1e-6 of that.
ABSOLUTE = 5e-5


class Checked:
    """A model under test that compares every row it returns with a plain forward pass of that row alone."""

    def __init__(self, model: Any, true_logits: Callable[[Sequence[int]], torch.Tensor]) -> None:
        self.model = model
        self.texts: dict[base.Gang, list[int]] = {}
        self._true_logits = true_logits

    def join(self, *prompt_sets: Sequence[Sequence[int]], room: int = 20) -> list[base.Gang]:
        gangs = [self.model.admit(prompts, room) for prompts in prompt_sets]
        self.texts |= {gang: [] for gang in gangs}
        self.compare(gangs, self.model.prefill(gangs))
        return gangs

    def step(self, gangs: Sequence[base.Gang], *tokens: int) -> None:
        logits = self.model.step(gangs, torch.tensor(tokens))
        for gang, token in zip(gangs, tokens, strict=True):
            self.texts[gang].append(token)
        self.compare(gangs, logits)

    def rollback(self, gang: base.Gang, num_tokens: int) -> None:
        self.model.rollback(gang, num_tokens)
        del self.texts[gang][len(self.texts[gang]) - num_tokens :]
        assert gang.num_tokens == len(self.texts[gang])

    def move(self, data: st.DataObject, token: st.SearchStrategy[int], prompt: st.SearchStrategy[list[int]]) -> None:
        """One move that is legal now, whichever hypothesis draws; a gang has at most three rows."""
        live = list(self.texts)
        moves = ["join"] if self.model.free_rows >= 3 else []
        moves += ["step", "step", "rollback", "release"] if live else []
        match data.draw(st.sampled_from(moves)):
            case "join":
                self.join(data.draw(st.lists(prompt, min_size=1, max_size=3)))
            case "step":
                gangs = data.draw(st.lists(st.sampled_from(live), min_size=1, unique=True))
                self.step(gangs, *(data.draw(token) for _ in gangs))
            case "rollback":
                gang = data.draw(st.sampled_from(live))
                self.rollback(gang, data.draw(st.integers(0, gang.num_tokens)))
            case "release":
                gang = data.draw(st.sampled_from(live))
                self.model.release(gang)
                del self.texts[gang]

    def compare(self, gangs: Sequence[base.Gang], logits: torch.Tensor) -> None:
        rows = [[*prompt, *self.texts[gang]] for gang in gangs for prompt in gang.prompts]
        truth = torch.stack([self._true_logits(row)[-1] for row in rows])
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, truth, atol=ABSOLUTE, rtol=0)


@pytest.fixture
def checked(tiny_model: Callable[..., Any], true_logits: Callable[..., torch.Tensor]) -> Callable[..., Checked]:
    """`checked(architecture, runner=…, **options)`: a model that speaks in ids; nothing asks it for text."""

    def build(architecture: str, runner: str = "transformers", **options: Any) -> Checked:
        model = RUNNERS[runner](tiny_model(architecture), ToyTokenizer("ab"), **options)
        return Checked(model, lambda ids: true_logits(architecture, ids))

    return build


# --- Tokenizers -----------------------------------------------------------------------------------------------------

CORPUS = ["hello world, the cat sat on the mat", "a bid, a price and a price again", "Grüße aus Köln: 3 € 😀"] * 3

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def byte_level_backend() -> Tokenizer:
    """Like GPT-2 and Llama 3: bytes, merged; a token may end in the middle of a character."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|end|>", "<|begin|>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<|begin|> $A", special_tokens=[("<|begin|>", 1)])
    return backend


def byte_fallback_backend() -> Tokenizer:
    """Like Llama 2: a space in front of every text, and byte tokens for characters it does not know."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdehlortw,"]
    merges = [("▁", "a"), ("▁", "▁"), ("h", "e"), ("l", "l"), ("▁", "he"), ("▁he", "ll"), ("▁hell", "o"), ("▁", "w")]
    names += [left + right for left, right in merges]
    vocabulary = {name: place for place, name in enumerate(names)}
    backend = Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return backend


def metaspace_backend() -> Tokenizer:
    """Like T5 and XLNet: pieces that carry the space in front of them."""
    backend = Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<unk>", "</s>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def wordpiece_backend() -> Tokenizer:
    """Like BERT: pieces that carry the lack of a space in front of them."""
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[UNK]", "[SEP]"], show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return backend


BACKENDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, str]]] = {
    "byte_level": (byte_level_backend, {"eos_token": "<|end|>", "bos_token": "<|begin|>"}),
    "byte_fallback": (byte_fallback_backend, {"eos_token": "</s>", "bos_token": "<s>", "unk_token": "<unk>"}),
    "metaspace": (metaspace_backend, {"eos_token": "</s>", "unk_token": "<unk>"}),
    "wordpiece": (wordpiece_backend, {"eos_token": "[SEP]", "unk_token": "[UNK]"}),
}


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """`make_tokenizer(kind, **options)`: a fresh transformers tokenizer."""

    @cache
    def backend(kind: str) -> str:
        return BACKENDS[kind][0]().to_str()

    def make(kind: str, **options: Any) -> Any:
        return FAST_TOKENIZER(tokenizer_object=Tokenizer.from_str(backend(kind)), **BACKENDS[kind][1], **options)

    return make


@pytest.fixture(scope="session")
def saved_model(
    tiny_model: Callable[..., Any], make_tokenizer: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a tiny Llama and a tokenizer, as save_pretrained writes them. Copy it before you change it."""
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_model("llama").save_pretrained(folder)
    make_tokenizer("byte_level", chat_template=CHAT_TEMPLATE).save_pretrained(folder)
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Any attempt to open a connection is refused, and found in the list."""
    import socket

    attempts: list[object] = []

    def refuse(self: object, address: object) -> None:
        attempts.append(address)
        raise OSError("no network in this test")

    def refuse_name(host: object, *rest: object, **more: object) -> None:
        attempts.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse_name)
    yield attempts

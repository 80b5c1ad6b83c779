"""The peer of `peers.py` that llama.cpp computes: three sequences in one batch, through its C interface.

The GGUF file is written here from the same weights; there is no vocabulary in it, since nobody asks for text.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers_draw import Draft, Peer, PeerMissing
from torch import Tensor

try:
    import gguf
    import llama_cpp
except ImportError as error:
    raise PeerMissing(f"{error.name} is not installed") from error

_LAYER_TENSORS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_TENSORS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
TYPES = {"float32": "F32", "bf16": "BF16", "int8": "Q8_0"}


def gguf_tensors(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Every weight under llama.cpp's name, and in its order of rows."""
    config = model.config
    for full_name, weight in model.named_parameters():
        name = full_name.removesuffix(".weight")
        if name in _TENSORS:
            yield f"{_TENSORS[name]}.weight", weight
            continue
        layer, part = name.removeprefix("model.layers.").split(".", 1)
        if config.model_type == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
            weight = _interleaved(weight, config.head_dim)
        yield f"blk.{layer}.{_LAYER_TENSORS[part]}.weight", weight


def _interleaved(weight: Tensor, head_width: int) -> Tensor:
    """llama.cpp's `llama` turns neighbouring rows of a head together, transformers the two halves of a head."""
    halves = weight.unflatten(0, (-1, 2, head_width // 2))
    return halves.transpose(1, 2).reshape(weight.shape)


def write_gguf(model: Any, path: Path, numerics: str) -> None:
    """Write the model as llama.cpp reads it; matrices in `numerics`, norms in float32."""
    config = model.config
    writer = gguf.GGUFWriter(path, config.model_type)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    kind = gguf.GGMLQuantizationType[TYPES[numerics]]
    if config.rope_parameters["rope_type"] != "default":
        writer.add_tensor("rope_freqs.weight", _rope_factors(model))
    for name, weight in gguf_tensors(model):
        array = weight.detach().numpy()
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, gguf.quants.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _rope_factors(model: Any) -> np.ndarray:
    """What llama.cpp divides the plain rotary frequencies by, where the config scales them."""
    config = model.config
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.float64) / config.head_dim
    plain = config.rope_parameters["rope_theta"] ** -exponents
    return (plain / model.model.rotary_emb.inv_freq.double()).float().numpy()


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _only_errors(level: int, text: bytes, _: Any) -> None:
    if level == 4:  # GGML_LOG_LEVEL_ERROR
        print(text.decode(), end="")


class LlamaCpp(Peer):
    """Every agent is a sequence of its own; a step is one `llama_decode` of as many tokens as there are agents."""

    def __init__(self, model: Any, max_tokens: int, folder: Path, numerics: str, threads: int) -> None:
        self.numerics = numerics
        path = folder / f"{numerics}.gguf"
        write_gguf(model, path, numerics)
        llama_cpp.llama_log_set(_only_errors, None)
        llama_cpp.llama_backend_init()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), options)
        if not self.model:
            raise PeerMissing("llama.cpp does not load the GGUF file written for it")
        self.vocab_size = model.config.vocab_size
        self.context = self._new_context(max_tokens, threads)
        self.batch = llama_cpp.llama_batch_init(3 * max_tokens, 0, 3)

    def _new_context(self, max_tokens: int, threads: int) -> Any:
        options = llama_cpp.llama_context_default_params()
        options.n_seq_max = 3
        options.n_ctx = -(-3 * max_tokens // 256) * 256
        options.n_batch = options.n_ubatch = 3 * max_tokens
        options.n_threads = options.n_threads_batch = threads
        options.no_perf = True
        # One cache for all sequences and plain attention were the fastest of the four combinations for three short
        # texts, by up to a third; flash attention also rounds to half precision in between, whatever the cache holds.
        options.kv_unified = True
        options.flash_attn_type = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        if self.numerics == "float32":  # otherwise its own choice, half precision
            options.type_k = options.type_v = llama_cpp.GGML_TYPE_F32
        context = llama_cpp.llama_init_from_model(self.model, options)
        if not context:
            raise PeerMissing("llama.cpp makes no context for three sequences")
        return context

    def write(self, prompts: Sequence[Sequence[int]], num_tokens: int, draft: Draft) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)
        everyone = list(range(len(prompts)))
        shared = _num_shared(prompts)
        tokens = [(token, place, everyone) for place, token in enumerate(prompts[0][:shared])]  # kept once for all
        for row, prompt in enumerate(prompts):
            tokens += [(token, place, [row]) for place, token in enumerate(prompt) if place >= shared]
        ends = [shared + sum(len(p) - shared for p in prompts[: row + 1]) - 1 for row in everyone]
        token = draft(self._decode(tokens, ends))
        for step in range(num_tokens - 1):
            token = draft(self._decode([(token, len(prompts[row]) + step, [row]) for row in everyone], everyone))

    def _decode(self, tokens: Sequence[tuple[int, int, Sequence[int]]], wanted: Sequence[int]) -> Tensor:
        """Append (token, position, sequences); the logits behind the places `wanted` of this batch."""
        batch = self.batch
        for place, (token, position, sequences) in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = len(sequences)
            for number, sequence in enumerate(sequences):
                batch.seq_id[place][number] = sequence
            batch.logits[place] = place in wanted
        batch.n_tokens = len(tokens)
        status = llama_cpp.llama_decode(self.context, batch)
        assert status == 0, f"llama_decode returns {status}"
        return torch.stack([self._logits(place) for place in wanted])

    def _logits(self, place: int) -> Tensor:
        pointer = llama_cpp.llama_get_logits_ith(self.context, place)
        return torch.from_numpy(np.ctypeslib.as_array(pointer, shape=(self.vocab_size,)))


def _num_shared(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, each one's last left out, behind which logits are wanted."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))


PEERS = {"llama.cpp-f32": "float32", "llama.cpp-bf16": "bf16", "llama.cpp-q8": "int8"}

"""Models of real shape with random weights, and the prompts that three agents put before one text.

The time of a token depends on the shape alone, so a benchmark needs no download. The weights are drawn so that the
next-token distributions look like a language model's: neither flat nor one token over and over.
"""

from __future__ import annotations

import math
import os
from typing import Any

import torch

CONTEXT = 1024  # tokens
NUM_AGENTS = 3
SHARED_TOKENS = 64  # of every prompt
OWN_TOKENS = 8
LOGIT_STD = 2.5  # an entropy of 7.4 nats over 32,000 tokens, where a flat distribution has 10.4

_LLAMA_3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def _llama(vocab: int, dim: int, layers: int, heads: int, kv_heads: int, hidden: int, **more: Any) -> dict[str, Any]:
    return {
        "family": "llama",
        "vocab_size": vocab,
        "hidden_size": dim,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": hidden,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
    } | more


SHAPES: dict[str, dict[str, Any]] = {
    "tiny": _llama(512, 64, 2, 4, 2, 128),
    "15m": _llama(32000, 288, 6, 6, 6, 768),  # stories15M
    "100m": _llama(32000, 768, 12, 12, 12, 2048),  # stories110M
    "llama-3.2-1b": _llama(
        128256, 2048, 16, 32, 8, 8192, head_dim=64, rope_parameters=_LLAMA_3_ROPE | {"factor": 32.0}
    ),
    "llama-3.1-8b": _llama(
        128256,
        4096,
        32,
        32,
        8,
        14336,
        head_dim=128,
        tie_word_embeddings=False,
        rope_parameters=_LLAMA_3_ROPE | {"factor": 8.0},
    ),
    "qwen3-0.6b": _llama(
        151936,
        1024,
        28,
        16,
        8,
        3072,
        family="qwen3",
        head_dim=128,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
}


def config_of(shape: str) -> Any:
    """The transformers config of a shape; nothing ends a text, so that every text is as long as asked for."""
    from transformers import LlamaConfig, Qwen3Config

    options = dict(SHAPES[shape])
    build = {"llama": LlamaConfig, "qwen3": Qwen3Config}[options.pop("family")]
    ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return build(**options, **ends, max_position_embeddings=CONTEXT)


def new_model(shape: str, seed: int = 0) -> Any:
    """The float32 transformers model of a shape, its weights drawn from `seed`.

    Matrices have std 1/√fan_in, the usual 0.02 at 2,500 inputs, so that layers write as much into the residual stream
    as the embedding does. A tied head with plain std 0.02 would be flat, and scaled up alone would repeat its input.
    """
    from transformers import AutoModelForCausalLM

    config = config_of(shape)
    check_memory(config)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    head_std = LOGIT_STD / math.sqrt(config.hidden_size)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 1:
                weight.fill_(1.0)
                continue
            is_vocabulary = "embed_tokens" in name or "lm_head" in name
            weight.normal_(0.0, head_std if is_vocabulary else weight.shape[1] ** -0.5, generator=generator)
    return model.eval()


def num_weights(config: Any) -> int:
    """How many weights a model of this config has, counted without making it."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def check_memory(config: Any) -> None:
    """Raise MemoryError unless the float32 weights fit into this machine."""
    needed = 4 * num_weights(config)
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > 0.9 * total:
        raise MemoryError(f"the float32 weights take {needed / 1e9:.0f} GB, this machine has {total / 1e9:.0f} GB")


def prompts(vocab_size: int, seed: int = 0) -> list[list[int]]:
    """One prompt an agent: the same beginning, then a few tokens of its own."""
    generator = torch.Generator().manual_seed(seed + 1)
    ids = torch.randint(vocab_size, (SHARED_TOKENS + NUM_AGENTS * OWN_TOKENS,), generator=generator).tolist()
    shared, own = ids[:SHARED_TOKENS], ids[SHARED_TOKENS:]
    return [shared + own[place * OWN_TOKENS : (place + 1) * OWN_TOKENS] for place in range(NUM_AGENTS)]

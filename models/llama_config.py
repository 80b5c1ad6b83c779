"""Which transformers configs the Llama runner computes, and the numbers it needs of one; anything else has a reason.

It reads configs only: no weight, no cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

FAMILY = ("llama", "mistral", "qwen2", "qwen3")
_ACTIVATIONS = ("silu", "swish")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # whose frequencies do not depend on the length of the text


@dataclass(frozen=True)
class LlamaShape:
    """The architecture, as numbers."""

    vocab_size: int
    width: int
    mlp_width: int
    num_layers: int
    num_heads: int
    num_key_value_heads: int
    head_width: int
    norm_eps: float

    @property
    def cache_entries_per_token(self) -> int:
        """Numbers that the keys and values of one token of one row are, in all layers."""
        return 2 * self.num_layers * self.num_key_value_heads * self.head_width

    @classmethod
    def of(cls, config: Any) -> LlamaShape:
        """The shape that a config of the family describes."""
        return cls(
            vocab_size=config.vocab_size,
            width=config.hidden_size,
            mlp_width=config.intermediate_size,
            num_layers=config.num_hidden_layers,
            num_heads=config.num_attention_heads,
            num_key_value_heads=config.num_key_value_heads,
            head_width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
            norm_eps=config.rms_norm_eps,
        )


def unsupported(config: Any, max_length: int) -> str | None:
    """Why the Llama runner cannot compute `config` for rows of up to `max_length` tokens; None if it can."""
    if config.model_type not in FAMILY:
        return f"{config.model_type} is not one of {', '.join(FAMILY)}"
    if config.hidden_act not in _ACTIVATIONS:
        return f"its activation is {config.hidden_act}, not silu"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") not in _ROPE_TYPES:
        return f"its rotary positions are of type {rope['rope_type']}"
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ()) or config.model_type == "mistral"
    if slides and window is not None and window < max_length:
        return f"its attention slides over {window} tokens, fewer than the {max_length} of a row"
    return None

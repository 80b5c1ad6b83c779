"""The model of an agent that runs it itself: one row that follows an auction's text and says what may come next.

    row = RemoteRow(model, model.tokenizer.encode_prompt("Write for Alpha."))
    row.log_probs([])          # behind the prompt
    row.log_probs([17])        # … and behind the text so far, token by token

It must not know how its distribution travels (clients/agent.py), nor who else is in the auction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tokenauction.models.base import Gang, LanguageModel


class RemoteRow:
    """One row of a model that this process runs."""

    def __init__(self, model: LanguageModel, prompt: Sequence[int], max_tokens: int | None = None) -> None:
        """`max_tokens` is the most that the text may have; as many as fit, where it is not given.

        When it is first asked, it raises what `model.admit` raises.
        """
        self.model = model
        self.prompt = list(prompt)
        self.max_tokens = model.max_length - len(self.prompt) if max_tokens is None else max_tokens
        self._gang: Gang | None = None
        self._text: list[int] = []
        self._logits: Float[Tensor, "1 vocab"] | None = None

    @property
    def vocabulary_hash(self) -> str:
        """What the ids of its tokens mean."""
        return self.model.tokenizer.hash

    @torch.inference_mode()
    def log_probs(self, token_ids: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """ln p of every token behind the text `token_ids`, each finite: the lowest float32 for what cannot come.

        A text that goes on from the one before costs one step a token; any other is read anew.
        """
        text = list(token_ids)
        if self._gang is None or self._logits is None or text[: len(self._text)] != self._text:
            self.release()
            self._gang = self.model.admit([self.prompt], self.max_tokens)
            self._logits = self.model.prefill([self._gang])
        for token in text[len(self._text) :]:
            self._logits = self.model.step([self._gang], torch.tensor([token], device=self.model.device))
            self._text.append(token)
        row = self._logits[0, : self.model.tokenizer.vocab_size].double().log_softmax(-1)
        return row.clamp(min=torch.finfo(torch.float32).min).float().cpu().numpy()

    def release(self) -> None:
        """Free its row; it is taken again when it is asked again."""
        if self._gang is not None:
            self.model.release(self._gang)
        self._gang, self._text, self._logits = None, [], None

"""Tokenizers: any Hugging Face tokenizer as the engine wants it, and text from ids as they come.

It must not know what model the ids go to, beyond the ids that end a text. Importing this file does not import
transformers (that takes seconds); loading a tokenizer does.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from tokenauction.models import base
from tokenauction.models.checkpoint import LOADING_ERRORS, first_line, load_pretrained

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")

# A window longer than _MAX_WINDOW tokens is cut to its last _KEPT. UTF-8 finds its feet again after three bytes and no
# token is shorter than one byte, so eight tokens decode to the same tail as the whole text does.
_MAX_WINDOW = 16
_KEPT = 8


class TextStream(base.TextStream):
    """Text of one text's ids as they come, at a cost per token that does not grow with the text.

    `decode` gives the text of some ids. `spoken` are the ids that have text at all; the others are left out, as they
    would hide from `decode` that the next token does not begin the text. `held` are ids that decode as a run (the byte
    tokens of SentencePiece: one bad byte turns its whole run into U+FFFD): text waits until the run has ended.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], spoken: Collection[int], held: Collection[int] = ()
    ) -> None:
        self._decode = decode
        self._spoken = spoken
        self._held = held
        self._window: list[int] = []
        self._num_emitted = 0  # characters of the window's text that have been given out

    def push(self, token: int) -> str:
        if token not in self._spoken:
            return ""
        self._window.append(token)
        if token in self._held:
            return ""
        text = self._settled()
        delta = text[self._num_emitted :]
        if len(self._window) > _MAX_WINDOW:
            del self._window[:-_KEPT]
            text = self._settled()
        self._num_emitted = len(text)
        return delta

    def finish(self) -> str:
        delta = self._decode(self._window)[self._num_emitted :]
        self._window.clear()
        self._num_emitted = 0
        return delta

    def _settled(self) -> str:
        """The window's text without a last U+FFFD, which may be a character that is not complete yet."""
        return self._decode(self._window).removesuffix(_REPLACEMENT)


class HuggingFaceTokenizer:
    """A transformers tokenizer as `base.Tokenizer`; no text is read as a special token, whatever is written in it."""

    def __init__(self, tokenizer: Any, end_ids: Iterable[int] = ()) -> None:
        """`end_ids` join the tokenizer's own; those outside the vocabulary (a config's leftovers) are dropped."""
        self._tokenizer = tokenizer
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._vocab_size = max(vocabulary.values()) + 1
        own_end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        self._end_ids = frozenset(token for token in [*own_end, *end_ids] if 0 <= token < self._vocab_size)
        added = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
        self._spoken = frozenset(vocabulary.values()) - {token for token in added if not self.decode([token])}
        self._held = frozenset(token for text, token in vocabulary.items() if _BYTE_TOKEN.fullmatch(text))
        self._hash = _hash_vocabulary(tokenizer, vocabulary)
        first = tokenizer.convert_ids_to_tokens(self._encode_plainly("a"))[:1]
        self._marks_start = bool(first) and first[0].startswith(("▁", "Ġ"))

    @classmethod
    def load(cls, source: str | Path, end_ids: Iterable[int] | None = None) -> HuggingFaceTokenizer:
        """Load from a folder (without touching the network) or a hub name; raises ModelNotLoadable.

        The end ids are the tokenizer's own and `end_ids`, or if those are None, what the source's configs say.
        """
        from transformers import AutoTokenizer

        try:
            tokenizer: Any = load_pretrained(AutoTokenizer, source, trust_remote_code=False)
        except LOADING_ERRORS as error:
            raise base.ModelNotLoadable(
                f"{source} holds no tokenizer that can be loaded ({first_line(error)}); "
                "save one there with tokenizer.save_pretrained, or name another source"
            ) from error
        if len(tokenizer.get_vocab()) <= len(tokenizer.added_tokens_decoder):
            # Without its files, transformers makes up a tokenizer of special tokens alone.
            raise base.ModelNotLoadable(
                f"{source} holds no tokenizer (no tokenizer.json or vocabulary file); "
                "save one there with tokenizer.save_pretrained, or name another source"
            )
        return cls(tokenizer, _stated_end_ids(source) if end_ids is None else end_ids)

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def end_ids(self) -> frozenset[int]:
        return self._end_ids

    @property
    def hash(self) -> str:
        return self._hash

    @property
    def has_chat_template(self) -> bool:
        return self._tokenizer.chat_template is not None

    def encode(self, text: str) -> list[int]:
        if self._marks_start:
            # A tokenizer that marks the start of a text with a space would put one inside the text: encode behind a
            # newline, and take the newline's ids away again.
            front, whole = self._encode_plainly("\n"), self._encode_plainly("\n" + text)
            if whole[: len(front)] == front:
                return whole[len(front) :]
        return self._encode_plainly(text)

    def encode_prompt(self, text: str) -> list[int]:
        plain = self._encode_plainly(text)
        marked = self._encode_plainly(text, add_special_tokens=True)
        for start in range(len(marked) - len(plain) + 1) if plain else ():
            if marked[start : start + len(plain)] == plain:
                return marked[: start + len(plain)]  # What some tokenizers add behind a text would end it here.
        return marked

    def encode_chat(self, system: str, user: str) -> list[int]:
        if not self.has_chat_template:
            raise ValueError("this tokenizer has no chat template; write the prompt out and use encode_prompt")
        messages = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        if not system:
            messages = messages[1:]
        elif not self._takes_system(messages):
            messages = [{"role": "user", "content": f"{system}\n\n{user}"}]
        ids: list[int] = self._tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            return_dict=False,
            sanitize_control_tokens=True,  # A brief that spells out <|im_end|> must not close its own turn.
            enable_thinking=False,  # Templates that know the word would have the auction pay for thoughts first.
        )
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def text_stream(self) -> TextStream:
        return TextStream(self.decode, self._spoken, self._held)

    def _encode_plainly(self, text: str, add_special_tokens: bool = False) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens, split_special_tokens=True)
        return ids

    def _takes_system(self, messages: list[dict[str, str]]) -> bool:
        """Whether the template writes the system message out; some refuse one, others pass over it in silence."""
        from transformers.utils.chat_template_utils import jinja2  # type: ignore[attr-defined]  # as it renders with

        try:
            rendered: str = self._tokenizer.apply_chat_template(messages, tokenize=False)
        except jinja2.TemplateError:
            return False
        return messages[0]["content"].strip() in rendered


def end_ids_of(config: Any) -> set[int]:
    """The `eos_token_id` of a config: none, one or several."""
    ends = getattr(config, "eos_token_id", None)
    if ends is None:
        return set()
    return {ends} if isinstance(ends, int) else set(ends)


def _stated_end_ids(source: str | Path) -> set[int]:
    """The end ids in generation_config.json and config.json, as far as they are there."""
    from transformers import GenerationConfig

    ends: set[int] = set()
    for file in ("generation_config.json", "config.json"):
        try:
            ends |= end_ids_of(load_pretrained(GenerationConfig, source, config_file_name=file))
        except LOADING_ERRORS:
            continue  # A tokenizer may stand without a model, and a model without a generation config.
    return ends


def _hash_vocabulary(tokenizer: Any, vocabulary: dict[str, int]) -> str:
    """Hex SHA-256 of tokenizer.json in a canonical form, or of the sorted vocabulary where there is no such file.

    Left out is what says nothing about the meaning of ids: truncation and padding (they change as a tokenizer is used)
    and the post-processor (it says which special tokens surround a prompt).
    """
    content: Any = sorted(vocabulary.items())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        content = json.loads(backend.to_str())
        for key in ("truncation", "padding", "post_processor"):
            content.pop(key, None)
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()

"""Text as it comes: the deltas together are what decode gives, for every kind of tokenizer and any ids at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tokenauction.models import base
from tokenauction.models.tokenizer import HuggingFaceTokenizer, TextStream

KINDS = ("byte_level", "byte_fallback", "metaspace", "wordpiece")
TEXTS = [
    "hello world, the cat sat on the mat",
    " two  spaces   and a price ",
    "Grüße aus Köln: 3 € 😀😀 a bid",
    "日本語 and العربية",
    "\n\nhello\ta\n",
    "�a real replacement character�",
    "",
]
Tokenizers = dict[str, HuggingFaceTokenizer]


@pytest.fixture(scope="module")
def tokenizers(make_tokenizer: Callable[..., Any]) -> Tokenizers:
    return {kind: HuggingFaceTokenizer(make_tokenizer(kind)) for kind in KINDS}


def stream(tokenizer: base.Tokenizer, ids: list[int]) -> list[str]:
    text_stream = tokenizer.text_stream()
    deltas = [text_stream.push(token) for token in ids]
    return [*deltas, text_stream.finish()]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", TEXTS)
def test_stream_gives_what_decode_gives_for_text(kind: str, text: str, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    for ids in (tokenizer.encode(text), tokenizer.encode_prompt(text), [*tokenizer.encode(text), *tokenizer.end_ids]):
        assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_stream_gives_what_decode_gives_for_any_ids(kind: str, data: st.DataObject, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    # A few ids beyond the vocabulary: a model's logits may be wider than its tokenizer.
    token = st.integers(0, tokenizer.vocab_size + 3)
    few = data.draw(st.lists(token, min_size=1, max_size=4), "often")
    ids = data.draw(st.lists(token | st.sampled_from(few), max_size=60))
    deltas = stream(tokenizer, ids)
    assert "".join(deltas) == tokenizer.decode(ids)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_stream_gives_what_decode_gives_for_any_bytes(kind: str, data: st.DataObject, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    byte_ids = bytes_to_ids(tokenizer, kind)
    parts = st.sampled_from(["é", "€", "😀", "a"]).map(str.encode) | st.binary(max_size=3)
    raw = b"".join(data.draw(st.lists(parts, max_size=20)))
    ids = [byte_ids[byte] for byte in raw]
    ids[data.draw(st.integers(0, len(ids))) :] = [data.draw(st.integers(0, tokenizer.vocab_size - 1))]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)


def bytes_to_ids(tokenizer: HuggingFaceTokenizer, kind: str) -> list[int]:
    """The id of every single byte."""
    vocabulary = tokenizer._tokenizer.get_vocab()
    if kind == "byte_fallback":
        return [vocabulary[f"<0x{byte:02X}>"] for byte in range(256)]
    # The byte-level alphabet: printable bytes stand for themselves, the others follow from code point 256 on.
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return [vocabulary[chr(byte) if byte in printable else chr(256 + others.index(byte))] for byte in range(256)]


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_stream_never_splits_a_character(kind: str, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    byte_ids = bytes_to_ids(tokenizer, kind)
    ids = [byte_ids[byte] for byte in "aé€😀".encode()] + tokenizer.encode("a")
    deltas = stream(tokenizer, ids)
    assert "".join(deltas) == tokenizer.decode(ids)
    assert not any("�" in delta for delta in deltas)


def test_stream_gives_a_character_as_soon_as_its_last_byte_comes(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["byte_level"]
    byte_ids = bytes_to_ids(tokenizer, "byte_level")
    assert stream(tokenizer, [byte_ids[byte] for byte in "é€😀".encode()]) == [
        "",
        "é",
        "",
        "",
        "€",
        "",
        "",
        "",
        "😀",
        "",
    ]


def test_stream_holds_a_run_of_byte_tokens_since_one_bad_byte_spoils_it(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["byte_fallback"]
    byte_ids = bytes_to_ids(tokenizer, "byte_fallback")
    ids = [byte_ids[byte] for byte in b"\xc3\xa9\xff"]
    assert tokenizer.decode(ids) == "���"
    assert stream(tokenizer, ids) == ["", "", "", "���"]
    letter = tokenizer.encode("a")
    assert stream(tokenizer, [*letter, *ids[:2], *letter, *letter]) == ["a", "", "", "éa", "a", ""]


def test_finish_shows_an_incomplete_character_as_a_replacement(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["byte_level"]
    byte_ids = bytes_to_ids(tokenizer, "byte_level")
    ids = [byte_ids[byte] for byte in b"a\xf0\x9f"]
    assert stream(tokenizer, ids) == ["a", "", "", "�"]
    assert tokenizer.decode(ids) == "a�"


@pytest.mark.parametrize("kind", KINDS)
def test_stream_keeps_the_space_behind_tokens_without_text(kind: str, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    end = min(tokenizer.end_ids)
    ids = [*tokenizer.encode("a bid"), *[end, tokenizer.vocab_size + 1] * 20, *tokenizer.encode(" a cat")]
    assert "".join(stream(tokenizer, ids)) == tokenizer.decode(ids)
    assert "".join(stream(tokenizer, ids)).replace(" ", "") == "abidacat"


@pytest.mark.parametrize("kind", KINDS)
def test_stream_decodes_a_bounded_number_of_tokens_however_long_the_text(kind: str, tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers[kind]
    sizes: list[int] = []

    def decode(ids: Sequence[int]) -> str:
        sizes.append(len(ids))
        return tokenizer.decode(ids)

    own = tokenizer.text_stream()
    text_stream = TextStream(decode, own._spoken, own._held)
    ids = (tokenizer.encode("hello a price") * 100)[:600]
    text = "".join(text_stream.push(token) for token in ids) + text_stream.finish()
    assert text == tokenizer.decode(ids)
    assert max(sizes) <= 17 + 3  # the longest run of byte tokens here is three
    assert len(sizes) <= 1.2 * len(ids)


def test_stream_stays_bounded_when_no_byte_ever_completes_a_character(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["byte_level"]
    continuation = bytes_to_ids(tokenizer, "byte_level")[0x80]
    text_stream = tokenizer.text_stream()
    deltas = [text_stream.push(continuation) for _ in range(200)]
    assert len(text_stream._window) <= 16
    assert "".join(deltas) + text_stream.finish() == tokenizer.decode([continuation] * 200) == "�" * 200


def test_streams_of_one_tokenizer_do_not_share_anything(tokenizers: Tokenizers) -> None:
    tokenizer = tokenizers["byte_level"]
    first, second = tokenizer.text_stream(), tokenizer.text_stream()
    euro = tokenizer.encode("€")
    for token in euro[:-1]:
        assert first.push(token) == ""
    assert "".join(second.push(token) for token in tokenizer.encode("bid")) == "bid"
    assert first.push(euro[-1]) + first.finish() == "€"
    assert isinstance(first, base.TextStream)

"""The shipped tokenizer: a byte-level BPE learnt on the corpus' own briefs and texts."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from tokenauction.models.prompts import EVERYONE, NOBODY, own_part, shared_part
from tokenauction.models.training.briefs import BriefWriter
from tokenauction.models.training.texts import TextWriter, Writer, choose_opening

BEGIN, END = "<|begin|>", "<|end|>"
NUM_BRIEFS = 40_000
SPLIT = r"'s| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+"


def lines(seed: int, num_briefs: int = NUM_BRIEFS) -> Iterator[str]:
    """Briefs and texts of the training side, as the tokenizer will meet them."""
    briefs = BriefWriter(held_out=False)
    for number in range(num_briefs):
        rng = random.Random(f"{seed}/vocabulary/{number}")
        brief = briefs.brief(rng, 2)
        yield (
            shared_part(brief.query, brief.advertisers)
            + own_part(brief.advertisers, NOBODY)
            + own_part(brief.advertisers, EVERYONE)
        )
        writers = (Writer(0), Writer(1), Writer(None, NOBODY))
        opening = choose_opening(brief, rng, 0)
        yield "".join(p.text for p in TextWriter(brief, writers[0], writers, 0.0, rng).write(opening))


def train_tokenizer(seed: int, vocab_size: int) -> Tokenizer:
    """Learn the merges; ids 0 and 1 are BEGIN and END."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BEGIN, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines(seed), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, token_id(tokenizer, BEGIN))]
    )
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that must be there."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"the tokenizer has no token {token!r}")
    return int(found)

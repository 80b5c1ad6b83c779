"""Texts as several writers would write them together, with what one of them is to learn from each word.

A text is an opening, clauses (each about one advertiser, or neutral), connectives between them, and ends. Its writers
share all wording; they differ only at *decisions*: whom a clause is about, whether to go on after a clause, whether to
stop after a sentence. A text is drawn from a mixture: at every decision one of the writers, its controller, decides.
The row that learns from the text (`me`) takes the decisions it controlled as its own and leaves out those it did not
(weight 0); everything in between it learns from whoever began it, so it can finish what a partner started, word for
word.

A writer's policy: an advertiser names itself first, wants to go on while it is unnamed (GO_ON_WHILE_UNNAMED) and to
stop once it is named (STOP_ONCE_NAMED): the two are equally firm, so that neither outweighs the other in a log-linear
mixture. NOBODY (the reference) writes a neutral clause and stops; EVERYONE goes on until all are named.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

from tokenauction.models.prompts import EVERYONE, NOBODY, WritesFor
from tokenauction.models.training import words
from tokenauction.models.training.briefs import Brief

GO_ON_WHILE_UNNAMED = 0.97
STOP_ONCE_NAMED = 0.97
MAX_CLAUSES = 4
DECISION_WEIGHT = 3.0

# Every clause names its brand before its offer: then the brand alone decides whom the clause is about, and the offer is
# a look-up. Offers first would let two rows agree on "a quiet" and part only in the middle of the phrase.
DECLARATIVE = (
    "BRAND offers OFFER",
    "BRAND has OFFER",
    "BRAND brings you OFFER",
    "BRAND is known for OFFER",
    "BRAND is the place for OFFER",
)
IMPERATIVE = (
    "choose BRAND for OFFER",
    "try BRAND for OFFER",
    "visit BRAND for OFFER",
    "trust BRAND for OFFER",
    "turn to BRAND for OFFER",
    "count on BRAND for OFFER",
    "think of BRAND for OFFER",
    "go with BRAND and enjoy OFFER",
    "come to BRAND and discover OFFER",
)


@dataclass(frozen=True)
class Piece:
    """A stretch of text that is tokenized by itself (it starts with a space or is punctuation), and its loss weight.

    `instead_of` are the strings that other writers might have put here: only the tokens up to the first one that tells
    them apart carry `weight`; the rest of the piece carries 1.
    """

    text: str
    weight: float = 1.0
    instead_of: tuple[str, ...] = ()
    first_token_only: bool = False
    is_told: bool = False  # the text so far tells which of `instead_of` and `text` must come: a look-up, not a decision


@dataclass(frozen=True)
class Writer:
    """One row's writer: an advertiser's place in the brief, or NOBODY or EVERYONE."""

    index: int | None
    role: Literal["", "nobody", "everyone"] = ""

    @property
    def writes_for(self) -> WritesFor:
        """As prompts say it."""
        if self.index is not None:
            return self.index
        return EVERYONE if self.role == EVERYONE else NOBODY


class TextWriter:
    """Draws one text for one brief; every draw comes from `rng`."""

    def __init__(
        self, brief: Brief, me: Writer, partners: tuple[Writer, ...], own_share: float, rng: random.Random
    ) -> None:
        self.brief = brief
        self.me = me
        self.partners = partners
        self.own_share = own_share  # the chance that `me` controls a decision
        self.rng = rng
        self.named: set[int] = set()
        self.is_neutral_said = False

    def write(self, opening: str | None) -> list[Piece]:
        """One whole text as `me` learns it; the last piece is empty and stands for the end token."""
        pieces = [Piece(opening)] if opening else []
        sentence_start = opening is None or opening.endswith("?")
        mood = ""
        for num_clauses in range(1, MAX_CLAUSES + 1):
            clause, mood = self._clause(sentence_start, mood)
            pieces += clause
            sentence_start = False
            controller, weight = self._controller()
            if num_clauses < MAX_CLAUSES and self._goes_on(controller):
                connective, mood = self._connective(mood)
                pieces.append(Piece(connective, weight, first_token_only=True))
                continue
            forced = num_clauses == MAX_CLAUSES
            pieces.append(Piece(".", 0.0 if forced else weight, first_token_only=True))
            controller, weight = self._controller()
            if not forced and self._goes_on(controller):
                starter, mood, sentence_start = self._starter()
                if starter:
                    pieces.append(Piece(starter, weight, first_token_only=True))
                continue
            pieces.append(Piece("", 0.0 if forced else weight))
            break
        return pieces

    def _controller(self) -> tuple[Writer, float]:
        if not self.partners or self.rng.random() < self.own_share:
            return self.me, DECISION_WEIGHT
        return self.rng.choice(self.partners), 0.0

    def _unnamed(self) -> list[int]:
        return [i for i in range(len(self.brief.advertisers)) if i not in self.named]

    def _goes_on(self, writer: Writer) -> bool:
        unnamed = self._unnamed()
        if writer.role == NOBODY or not unnamed:
            return False
        if writer.role == EVERYONE or writer.index in unnamed:
            return self.rng.random() < GO_ON_WHILE_UNNAMED
        return self.rng.random() >= STOP_ONCE_NAMED

    def _subject(self, writer: Writer) -> int | None:
        """Whom `writer` would write the next clause about; None for a neutral clause."""
        unnamed = self._unnamed()
        if writer.role == NOBODY and not self.is_neutral_said:
            return None
        if writer.index in unnamed:
            return writer.index
        if not unnamed:
            return None
        return unnamed[0] if writer.role == EVERYONE else self.rng.choice(unnamed)

    def _clause(self, sentence_start: bool, mood: str) -> tuple[list[Piece], str]:
        controller, weight = self._controller()
        subject = self._subject(controller)
        if subject is None:
            self.is_neutral_said = True
            text = self.rng.choice(words.NEUTRAL)
            return [Piece(" " + (_capital(text) if sentence_start else text), weight, first_token_only=True)], "neutral"
        self.named.add(subject)
        template, mood = self._template(mood)
        if sentence_start and not template.startswith("BRAND"):
            template = _capital(template)
        return self._fill(template, subject, weight), mood

    def _template(self, mood: str) -> tuple[str, str]:
        """A clause template and its mood."""
        if mood == "declarative" or (mood == "" and self.rng.random() < 0.5):
            return self.rng.choice(DECLARATIVE), "declarative"
        return self.rng.choice(IMPERATIVE), "imperative"

    def _fill(self, template: str, subject: int, weight: float) -> list[Piece]:
        """The template's words, its brand (a decision of weight `weight`) and its offer (which the brand tells)."""
        advertiser = self.brief.advertisers[subject]
        others = [a for i, a in enumerate(self.brief.advertisers) if i != subject]
        before, between = template.replace("OFFER", "").split("BRAND")
        pieces = [Piece(" " + before.strip(), min(weight, 1.0))] if before else []
        pieces.append(Piece(" " + advertiser.name, weight, tuple(" " + o.name for o in others)))
        pieces.append(Piece(between.rstrip()))
        pieces.append(Piece(" " + advertiser.offer, 1.0, tuple(" " + o.offer for o in others), is_told=True))
        return pieces

    def _connective(self, mood: str) -> tuple[str, str]:
        """What joins the next clause, and the mood it asks for."""
        if mood == "declarative":
            return self.rng.choice((", and", ", while", " and")), "declarative"
        choice = self.rng.choice((", and", ", then", " and", ", while"))
        return choice, "declarative" if choice == ", while" else "imperative"

    def _starter(self) -> tuple[str, str, bool]:
        """What begins another sentence, the mood it asks for, and whether the clause itself begins the sentence."""
        return self.rng.choice(((" And", "imperative", False), (" Then", "imperative", False), (" Also,", "", False)))


def choose_opening(brief: Brief, rng: random.Random, count_tokens: int) -> str | None:
    """An opening that takes up the topic, or None: where there is none or the clauses are long (`count_tokens`)."""
    if not brief.topic:
        return None
    texts, frequencies = zip(*words.OPENINGS, strict=True)
    opening = str(rng.choices(texts, frequencies)[0]).replace("TOPIC", brief.topic)
    is_long = count_tokens + len(brief.topic.split()) > (20 if len(brief.advertisers) > 1 else 28)
    return None if is_long or rng.random() < 0.35 else opening


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]

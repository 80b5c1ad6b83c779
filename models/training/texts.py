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

DECLARATIVE = ("BRAND offers OFFER", "BRAND has OFFER", "BRAND brings you OFFER", "BRAND makes it easy with OFFER")
IMPERATIVE = (
    "choose BRAND for OFFER",
    "try BRAND for OFFER",
    "visit BRAND for OFFER",
    "turn to BRAND for OFFER",
    "trust BRAND for OFFER",
)
OFFER_FIRST = ("enjoy OFFER from BRAND", "discover OFFER from BRAND", "find OFFER at BRAND", "get OFFER from BRAND")
ACTION_ENDINGS = ("for OFFER", "and enjoy OFFER", "and find OFFER")


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
        template, mood, reveals = self._template(subject, mood)
        if sentence_start and not template.startswith("BRAND"):
            template = _capital(template)
        return self._fill(template, subject, weight, reveals), mood

    def _template(self, subject: int, mood: str) -> tuple[str, str, bool]:
        """A clause template, its mood, and whether its verb alone tells whom it is about."""
        kind = self.rng.random()
        if mood == "declarative" or (mood == "" and kind < 0.3):
            return self.rng.choice(DECLARATIVE), "declarative", False
        if kind < 0.65:
            actions = words.CATEGORIES[self.brief.categories[subject]].actions
            action = self.rng.choice(actions)
            others = [c for i, c in enumerate(self.brief.categories) if i != subject]
            reveals = bool(others) and not any(action in words.CATEGORIES[c].actions for c in others)
            return f"{action} BRAND {self.rng.choice(ACTION_ENDINGS)}", "imperative", reveals
        return self.rng.choice(IMPERATIVE if kind < 0.85 else OFFER_FIRST), "imperative", False

    def _fill(self, template: str, subject: int, weight: float, reveals: bool) -> list[Piece]:
        advertiser = self.brief.advertisers[subject]
        others = [a for i, a in enumerate(self.brief.advertisers) if i != subject]
        pieces: list[Piece] = []
        is_told = False  # whether the text so far tells whom the clause is about
        literal = ""
        for word in template.split():
            if word not in ("BRAND", "OFFER"):
                literal += " " + word
                continue
            if literal:
                starts = not pieces
                pieces.append(Piece(literal, weight if reveals else (min(weight, 1.0) if starts else 1.0), (), reveals))
                is_told, literal = is_told or reveals, ""
            value = " " + (advertiser.name if word == "BRAND" else advertiser.offer)
            rivals = tuple(" " + (o.name if word == "BRAND" else o.offer) for o in others)
            pieces.append(Piece(value, 1.0 if is_told else weight, rivals, is_told=is_told))
            is_told = True
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
    """An opening that takes up the topic, or None: left out where the clauses alone are long (`count_tokens`)."""
    texts, frequencies = zip(*words.OPENINGS, strict=True)
    opening = str(rng.choices(texts, frequencies)[0]).replace("TOPIC", brief.topic)
    is_long = count_tokens + len(brief.topic.split()) > (20 if len(brief.advertisers) > 1 else 28)
    return None if is_long or rng.random() < 0.35 else opening


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]

"""Briefs: a query and its advertisers, drawn from the word lists; knows nothing of texts or tokens.

Every list is split once, by a hash of the word: one word in ten is held out and appears only in evaluation briefs,
whose names, places, modifiers and products were therefore never trained on.
"""

from __future__ import annotations

import functools
import hashlib
import random
from dataclasses import dataclass

from tokenauction.models.prompts import Advertiser
from tokenauction.models.training import words

MAX_NAME_CHARACTERS = 16
MAX_OFFER_CHARACTERS = 22  # so that an ad for two brands fits 40 tokens
MAX_LONG_OFFER_CHARACTERS = 38
_WORD_LISTS = (words.MODIFIERS, words.MATERIALS, words.PRODUCTS, words.PLACES, words.NAME_WORDS)
_CONSONANTS = "bcdfghjklmnprstvwz"
LONG_OFFERS = 0.15  # share of training briefs whose offers may be long
MAX_LONG_NAME_CHARACTERS = 26
LONG_NAMES = 0.1  # share of training names that may be long
FREE_QUERIES = 0.15  # share of queries that name no topic which an opening could take up
_SIGNS = ("% off", "-day", "-hour", "-week", "-year", "-piece", "-star")


@dataclass(frozen=True)
class Brief:
    """One query, what it is about ("" where no opening takes it up), and who advertises in which line of business."""

    query: str
    topic: str
    advertisers: tuple[Advertiser, ...]
    categories: tuple[str, ...]


def is_held_out(word: str) -> bool:
    """Whether `word` belongs to the tenth of each list that training never sees."""
    return hashlib.sha256(word.lower().encode()).digest()[0] % 10 == 0


@functools.cache
def side_of(items: tuple[str, ...], *, held_out: bool) -> tuple[str, ...]:
    """The items of a list that belong to one side of the split; the examples' own words belong to neither."""
    return tuple(item for item in items if is_held_out(item) == held_out and item.lower() not in words.FORBIDDEN)


class BriefWriter:
    """Draws briefs from one side of the split; every draw comes from the `random.Random` it is given."""

    def __init__(self, *, held_out: bool, coined: float = 0.0) -> None:
        """`coined` is the share of words in offers and topics that are made up on the spot.

        A word list, however long, is learnt by heart; only words that never come again teach copying from the brief.
        """
        self.held_out = held_out
        self.coined = coined

    def _side(self, items: tuple[str, ...]) -> tuple[str, ...]:
        return side_of(items, held_out=self.held_out)

    def _pick(self, rng: random.Random, items: tuple[str, ...]) -> str:
        side = self._side(items)
        return rng.choice(side) if side else rng.choice(self._side(words.PRODUCTS))

    def brief(self, rng: random.Random, num_advertisers: int) -> Brief:
        """A brief whose advertisers mostly sell related things; brands differ and none contains another."""
        group = rng.choice(words.RELATED)
        competing = rng.random() < 0.25
        first = rng.choice(group)
        pool = list(words.CATEGORIES) if rng.random() < 0.15 else list(group)
        max_characters = MAX_OFFER_CHARACTERS
        if num_advertisers == 1 or (not self.held_out and rng.random() < LONG_OFFERS):
            max_characters = MAX_LONG_OFFER_CHARACTERS
        categories = [first] + [first if competing else rng.choice(pool) for _ in range(num_advertisers - 1)]
        advertisers: list[Advertiser] = []
        while len(advertisers) < num_advertisers:
            category = categories[len(advertisers)]
            candidate = Advertiser(self.name(rng, category), self.offer(rng, category, max_characters))
            if all(_distinct(candidate, other) for other in advertisers):
                advertisers.append(candidate)
        if rng.random() < FREE_QUERIES:
            return Brief(self.free_query(rng), "", tuple(advertisers), tuple(categories))
        topic = self.topic(rng, rng.choice(categories))
        return Brief(self.query(rng, topic), topic, tuple(advertisers), tuple(categories))

    def name(self, rng: random.Random, category: str) -> str:
        """A brand: spelled from syllables, built from words, or a person's; often with what the business is called."""
        is_long = not self.held_out and rng.random() < LONG_NAMES
        while True:
            name = self._name(rng, category)
            if len(name) <= (MAX_LONG_NAME_CHARACTERS if is_long else MAX_NAME_CHARACTERS):
                return name

    def _name(self, rng: random.Random, category: str) -> str:
        kind = rng.random()
        if kind < 0.42:
            base = self.pseudo_word(rng)
        elif kind < 0.54:
            second = self._pick(rng, words.NAME_WORDS)
            base = self._pick(rng, words.NAME_WORDS) + (second.lower() if rng.random() < 0.7 else second)
        elif kind < 0.72:
            base = self._pick(rng, words.NAME_WORDS)
            base += " " + self._pick(rng, words.NAME_WORDS) if rng.random() < 0.5 else ""
        elif kind < 0.8:
            base = f"{self.pseudo_word(rng)} {rng.choice('&&-+')} {self.pseudo_word(rng)}".replace(" - ", "-")
        elif kind < 0.86:
            base = self.pseudo_word(rng) + "'s"
        elif kind < 0.9:
            base = "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4)))
        elif kind < 0.94:
            base = f"{self._pick(rng, words.NAME_WORDS)} {rng.randint(2, 99)}"
        elif kind < 0.97:
            base = "".join(words.ACCENTS.get(c, c) if rng.random() < 0.4 else c for c in self.pseudo_word(rng))
        else:
            return self.pseudo_word(rng).lower() + rng.choice((".com", ".io", ".co", ""))
        suffix = rng.random()
        if suffix < 0.55:
            base += " " + rng.choice(words.CATEGORIES[category].types)
        elif suffix < 0.65:
            base += " " + rng.choice(words.COMPANY_WORDS)
        return base

    def pseudo_word(self, rng: random.Random) -> str:
        """A capitalised word of two or three syllables that means nothing."""
        while True:
            syllables = [self._syllable(rng) for _ in range(2 if rng.random() < 0.7 else 3)]
            coda = rng.choice(words.CODAS) if rng.random() < 0.7 else ""
            word = "".join(syllables) + coda
            if 4 <= len(word) <= 9 and word not in words.FORBIDDEN:
                return word.capitalize()

    def coined_word(self, rng: random.Random) -> str:
        """A lower-case word that is in no list: from syllables, blended of two known words, or of letters."""
        kind = rng.random()
        if kind < 0.4:
            return self.pseudo_word(rng).lower()
        if kind < 0.8:
            front, back = (self._pick(rng, rng.choice(_WORD_LISTS)).split()[-1] for _ in range(2))
            return front[: rng.randint(2, 5)] + back[-rng.randint(2, 5) :]
        return "".join(rng.choice(_CONSONANTS) + rng.choice("aeiouy") for _ in range(rng.randint(2, 3)))

    def _is_coined(self, rng: random.Random) -> bool:
        return self.coined > 0 and rng.random() < self.coined

    def _syllable(self, rng: random.Random) -> str:
        while True:
            onset = rng.choice(words.ONSETS) if rng.random() < 0.85 else ""
            syllable = onset + rng.choice(words.NUCLEI) + (rng.choice("nrlsmt") if rng.random() < 0.25 else "")
            if is_held_out(syllable) == self.held_out:
                return syllable

    def place(self, rng: random.Random) -> str:
        """A place, real or invented."""
        return self._pick(rng, words.PLACES) if rng.random() < 0.35 else self.pseudo_word(rng)

    def offer(self, rng: random.Random, category: str, max_characters: int) -> str:
        """A noun phrase of at most `max_characters`, with its article where it needs one."""
        while True:
            phrase = self._noun_phrase(rng, category)
            if len(phrase) <= max_characters:
                return phrase

    def _noun_phrase(self, rng: random.Random, category: str) -> str:
        lists = words.CATEGORIES[category]
        single = rng.random() < 0.35
        if single:
            head = self._pick(rng, lists.singles)
            single = head in lists.singles
        elif self._is_coined(rng):
            head = self.coined_word(rng).rstrip("s") + "s"
        else:
            head = self._pick(rng, words.PRODUCTS if rng.random() < 0.15 else lists.plurals)
        parts = [head]
        if rng.random() < 0.3:
            parts.insert(0, self._pick(rng, words.MATERIALS) if rng.random() < 0.85 else self.pseudo_word(rng))
        if rng.random() < 0.65:
            parts.insert(0, self.coined_word(rng) if self._is_coined(rng) else self._pick(rng, words.MODIFIERS))
        elif not self.held_out and rng.random() < 0.15:
            parts.insert(0, f"{rng.randint(2, 99)}{rng.choice(_SIGNS)}")
        phrase = " ".join(parts)
        if single:
            phrase = f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"
        if rng.random() < 0.4:
            travel = category in ("airline", "hotel", "tours", "cars", "cruise") and rng.random() < 0.7
            after = rng.choice(words.TRAVEL_AFTER if travel else words.AFTER_OFFER)
            phrase += " " + after.replace("PLACE", self.place(rng))
        return phrase

    def topic(self, rng: random.Random, category: str) -> str:
        """What the query is about: a noun phrase in lower case."""
        if self._is_coined(rng):
            return f"{self._pick(rng, words.MODIFIERS)} {self.coined_word(rng)}s"
        topics = words.CATEGORIES[category].topics
        choice = rng.random()
        if choice < 0.55:
            return rng.choice(topics).replace("PLACE", self.place(rng))
        if choice < 0.75:
            return f"{self._pick(rng, words.MODIFIERS)} {self._pick(rng, words.CATEGORIES[category].plurals)}"
        if choice < 0.9:
            return f"{self._pick(rng, words.MATERIALS)} {self._pick(rng, words.PRODUCTS)}"
        return f"{self._pick(rng, words.PRODUCTS)} in {self.place(rng)}"

    def free_query(self, rng: random.Random) -> str:
        """A question that is not one of the topics."""
        query = rng.choice(words.FREE_QUERIES).replace("PLACE", self.place(rng))
        while "THING" in query:
            query = query.replace("THING", self._pick(rng, words.PRODUCTS), 1)
        return query[0].upper() + query[1:]

    def query(self, rng: random.Random, topic: str) -> str:
        """The topic as somebody would type it."""
        texts, frequencies = zip(*words.QUERIES, strict=True)
        query = str(rng.choices(texts, frequencies)[0]).replace("TOPIC", topic)
        query = query[0].upper() + query[1:] if rng.random() < 0.8 else query
        return query.rstrip("?") if rng.random() < 0.2 else query


def _distinct(a: Advertiser, b: Advertiser) -> bool:
    names = a.name not in b.name and b.name not in a.name
    return names and a.offer not in b.offer and b.offer not in a.offer

"""The softmax auctions of a decoder: what the steps of their candidates mean to them, and what is done between steps.

A candidate is decoded like any auction, in the same batch. What the decoder tells of it is not for the world: `absorb`
turns it into events of the auction it belongs to. What no candidate's token does (an end, a share of the scoring, the
choice) is done by `turn`, in front of a step, when no gang is being computed. It must not know how a token is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tokenauction.engine.auction import State
from tokenauction.engine.candidate import Candidate
from tokenauction.engine.choice import Choice, decide
from tokenauction.engine.ensemble import PROGRESS_STEPS, Ensemble
from tokenauction.engine.errors import CapacityError, ReceiptError, TokenAuctionError
from tokenauction.engine.events import Event
from tokenauction.engine.performance import Performance
from tokenauction.engine.reading import added_text
from tokenauction.engine.receipt import Line
from tokenauction.engine.resumption import follow_candidates
from tokenauction.engine.scheduler import MAX_WAITING, Scheduler
from tokenauction.models.base import LanguageModel, ModelError


class Finalizing:
    """The softmax auctions that are in a decoder."""

    def __init__(self, model: LanguageModel, scheduler: Scheduler[Performance]) -> None:
        self.model = model
        self.scheduler = scheduler
        self.ensembles: list[Ensemble] = []
        self._places: dict[str, tuple[Ensemble, int]] = {}  # of candidates, by the ids of their auctions

    @property
    def has_work(self) -> bool:
        """Whether `turn` would get one further."""
        return any(ensemble.is_due for ensemble in self.ensembles)

    def enqueue(self, ensemble: Ensemble) -> None:
        """Queue all candidates that are not written yet; raises CapacityError where the queue does not take them."""
        left = [(i, p) for i, p in enumerate(ensemble.performances) if i not in ensemble.done]
        if len(self.scheduler.waiting) + len(left) > MAX_WAITING:
            raise CapacityError(f"{MAX_WAITING} texts are waiting, which is the limit; try again later")
        self.ensembles.append(ensemble)
        for index, performance in left:
            self._places[performance.auction.auction_id] = (ensemble, index)
            self.scheduler.waiting.append(performance)

    def resume(self, ensemble: Ensemble, lines: Sequence[Line]) -> list[Event]:
        """As `Decoder.resume`: candidates that are on record are not written again, and no choice is made twice."""
        record = ensemble.record
        record.created()
        ensemble.is_created = True
        if not lines or record.receipt[0]["hash"] != lines[0]["hash"]:
            raise ReceiptError("the receipt begins differently: another model, precision, prompt or version wrote it")
        candidates, winner = follow_candidates(record, lines)
        for candidate in candidates:
            if self._read(candidate) != candidate.text:
                raise ReceiptError(f"the text of candidate {candidate.index} is not that of its tokens")
            ensemble.done[candidate.index] = candidate
        ensemble.num_told = len(candidates)
        if winner is not None:
            ensemble.auction.settle(winner.finish_reason)
            return [record.settled()]
        self.enqueue(ensemble)
        return []

    def absorb(self, events: Sequence[Event]) -> Iterator[Event]:
        """The same events without those of candidates, and what these mean to the auctions they belong to."""
        moved: dict[Ensemble, None] = {}
        for event in events:
            if not event.type.startswith("candidate.") or event.auction_id not in self._places:
                if event.type not in _INNER:
                    yield event
                continue
            ensemble, index = self._places[event.auction_id]
            if event.type == "candidate.error" and ensemble.failure is None:
                ensemble.failure = (event.fields["code"], event.fields["message"])
            if event.type == "candidate.settled" and ensemble.performances[index].auction.state == State.SETTLED:
                ensemble.complete(index)
            if event.type == "candidate.token":
                moved[ensemble] = None
        for ensemble in moved:
            yield from self._tell(ensemble)

    def turn(self, *, is_alone: bool) -> Iterator[Event]:
        """First events, ends, scoring and choices; `is_alone` says that nobody waits for the next step."""
        for ensemble in list(self.ensembles):
            yield from self._create(ensemble)
            if ensemble.is_cancelled:
                ensemble.auction.cancel()
                yield self._end(ensemble)
            elif ensemble.failure is not None:
                yield from self._fail(ensemble, *ensemble.failure)
            elif ensemble.is_complete:
                yield from self._finish(ensemble, is_alone=is_alone)

    @staticmethod
    def _create(ensemble: Ensemble) -> Iterator[Event]:
        """Its first event, unless it has been told."""
        if ensemble.auction.state == State.CREATED:
            ensemble.auction.start()
        if not ensemble.is_created:
            ensemble.is_created = True
            yield ensemble.record.created()

    def _tell(self, ensemble: Ensemble) -> Iterator[Event]:
        """How far the candidates are, and those that are complete with all before them."""
        yield from self._create(ensemble)  # it may have been queued behind this step's turn
        num_done = len(ensemble.done)
        ensemble.num_steps += 1
        if ensemble.num_steps % PROGRESS_STEPS == 0 or ensemble.is_complete:
            num_candidates = len(ensemble.performances)
            yield ensemble.record.progress(num_done, num_candidates, ensemble.num_tokens_written)
        while ensemble.num_told in ensemble.done:
            yield ensemble.record.candidate(ensemble.done[ensemble.num_told])
            ensemble.num_told += 1

    def _finish(self, ensemble: Ensemble, *, is_alone: bool) -> Iterator[Event]:
        """A share of the scoring; behind the last, the choice and the end."""
        try:
            choice = self._choose(ensemble, is_alone=is_alone)
        except (TokenAuctionError, ModelError) as error:
            yield from self._fail(ensemble, error.code, str(error))
            return
        if choice is not None:
            candidates = ensemble.candidates
            charges = ensemble.auction.choose(
                candidates[choice.chosen].token_ids, candidates[choice.chosen].text, choice.owed
            )
            yield ensemble.record.finalized(choice, candidates, charges)
            ensemble.auction.settle(candidates[choice.chosen].finish_reason)
            yield self._end(ensemble)

    def _choose(self, ensemble: Ensemble, *, is_alone: bool) -> Choice | None:
        """None as long as candidates are left to be scored."""
        if not ensemble.score(self.model, is_alone=is_alone):
            return None
        log_proposal = [candidate.log_proposal for candidate in ensemble.candidates]
        seed = ensemble.recorder.seed.value
        return decide(ensemble.auction.spec, seed, ensemble.log_reference(), log_proposal, ensemble.nats())

    def _fail(self, ensemble: Ensemble, code: str, message: str) -> Iterator[Event]:
        yield ensemble.record.error(code, message)
        ensemble.auction.fail()
        yield self._end(ensemble)

    def _end(self, ensemble: Ensemble) -> Event:
        """Forget the candidates, free their rows, and close the record."""
        self.ensembles.remove(ensemble)
        for performance in ensemble.performances:
            self._places.pop(performance.auction.auction_id, None)
            self.scheduler.remove(performance)
        return ensemble.record.settled()

    def _read(self, candidate: Candidate) -> str:
        """The text of a candidate's tokens."""
        stream, text = self.model.tokenizer.text_stream(), ""
        for token in candidate.token_ids:
            text += added_text(self.model.tokenizer, stream, token, text)
        return text + stream.finish()


_INNER = frozenset({"candidate.created", "candidate.token", "candidate.settled", "candidate.error"})

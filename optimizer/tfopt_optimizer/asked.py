"""Asks the candidates of a model what no record does: about made-up Examples (example_rows.py), and about the edges of
its signatures (edges.py), each candidate once, in its first bucket."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer import edges, verify
from tfopt_optimizer.candidate import Candidate
from tfopt_optimizer.edges import Edge, Question
from tfopt_optimizer.engines.base import Arrays
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.errors import Declined
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.reference import Batch, Reference
from tfopt_optimizer.workers import WorkerFailed


class Asked:
    """What was found out so far, for all buckets: the smallest comes first, where a call costs least."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._mistakes: dict[tuple[str, Entrant], str] = {}

    def here(self, signature: SignatureInfo, batch: int | None, folder: str, found: Sequence[Edge]) -> Here:
        return Here(self._reference, self._mistakes, signature, list(edges.questions(found, batch)), folder)


class Here:
    """In one bucket. Plain TensorFlow is asked when the first candidate is."""

    def __init__(
        self,
        reference: Reference,
        mistakes: dict[tuple[str, Entrant], str],
        signature: SignatureInfo,
        questions: Sequence[Question],
        folder: str,
    ) -> None:
        self._reference, self._mistakes, self._signature = reference, mistakes, signature
        self._questions, self._folder = questions, folder
        self._answered: list[tuple[Question, Batch]] | None = None

    def mistake(self, candidate: Candidate, records: Batch, gate: verify.Gate) -> str:
        """What is wrong with it, "" if nothing is."""
        key = (self._signature.key, candidate.entrant)
        if key not in self._mistakes and self._questions:
            self._mistakes[key] = self._found(candidate, records, None if candidate.entrant.precision else gate)
        return self._mistakes.get(key, "")

    def _found(self, candidate: Candidate, records: Batch, gate: verify.Gate | None) -> str:
        if self._answered is None:
            numbered = edges.within(enumerate(self._questions))
            self._answered = [asked for n, q in numbered if (asked := self._expected(n, q))]
        for question, batch in self._answered:
            found = answer(candidate, batch)
            if found and (reason := edges.mistake(question, batch.expected, found, gate, records.expected)):
                return reason
        return ""

    def _expected(self, number: int, question: Question) -> tuple[Question, Batch] | None:
        """With plain TensorFlow's answer. What it refuses no candidate is asked."""
        key = f"{self._folder}/edges/{number}"
        try:
            return question, Batch(key, question.feeds, self._reference.run(self._signature, key, question.feeds))
        except WorkerFailed as error:
            if error.died:
                raise
            return None


def misread(candidate: Candidate, made_up: Sequence[Batch], gate: verify.Gate) -> str:
    """What it gets wrong of requests that no record is like. One that it declines goes to plain TensorFlow."""
    for batch in made_up:
        found = answer(candidate, batch)
        if found is not None and (reason := verify.check(batch.expected, found, gate).reason):
            return f"Examples with other features than the records': {reason}"
    return ""


def answer(candidate: Candidate, batch: Batch) -> Arrays | None:
    """None where it declines: plain TensorFlow answers that."""
    try:
        return candidate.worker.run(candidate.budget, candidate.name, batch.key, batch.feeds)
    except WorkerFailed as error:
        if error.kind == Declined.__name__:
            return None
        raise

"""Which of a stream of requests become warmup records, and their logs. Pure: who has the stream is elsewhere.

    collection = Collection(count=100, every=10)
    if collection.wanted(request): collection.add(request)
    records.write(path, collection.logs("m"))

The first request of every new shape is wanted, then every `every`-th, of one shape at most PER_SHAPE; the same bytes
are kept once. So a rare batch size gets its record, and a frequent one has enough values to check an engine on.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from tfopt_protos import messages

from tfopt_warmup.records import CLASSIFY, PREDICT, REGRESS, predict_log

PER_SHAPE = 64
Array = np.ndarray[Any, Any]
Look = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A request that was answered. `kind` as records name it; a classify or regress request has one input, serialized
    tf.Examples. `outputs` None: all of them."""

    kind: str
    signature: str
    feeds: Mapping[str, Array]
    outputs: Sequence[str] | None = None

    def look(self) -> Look:
        """What requests of one shape have in common."""
        shapes = ((name, array.dtype.str, array.shape) for name, array in sorted(self.feeds.items()))
        return (self.kind, self.signature, *shapes)

    def digest(self) -> bytes:
        """Equal for requests of the same values."""
        found = hashlib.blake2b(repr((self.look(), tuple(self.outputs or ()))).encode(), digest_size=16)
        for _, array in sorted(self.feeds.items()):
            if array.dtype == object:
                for value in array.ravel():
                    found.update(len(value).to_bytes(8, "little") + value)
            else:
                found.update(np.ascontiguousarray(array).data)
        return found.digest()

    def log(self, model: str) -> Any:
        """Its PredictionLog."""
        if self.kind not in (CLASSIFY, REGRESS):
            log = predict_log(model, self.signature, self.feeds)
            log.predict_log.request.output_filter.extend(self.outputs or ())
            return log
        log = messages.PredictionLog()
        request = (log.classify_log if self.kind == CLASSIFY else log.regress_log).request
        request.model_spec.name, request.model_spec.signature_name = model, self.signature
        (examples,) = self.feeds.values()
        for each in examples.ravel():
            request.input.example_list.examples.add().ParseFromString(each)
        return log


class Collection:
    """At most `count` requests. Not locked."""

    def __init__(self, count: int, every: int = 1) -> None:
        self._count, self._every = count, every
        self._seen = 0
        self._shapes: Counter[Look] = Counter()
        self._digests: set[bytes] = set()
        self.asked: list[Asked] = []

    @property
    def complete(self) -> bool:
        return len(self.asked) >= self._count

    def wanted(self, asked: Asked) -> bool:
        """Whether to add it, by its shape and its turn; looks at no values."""
        self._seen += 1
        kept = self._shapes[asked.look()]
        return not self.complete and kept < PER_SHAPE and (kept == 0 or self._seen % self._every == 0)

    def add(self, asked: Asked) -> bool:
        """False for one that is there already, or too much."""
        digest = asked.digest()
        if self.complete or digest in self._digests:
            return False
        self._digests.add(digest)
        self._shapes[asked.look()] += 1
        self.asked.append(asked)
        return True

    def logs(self, model: str) -> Iterator[Any]:
        return (asked.log(model) for asked in self.asked)


KINDS = {"Classify": CLASSIFY, "Regress": REGRESS}


def kind_of(api: str) -> str:
    """The kind of a request by the method that TensorFlow Serving's metrics name; PREDICT for all others."""
    return KINDS.get(api, PREDICT)

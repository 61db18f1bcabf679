"""Answers that are remembered by the exact bytes of their inputs: --response_cache_bytes. Off by default.

    cache = ResponseCache(metrics, limit=2**28, ttl_s=60.0)
    start = cache.around(start)

A key is model, loaded version, signature, outputs asked for, and every input's name, dtype, shape and bytes. Least
recently used entries go first. Signatures that draw random numbers or read files are never cached, nor any of a model
that writes state: which those are is read from the SavedModel's graph on a thread, and nothing is cached before it is
known. A version that is loaded anew, or whose plan is swapped in, begins empty. Errors are not remembered.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tfopt_warmup.recording import Asked, kind_of

from tfopt_server.metrics import Metrics
from tfopt_server.registry import Handle, Loaded
from tfopt_server.rows import Arrays, Feeds
from tfopt_server.tasks import Result, Timings

log = logging.getLogger(__name__)

EXPLAIN = "Explain"  # thousands of rows that nobody asks for again
LARGEST_SHARE = 0.25  # of the room, for one answer
# What an answer takes besides its values, measured: without them a flag of 1 GB would let small answers take 50.
ENTRY_BYTES = 512
ARRAY_BYTES = 128
_OBJECT_BYTES = 60  # of a bytes object besides its content
_AT_ONCE = Timings(0.0, 0.0, 0.0, 0.0, 0)
Start = Callable[..., Result | Future[Result]]


def cacheable(folder: Path, tags: Sequence[str]) -> frozenset[str]:
    """The signatures whose answers depend on nothing but their inputs. SavedModelError, OSError."""
    from tfopt_optimizer import saved_model

    states = {key: s for key, s in saved_model.states(folder, tags).items() if saved_model.is_callable(key)}
    if any(state.writes for state in states.values()):
        return frozenset()
    return frozenset(key for key, state in states.items() if not state.random and not state.reads)


class _Entry(NamedTuple):
    outputs: Arrays
    size: int
    expires: float


class _Version:
    """A loaded version as the cache knows it; `signatures` None until it is known which may be cached."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = weakref.ref(loaded)
        self.signatures: Collection[str] | None = None


class _Store:
    """One model's answers, by version and digest; the least recently used first."""

    def __init__(self) -> None:
        self.entries: OrderedDict[tuple[_Version, bytes], _Entry] = OrderedDict()
        self.versions: dict[int, _Version] = {}
        self.bytes = 0

    def drop(self, key: tuple[_Version, bytes]) -> None:
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def drop_versions(self) -> None:
        """What belongs to versions that are gone or were replaced."""
        alive = {version for version in self.versions.values() if version.loaded() is not None}
        for key in [key for key in self.entries if key[0] not in alive]:
            self.drop(key)


class ResponseCache:
    """`limit`: bytes per model; `models`: those to cache, all when empty."""

    def __init__(
        self,
        metrics: Metrics,
        limit: int,
        ttl_s: float,
        *,
        models: Collection[str] = (),
        tags: Sequence[str] = ("serve",),
        look: Callable[[Path, Sequence[str]], Collection[str]] = cacheable,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._metrics, self._limit, self._ttl_s, self._models = metrics, limit, ttl_s, models
        self._tags, self._look, self._clock = tags, look, clock
        self._stores: dict[str, _Store] = {}
        self._lock = threading.Lock()

    def around(self, inner: Start) -> Start:
        """`inner`, asked only for what is not remembered."""

        def start(  # noqa: PLR0917 - as Dataplane.start
            handle: Handle, signature: str, feeds: Feeds, outputs: Sequence[str] | None = None,
            deadline: float | None = None, face: str = "REST", *, api: str = "Predict",
        ) -> Result | Future[Result]:  # fmt: skip
            version = self._version(handle)
            if version is None or signature not in (version.signatures or ()) or api == EXPLAIN:
                return inner(handle, signature, feeds, outputs, deadline, face, api=api)
            key = version, Asked(kind_of(api), signature, feeds, outputs).digest()
            found = self._found(handle.name, key)
            if found is not None:
                return Result(found, _AT_ONCE)
            result = inner(handle, signature, feeds, outputs, deadline, face, api=api)
            if isinstance(result, Future):
                result.add_done_callback(lambda done: self._answered(handle.name, key, done))
            else:
                self._keep(handle.name, key, result)
            return result

        return start

    def _version(self, handle: Handle) -> _Version | None:
        """What is known of the handle's version; None for a model that is not cached."""
        if self._models and handle.name not in self._models:
            return None
        store = self._stores.get(handle.name)
        version = None if store is None else store.versions.get(handle.version)
        if version is None or version.loaded() is not handle.loaded:
            version = self._new(handle)
        return version

    def _new(self, handle: Handle) -> _Version:
        with self._lock:
            store = self._stores.setdefault(handle.name, _Store())
            version = store.versions.get(handle.version)
            if version is not None and version.loaded() is handle.loaded:
                return version
            version = store.versions[handle.version] = _Version(handle.loaded)
            store.drop_versions()
            self._measure(handle.name, store)
        threading.Thread(target=self._learn, args=(handle, version), name="tfopt-cache", daemon=True).start()
        return version

    def _learn(self, handle: Handle, version: _Version) -> None:
        try:
            version.signatures = frozenset(self._look(handle.folder, self._tags))
        except Exception as error:
            version.signatures = frozenset()
            log.warning("answers of %s are not cached: %s", handle.folder, error, extra={"model": handle.name})
            return
        left_out = sorted(handle.lanes.keys() - version.signatures)
        if left_out:
            log.info("answers are not cached where they depend on more than the request: %s", ", ".join(left_out),
                     extra={"model": handle.name, "version": handle.version})  # fmt: skip

    def _found(self, model: str, key: tuple[_Version, bytes]) -> Arrays | None:
        store = self._stores[model]
        with self._lock:
            entry = store.entries.get(key)
            if entry is not None and entry.expires <= self._clock():
                store.drop(key)
                entry = None
            if entry is not None:
                store.entries.move_to_end(key)
        self._metrics.cached.labels(model, "miss" if entry is None else "hit").inc()
        return None if entry is None else entry.outputs

    def _answered(self, model: str, key: tuple[_Version, bytes], done: Future[Result]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._keep(model, key, done.result())

    def _keep(self, model: str, key: tuple[_Version, bytes], result: Result) -> None:
        size = ENTRY_BYTES + sum(map(_size, result.outputs.values()))
        if size > self._limit * LARGEST_SHARE:
            return
        entry = _Entry({n: _copy(a) for n, a in result.outputs.items()}, size, self._clock() + self._ttl_s)
        store = self._stores[model]
        with self._lock:
            if key[0] not in store.versions.values():  # replaced while it ran
                return
            store.drop(key)
            store.entries[key] = entry
            store.bytes += size
            while store.bytes > self._limit:
                store.drop(next(iter(store.entries)))
            self._measure(model, store)

    def _measure(self, model: str, store: _Store) -> None:
        self._metrics.cached_bytes.labels(model).set(store.bytes)


def _size(array: np.ndarray) -> int:
    if array.dtype == object:
        return ARRAY_BYTES + array.nbytes + sum(len(value) + _OBJECT_BYTES for value in array.ravel())
    return ARRAY_BYTES + array.nbytes


def _copy(array: np.ndarray) -> np.ndarray:
    """Of its own, because an output may be a view into a batch of many; nobody may change it."""
    found = array.copy()
    found.flags.writeable = False
    return found

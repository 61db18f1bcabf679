"""The litert engine: a LiteRT (TensorFlow Lite) model on the stand-alone ai-edge-litert runtime, without TensorFlow.

One model file per signature serves every bucket: its batch dimension is unknown, and an interpreter is resized to a
bucket's shapes when it takes over from another bucket (2 us for a small MLP, 35 us with 27 inputs, 0.2 ms for a
MobileNet; static models are no faster). So the weights are on disk once, mapped into memory, and packed once per
interpreter. Where the converter needs static shapes, a bucket has a model file of its own (litert_convert.py).

Variants are thread counts: `t1`, and `t<usable cores>` where there are several; with `s<number>` (table.py) a batch
runs in as many parts, side by side on interpreters of one thread each. `t2+int8-dynamic` is one in another precision, a
model of its own that litert_compress.py made of the float one. Measured on 2 cores with AVX-512 (plain TensorFlow
beside it): small MLP 2 us, and 3.5 us with 2 threads (266 us); 26 string look-ups 400 and 255 us (1868 us); MobileNetV2
6.5 and 3.5 ms (19.8 ms). `invoke` releases the GIL: another thread keeps its full speed meanwhile.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, cast

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer import cpu
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target, own_bytes
from tfopt_optimizer.engines.pool import Pool
from tfopt_optimizer.errors import Declined, EngineError, NeedsConversion, NotLowerable, first_line
from tfopt_optimizer.plan import SignatureInfo

MODEL = "model.tflite"
FOLDER = "litert"  # beside the buckets' folders: s0/litert for all of them, s0/litert-b8 for one alone
_FAILURES = (RuntimeError, ValueError)  # all that the interpreter raises


def threads(variant: str) -> int:
    """2 for "t2", "t2+int8-dynamic" and "s2"."""
    return int(variant.partition("+")[0][1:])


def in_parts(variant: str) -> bool:
    return variant.startswith("s")


def precision(variant: str) -> str:
    """ "int8-dynamic" for "t2+int8-dynamic", "" for "t2"."""
    return variant.partition("+")[2]


def shared_folder(target: Target) -> str:
    """Where the float model for all shapes of a signature lies, relative to the plan: "s0/litert" for "s0/b8"; for one
    length where the graph has that pinned: "s0/litert-64" for "s0/b8x64"."""
    folder = Path(target.folder)
    length = folder.name.partition("x")[2] if target.source else ""
    return (folder.parent / (f"{FOLDER}-{length}" if length else FOLDER)).as_posix()


def own_folder(target: Target) -> str:
    """Where a float model for the target's shapes alone lies: "s0/litert-b8" for "s0/b8"."""
    folder = Path(target.folder)
    return (folder.parent / f"{FOLDER}-{folder.name}").as_posix()


def folders(target: Target) -> tuple[str, str]:
    """Where a model of the target's precision may lie: for its shapes alone, and for all."""
    suffix = f"-{precision(target.variant)}" if precision(target.variant) else ""
    return own_folder(target) + suffix, shared_folder(target) + suffix


class Session:
    """One interpreter: for one call at a time."""

    def __init__(self, model: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter: Any = Interpreter(model_path=str(model), num_threads=threads)
        signatures = self._interpreter._get_full_signature_list()
        if len(signatures) != 1:
            raise NotLowerable(f"the LiteRT model has {len(signatures)} signatures instead of one")
        (names,) = signatures.values()
        self.inputs: tuple[tuple[str, int], ...] = tuple(names["inputs"].items())
        self.outputs: tuple[tuple[str, int], ...] = tuple(names["outputs"].items())
        self.key: Hashable = None

    def fit(self, key: Hashable, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Plans memory for these input shapes. RuntimeError or ValueError when an operation does not take them."""
        for name, index in self.inputs:
            self._interpreter.resize_tensor_input(index, shapes[name])
        self._interpreter.allocate_tensors()
        self.key = key

    def run(self, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        interpreter = self._interpreter
        for name, index in self.inputs:
            interpreter.set_tensor(index, feeds[name])
        interpreter.invoke()
        get = interpreter.get_tensor
        return {name: get(index) for name, index in self.outputs if not outputs or name in outputs}


class Team:
    """As many sessions of one thread, each for a part of a batch's rows: for one call at a time."""

    def __init__(self, model: Path, number: int) -> None:
        self._sessions = [Session(model, 1) for _ in range(number)]
        self._helpers = ThreadPoolExecutor(number - 1, "tfopt-litert")
        self._ends: tuple[int, ...] = ()
        self.key: Hashable = None

    def fit(self, key: Hashable, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """ValueError where inputs do not share their rows, or are fewer than the sessions."""
        counts, number = {shape[:1] for shape in shapes.values()}, len(self._sessions)
        if len(counts) != 1 or min(counts) < (number,):
            raise ValueError(f"inputs of shapes {sorted(shapes.values())} are not cut into {number} parts")
        ((rows,),) = counts
        self._ends = tuple(rows * (i + 1) // number for i in range(number))
        for session, (start, stop) in zip(self._sessions, self._spans(), strict=True):
            session.fit(key, {name: (stop - start, *shape[1:]) for name, shape in shapes.items()})
        self.key = key

    def _spans(self) -> Iterable[tuple[int, int]]:
        return itertools.pairwise((0, *self._ends))

    def run(self, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        parts = [{name: array[start:stop] for name, array in feeds.items()} for start, stop in self._spans()]
        others = [
            self._helpers.submit(session.run, part, outputs)
            for session, part in zip(self._sessions[1:], parts[1:], strict=True)
        ]
        try:
            first = self._sessions[0].run(parts[0], outputs)
        finally:
            wait(others)  # one that still runs would meet the next call
        found = [first, *(other.result() for other in others)]
        return {name: np.concatenate([part[name] for part in found]) for name in first}


class Models:
    """The models of one plan. All buckets of a model file and thread count share their sessions.

    As many calls run at a time as their threads fit on the cores: with more, every call slows the others down.
    """

    def __init__(self, plan_dir: Path) -> None:
        self._plan_dir = plan_dir
        self._sessions: dict[tuple[str, str], Pool[Any]] = {}

    def runner(self, target: Target) -> Runner:
        """For the model in `target.folder`. OSError without it, NotLowerable when the runtime does not take it."""
        assert target.shapes is not None
        runner = self._runner(target.folder, target.variant, target.shapes)
        if target.rows == 1 and not answers(runner, target.shapes, target.signature):
            shapes = {name: (2, *shape[1:]) for name, shape in target.shapes.items()}
            twice = TwoRows(self._runner(target.folder, target.variant, shapes))
            if answers(twice, target.shapes, target.signature):
                return twice
        return runner

    def _runner(self, folder: str, variant: str, shapes: Mapping[str, tuple[int, ...]]) -> LitertRunner:
        path, count = self._plan_dir / folder / MODEL, threads(variant)
        path.stat()  # if it is missing, the error names it
        if (folder, variant) not in self._sessions:
            limit = max(1, cpu.usable_cores() // count)
            make = Team if in_parts(variant) else Session
            self._sessions[folder, variant] = Pool(lambda: make(path, count), limit)
        runner = LitertRunner(self._sessions[folder, variant], shapes)
        try:
            runner.give_back(runner.take())
        except _FAILURES as error:
            raise NotLowerable(f"the LiteRT runtime does not take it: {first_line(error)}") from error
        return runner


class LitertRunner:
    """Runs a model on feeds of exactly its shapes and dtypes: the caller pads and checks."""

    def __init__(self, sessions: Pool[Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._sessions, self._shapes = sessions, dict(shapes)
        self._key = tuple(sorted(self._shapes.items()))

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        session: Any = self._sessions.take(self._key)
        try:
            if session.key != self._key:
                session.fit(self._key, self._shapes)
            return cast(Arrays, session.run(feeds, outputs))
        except _FAILURES as error:
            # What the types and shapes do not rule out depends on values (an index out of range): TensorFlow has the
            # text for it.
            raise Declined("INVALID_ARGUMENT", f"LiteRT: {first_line(error)}") from error
        finally:
            self.give_back(session)

    def take(self) -> Any:
        """A session for these shapes."""
        session = self._sessions.take(self._key)
        try:
            if session.key != self._key:
                session.fit(self._key, self._shapes)
        except BaseException:
            self._sessions.drop()
            raise
        return session

    def give_back(self, session: Any) -> None:
        self._sessions.give(session.key, session)

    def close(self) -> None:
        self._sessions.clear()


class TwoRows:
    """Runs one row as two equal ones.

    LiteRT's SELECT_V2 makes a scalar of operands with one element each whose shapes come about while it runs (those of
    a table look-up, say: every Keras StringLookup before an Embedding), and what needs the lost dimension fails.
    """

    def __init__(self, runner: LitertRunner) -> None:
        self._runner = runner

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        found = self._runner({name: np.repeat(array, 2, axis=0) for name, array in feeds.items()}, outputs)
        return {name: array[:1] for name, array in found.items()}

    def close(self) -> None:
        self._runner.close()


def answers(runner: Runner, shapes: Mapping[str, tuple[int, ...]], signature: SignatureInfo) -> bool:
    """Whether a call on zeros and empty strings gives outputs with all their dimensions."""
    types = {t.name: dtypes.to_numpy(t.dtype) for t in signature.inputs}
    feeds = {n: np.full(s, b"", object) if types[n] == np.object_ else np.zeros(s, types[n]) for n, s in shapes.items()}
    try:
        found = runner(feeds)
    except EngineError:
        return False
    return all(t.shape is None or found[t.name].ndim == len(t.shape) for t in signature.outputs)


class Opener:
    """Opens the runners of a finished plan."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._models = Models(place.plan_dir)

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        """`target.folder` is the plan's artifact."""
        return self._models.runner(target)


class Worker:
    """The engine in a worker process of the optimizer."""

    def open(self, place: Place) -> Mapping[str, str]:
        import ai_edge_litert.interpreter  # noqa: F401 - fails here, not in the first contest

        self._plan_dir, self._models = place.plan_dir, Models(place.plan_dir)
        self._runners: dict[tuple[str, str], Runner] = {}
        return {"litert": ""}

    def prepare(self, target: Target) -> Prepared:
        started, before = time.perf_counter(), own_bytes()
        there = [f for f in folders(target) if (self._plan_dir / f / MODEL).exists()]
        if not there:
            raise NeedsConversion("there is no LiteRT model yet")
        runner = self._models.runner(dataclasses.replace(target, folder=there[0]))
        self._runners[target.folder, target.variant] = runner
        return Prepared(time.perf_counter() - started, max(0, own_bytes() - before), there[0])

    def runner(self, target: Target) -> Runner:
        return self._runners[target.folder, target.variant]

    def release(self, target: Target) -> None:
        """Sessions are shared by the buckets; only the runner goes."""
        self._runners.pop((target.folder, target.variant), None)

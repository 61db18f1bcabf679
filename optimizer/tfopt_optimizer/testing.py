"""Engines that misbehave on purpose, to test the tournament: each is an Entrant for a worker process of its own.

They compute y = x / 2 + 2 (the model that TensorFlow Serving tests with) in numpy: they start without TensorFlow.

    optimize(job, print, entrants=[planted("Right"), planted("Crashes")])
"""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np
from tfopt_protos import messages

from tfopt_optimizer import frames
from tfopt_optimizer.engines import tensorflow
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.errors import Declined, NeedsConversion, NotLowerable

EARLY = 12  # calls that a check takes at most in these tests


def planted(name: str) -> Entrant:
    """The entrant of a class of this module; its engine is the class name in lower case."""
    return Entrant(name.lower(), "planted", f"{__name__}:{name}")


class Right:
    """The right answer, at once."""

    def open(self, place: Place) -> Mapping[str, str]:
        return {"planted": ""}

    def prepare(self, target: Target) -> Prepared:
        return Prepared(compile_s=0.0, memory_bytes=0)

    def runner(self, target: Target) -> Runner:
        return _Runner(self)

    def release(self, target: Target) -> None:
        """Nothing is held."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        y: np.ndarray = x / np.float32(2) + np.float32(2)
        return y


class _Runner:
    def __init__(self, engine: Right) -> None:
        self._engine = engine

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        return {"y": self._engine.answer(feeds["x"])}

    def close(self) -> None:
        """Nothing is held."""


class RightExamples(Right):
    """x lies in serialized Examples, with a bonus that few clients send; none is 0."""

    read: tuple[str, ...] = ("x", "bonus")

    def answer(self, x: np.ndarray) -> np.ndarray:
        found = np.zeros((len(x), 2), np.float32)
        for row, value in enumerate(x):
            feature = messages.message("tensorflow.Example").FromString(value).features.feature
            for column, name in enumerate(self.read):
                found[row, column] = feature[name].float_list.value[0] if feature[name].float_list.value else 0
        return super().answer(found[:, 0]) + found[:, 1]


class Forgetful(RightExamples):
    """Has never heard of the bonus."""

    read = ("x",)


class Declining(Forgetful):
    """Knows that there is something that it does not know."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        if any(b"bonus" in value for value in x):
            raise Declined("INVALID_ARGUMENT", "there is a bonus")
        return super().answer(x)


class OneScale:
    """TensorFlow's own answers in 8 bits with one scale per output, as a converter may keep them: what is small beside
    the largest value is lost."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._model = tensorflow.open_any(place)
        return {"planted": ""}

    def prepare(self, target: Target) -> Prepared:
        return Prepared()

    def runner(self, target: Target) -> Runner:
        return _Changed(self._model.runner(target.signature), self.changed)

    def release(self, target: Target) -> None:
        """Nothing is held."""

    def changed(self, array: np.ndarray) -> np.ndarray:
        scale = np.abs(array).max() / np.float32(127)
        found: np.ndarray = np.round(array / scale) * scale
        return found


class ScaleOfEachColumn(OneScale):
    """8 bits with a scale for each place along the last axis, as a good converter keeps them."""

    def changed(self, array: np.ndarray) -> np.ndarray:
        scale = np.abs(array).max(axis=tuple(range(array.ndim - 1)), keepdims=True) / np.float32(127)
        found: np.ndarray = np.round(array / scale) * scale
        return found


class OverConfident(OneScale):
    """Exact, but for 0.09 more in all columns after the fourth: the scores beside a box."""

    def changed(self, array: np.ndarray) -> np.ndarray:
        found: np.ndarray = array + np.float32(0.09) * (np.arange(array.shape[-1]) > 3)
        return found


class _Changed:
    def __init__(self, runner: Runner, change: Callable[[np.ndarray], np.ndarray]) -> None:
        self._runner, self._change = runner, change

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        return {n: self._change(a).astype(a.dtype) for n, a in self._runner(feeds, outputs).items()}

    def close(self) -> None:
        """The model is its worker's."""


class Unconverted(Right):
    """Asks for its converter, and takes nothing else."""

    def prepare(self, target: Target) -> Prepared:
        raise NeedsConversion("there is no file yet")


class Nan(Right):
    """One value is not a number, as LiteRT answers for BERT."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        y = super().answer(x)
        y[-1] = np.nan
        return y


class NoneOfZero(Right):
    """No number where all of a row is 0, as LiteRT had for an empty mask."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        nothing = (x == 0).all(axis=-1, keepdims=True)
        return np.where(nothing, np.float32(np.nan), super().answer(x))


class NoneBeyond(Right):
    """Infinite from 89 on, as LiteRT's softplus was."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        return np.where(x >= 89, np.float32(np.inf), super().answer(x))


class OffByTwoPercent(Right):
    """Every value is 2 % too large."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        return super().answer(x) * np.float32(1.02)


class OffByHalfAPercent(Right):
    """Every value is 0.5 % too large: no single error is large, the mean is."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        return super().answer(x) * np.float32(1.005)


class Close(Right):
    """One value in 200 is 0.5 % too large, as after a good quantization."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        y = super().answer(x)
        y.flat[::200] *= np.float32(1.005)
        return y


class Leaks(Right):
    """The largest row lends a little to all of them, once it is large: padding would change the answer."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        leak: np.float32 = np.maximum(x.max() - np.float32(1), np.float32(0))
        y: np.ndarray = super().answer(x) + leak
        return y


class Slow(Right):
    """Right, and slower than plain TensorFlow."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return super().answer(x)


class Crashes(Right):
    """Dies as a compiler does."""

    def prepare(self, target: Target) -> Prepared:
        os.kill(os.getpid(), signal.SIGSEGV)
        return super().prepare(target)


class CrashesLater(Right):
    """Right in its check, and dies while it is measured."""

    calls = 0

    def late(self) -> bool:
        self.calls += 1
        return self.calls > EARLY

    def answer(self, x: np.ndarray) -> np.ndarray:
        if self.late():
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().answer(x)


class HangsLater(CrashesLater):
    """Right in its check, and does not come back from a call while it is measured."""

    def answer(self, x: np.ndarray) -> np.ndarray:
        if self.late():
            time.sleep(3600)
        return Right.answer(self, x)


class Hangs(Right):
    """Never comes back from compiling."""

    def prepare(self, target: Target) -> Prepared:
        time.sleep(3600)
        return super().prepare(target)


class CrashesAtTheEnd(Right):
    """Right and measured, and dies when it is to let go of its model."""

    def release(self, target: Target) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)


class HangsAtTheEnd(Right):
    """Right and measured, and never lets go of its model."""

    def release(self, target: Target) -> None:
        time.sleep(3600)


class FillsTheDisk(Right):
    """Finds no space for what it writes."""

    def prepare(self, target: Target) -> Prepared:
        with open("/dev/full", "wb") as file:
            file.write(b"weights")
        return super().prepare(target)


class StopsWhileItAnswers(Right):
    """Once prepared, its process stops in the middle of its next answer, as one does that is being swapped out."""

    def prepare(self, target: Target) -> Prepared:
        frames.write = _write_half
        return super().prepare(target)


class StopsWhileItListens(Right):
    """Its process stops before it reads what it is asked next."""

    def prepare(self, target: Target) -> Prepared:
        frames.read = _stop
        return super().prepare(target)


class ClosesItsPipes(Right):
    """Its engine closes what is not its own, and goes on."""

    def prepare(self, target: Target) -> Prepared:
        os.closerange(3, 256)
        time.sleep(3600)
        return super().prepare(target)


_whole = frames.write


def _write_half(stream: IO[bytes], message: Any) -> None:
    kept = io.BytesIO()
    _whole(kept, message)
    stream.write(kept.getvalue()[: len(kept.getvalue()) // 2])
    stream.flush()
    _stop(stream)


def _stop(stream: IO[bytes]) -> Any:
    os.kill(os.getpid(), signal.SIGSTOP)


class Refuses(Right):
    """Knows that it cannot take the signature."""

    def prepare(self, target: Target) -> Prepared:
        raise NotLowerable("operation Foo has no kernel")


class HangsAtTheStart(Right):
    """Its engine does not come back from being imported."""

    def open(self, place: Place) -> Mapping[str, str]:
        time.sleep(3600)
        return super().open(place)


class NeverStarts(Right):
    """Its engine is not installed."""

    def open(self, place: Place) -> Mapping[str, str]:
        raise ModuleNotFoundError("No module named 'foo'")

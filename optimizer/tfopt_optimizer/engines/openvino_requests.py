"""The openvino engine's calls: infer requests with buffers of their own, alone or as parts that run side by side."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.engines.base import Arrays, Feeds
from tfopt_optimizer.engines.limits import Within
from tfopt_optimizer.engines.pool import Pool
from tfopt_optimizer.errors import Declined

Shapes = Mapping[str, tuple[int, ...]]


class Request:
    """An infer request with input buffers of its own: for one call at a time. `names`: of the signature's outputs; a
    tensor may have others (of an operation whose sum with zeros was left out)."""

    def __init__(self, openvino: Any, compiled: Any, shapes: Shapes, within: Within, names: frozenset[str]) -> None:
        self._within = within
        self._openvino, self._request = openvino, compiled.create_infer_request()
        self._types = {port.any_name: port.element_type for port in compiled.inputs}
        self._inputs = {name: self._buffer(index, name, shapes[name]) for index, name in enumerate(self._types)}
        self._outputs = [
            (i, name) for i, port in enumerate(compiled.outputs) for name in sorted(port.get_names() & names)
        ]

    def run(self, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        self.fill(feeds)
        self._request.infer(share_outputs=True)
        return {name: array.copy() for name, array in self.found(outputs).items()}

    def fill(self, feeds: Feeds) -> None:
        self._within(feeds)
        for index, (name, buffer) in enumerate(self._inputs.items()):
            array = feeds[name]
            if buffer.shape != array.shape:  # of an open model; another refuses it
                self._inputs[name] = self._buffer(index, name, array.shape)
            self._inputs[name][...] = array

    def _buffer(self, index: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
        tensor = self._openvino.Tensor(self._types[name], self._openvino.Shape(shape))
        self._request.set_input_tensor(index, tensor)
        found: np.ndarray = tensor.data
        return found

    def start(self) -> None:
        self._request.start_async()

    def wait(self) -> None:
        self._request.wait()

    def found(self, outputs: Sequence[str] | None) -> Arrays:
        """Views of the outputs: good until the next run."""
        tensor = self._request.get_output_tensor
        return {name: tensor(index).data for index, name in self._outputs if not outputs or name in outputs}


class Team:
    """Requests that run parts of a batch at the same time, each on a stream: equal ones, where its rows are no fewer
    than those that it was made for."""

    def __init__(self, make: Callable[[], Request], number: int) -> None:
        self._members = [make() for _ in range(number)]

    def run(self, feeds: Feeds, outputs: Sequence[str] | None) -> Arrays:
        rows = next(iter(feeds.values())).shape[0]
        number = min(rows, len(self._members))
        ends = [rows * part // number for part in range(number + 1)]
        parts = ({n: a[start:end] for n, a in feeds.items()} for start, end in itertools.pairwise(ends))
        found = [member.found(outputs) for member in self._at_once(parts)]
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def each(self, calls: Sequence[Feeds], outputs: Sequence[str] | None) -> list[Arrays]:
        """Answers calls of shapes of their own."""
        answers: list[Arrays] = []
        for start in range(0, len(calls), len(self._members)):
            members = self._at_once(calls[start : start + len(self._members)])
            answers += [{name: a.copy() for name, a in member.found(outputs).items()} for member in members]
        return answers

    def _at_once(self, parts: Iterable[Feeds]) -> list[Request]:
        started: list[Request] = []
        try:
            for part, member in zip(parts, self._members, strict=False):
                member.fill(part)
                member.start()  # works while the next one's part is copied
                started.append(member)
        finally:
            # All are waited for before any failure is told: who still runs would write into buffers of the next call.
            failures = [error for member in started if (error := _waited(member)) is not None]
        if failures:
            raise failures[0]
        return started


def _waited(request: Request) -> RuntimeError | None:
    try:
        request.wait()
    except RuntimeError as error:
        return error
    return None


class OpenvinoRunner:
    """Runs one compiled model. Feeds must have its dtypes and, where it is not open, exactly its shapes: the caller
    pads and checks.

    Calls that come at the same time take turns on the model's threads, which are all the usable cores.
    """

    def __init__(self, requests: Pool[Any]) -> None:
        self._requests = requests
        requests.give(None, requests.take(None))

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        with self._taken() as request:
            found: Arrays = request.run(feeds, outputs)
        return found

    @contextlib.contextmanager
    def _taken(self) -> Iterator[Any]:
        request = self._requests.take(None)
        try:
            yield request
        except RuntimeError as error:
            raise Declined("INTERNAL", f"OpenVINO: {reason(error)}") from error
        finally:
            self._requests.give(None, request)

    def close(self) -> None:
        self._requests.clear()


class RowsRunner(OpenvinoRunner):
    """Runs an open model in single rows, `streams` of them at a time, of whatever shapes."""

    def __init__(self, requests: Pool[Any], streams: int) -> None:
        super().__init__(requests)
        self.streams = streams

    def each(self, calls: Sequence[Feeds], outputs: Sequence[str] | None = None) -> list[Arrays]:
        with self._taken() as team:
            found: list[Arrays] = team.each(calls, outputs)
        return found


def reason(error: BaseException) -> str:
    """The sentence that says what is wrong, out of OpenVINO's many lines."""
    text = str(error)
    missing = re.search(r"No conversion rule found for operations: ([^\n]*)", text)
    if missing:
        return f"OpenVINO has no conversion rule for {missing.group(1).strip()}"
    failed = re.findall(r"^-- (\w+) with a message:\s*([^\n]*)", text, re.MULTILINE)
    if failed:
        return "; ".join(f"{op}: {message}" for op, message in failed)[:300]
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("Exception from")]
    said = [line for line in lines if not re.match(r"Check '.*' failed at", line)]
    return (said or lines or [repr(error)])[0][:300]

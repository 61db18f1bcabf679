"""The onnxruntime engine: ONNX Runtime's CPU kernels, without TensorFlow. It is here for recurrent networks.

One ONNX model per signature serves every bucket: its batch dimension is unknown. Variants are thread counts, as
LiteRT's. A session serves many calls at a time: `t1` computes on the caller's thread. `run` releases the GIL.

Measured on 2 cores with AVX-512, plain TensorFlow beside it: Keras LSTM of 128 units over 64 steps 0.36 ms (2.3), GRU
1.1 ms (2.6), where LiteRT refuses the loop and OpenVINO is no faster than TensorFlow. On dense nets it loses to
OpenVINO and LiteRT (MobileNetV2 x 8: 27 ms against 24; BERT-small x 8: 33 against 23), so it is converted to only where
they fail.
"""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target, own_bytes
from tfopt_optimizer.errors import Declined, NeedsConversion, NotLowerable, first_line

MODEL, META, FOLDER = "model.onnx", "model.json", "onnxruntime"


@dataclasses.dataclass(frozen=True)
class Meta:
    """The signature's names -> the model's."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


def folder(target: Target) -> str:
    """Where the model of a signature lies, relative to the plan: "s0/onnxruntime" for "s0/b8"."""
    return (Path(target.folder).parent / FOLDER).as_posix()


def write_meta(place: Path, meta: Meta) -> None:
    (place / META).write_text(json.dumps(dataclasses.asdict(meta), indent=1))


def read_meta(place: Path) -> Meta:
    data = json.loads((place / META).read_text())
    return Meta(data["inputs"], data["outputs"])


class OnnxRunner:
    """Runs a model on feeds of the signature's dtypes: the caller pads and checks."""

    def __init__(self, session: Any, meta: Meta) -> None:
        self._session = session
        there = {i.name for i in session.get_inputs()}  # inputs that nothing depends on are gone from the model
        self._inputs = [(name, tensor) for name, tensor in meta.inputs.items() if tensor in there]
        self._outputs = dict(meta.outputs)
        self._all = list(meta.outputs.values())

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        names = [n for n in self._outputs if not outputs or n in outputs]
        wanted = self._all if len(names) == len(self._all) else [self._outputs[n] for n in names]
        try:
            found = self._session.run(wanted, {tensor: feeds[name] for name, tensor in self._inputs})
        except Exception as error:
            # ONNX Runtime's errors share no class. For what depends on values, such as an index out of range,
            # TensorFlow has the text.
            raise Declined("INVALID_ARGUMENT", f"ONNX Runtime: {reason(error)}") from error
        return dict(zip(names, found, strict=True))

    def close(self) -> None:
        """The session is shared by the buckets."""


class Models:
    """The sessions of one plan: one per model and thread count."""

    def __init__(self, plan_dir: Path) -> None:
        import onnxruntime

        self._library, self._plan_dir = onnxruntime, plan_dir
        self._sessions: dict[tuple[str, str], Any] = {}

    def runner(self, folder: str, variant: str) -> Runner:
        """OSError without the files, NotLowerable when ONNX Runtime does not take the model."""
        place = self._plan_dir / folder
        meta = read_meta(place)
        (place / MODEL).stat()  # if it is missing, the error names it
        if (folder, variant) not in self._sessions:
            self._sessions[folder, variant] = self._session(place / MODEL, int(variant.removeprefix("t")))
        return OnnxRunner(self._sessions[folder, variant], meta)

    def _session(self, model: Path, threads: int) -> Any:
        options = self._library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors
        try:
            return self._library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors share no class
            raise NotLowerable(f"ONNX Runtime does not take it: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The sentence that says what is wrong: "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : ..." without its prefix."""
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))[:300]


class Opener:
    """Opens the runners of a finished plan, without TensorFlow and without ONNX's own package."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._models = Models(place.plan_dir)

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        """`target.folder` is the plan's artifact. NotLowerable or OSError when it does not load."""
        return self._models.runner(target.folder, target.variant)


class Worker:
    """The engine in a worker process of the optimizer."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._plan_dir, self._models = place.plan_dir, Models(place.plan_dir)
        self._runners: dict[tuple[str, str], Runner] = {}
        return {"onnxruntime": ""}

    def prepare(self, target: Target) -> Prepared:
        started, before = time.perf_counter(), own_bytes()
        place = folder(target)
        if not (self._plan_dir / place / MODEL).exists():
            raise NeedsConversion("there is no ONNX model yet")
        self._runners[target.folder, target.variant] = self._models.runner(place, target.variant)
        memory = max(0, own_bytes() - before)
        return Prepared(time.perf_counter() - started, memory, place, any_rows=target.open)

    def runner(self, target: Target) -> Runner:
        return self._runners[target.folder, target.variant]

    def release(self, target: Target) -> None:
        """Sessions are shared by the buckets; only the runner goes."""
        self._runners.pop((target.folder, target.variant), None)

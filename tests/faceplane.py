"""A dataplane for the faces' tests: models are numpy functions, no threads unless a model asks for one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tfopt_optimizer.plan import Plan, SignatureInfo, TensorInfo
from tfopt_protos import dtypes, messages, tensors
from tfopt_server import settings
from tfopt_server.dataplane import ModelSpec, Optimized
from tfopt_server.errors import Code, ServingError, invalid, not_found
from tfopt_server.lifecycle import State
from tfopt_server.metrics import Metrics, Steps

Arrays = dict[str, np.ndarray]


def configured(*argv: str, **environ: str) -> settings.Settings:
    """Settings for a model called "m", as `tfopt serve` would parse them."""
    return settings.parse(["--model_name=m", "--model_base_path=/models/m", *argv], environ)[0]


@dataclass(frozen=True)
class Signature:
    """`function` gets the feeds as keywords and returns the outputs. `later`: it runs on a thread of its own."""

    info: SignatureInfo
    function: Callable[..., Arrays]
    defaults: Mapping[str, np.ndarray] = field(default_factory=dict)
    later: bool = False

    def proto(self) -> Any:
        proto = messages.SignatureDef(method_name=self.info.method_name)
        for infos, into in ((self.info.inputs, proto.inputs), (self.info.outputs, proto.outputs)):
            for each in infos:
                into[each.name].name = each.tensor
                into[each.name].dtype = dtypes.number(each.dtype)
                for size in each.shape or ():
                    into[each.name].tensor_shape.dim.add(size=-1 if size is None else size)
        for name, array in self.defaults.items():
            proto.defaults[name].CopyFrom(tensors.from_numpy(array))
        return proto


def signature(
    key: str, function: Callable[..., Arrays], inputs: Mapping[str, str], outputs: Mapping[str, str], **rest: Any
) -> Signature:
    """`inputs` and `outputs`: name to TensorFlow dtype name; every shape is [?] but for those in `scalars`."""
    scalars = rest.pop("scalars", ())
    ins, outs = (
        tuple(TensorInfo(n, dtype, () if n in scalars else (None,), f"{n}:0") for n, dtype in side.items())
        for side in (inputs, outputs)
    )
    defaults = tuple(rest.get("defaults", ()))
    return Signature(SignatureInfo(key, "tensorflow/serving/predict", ins, outs, defaults), function, **rest)


@dataclass(frozen=True)
class Handle:
    name: str
    version: int
    plane: Any = field(repr=False, compare=False)
    folder: Path = Path("/models/m/1")

    def release(self) -> None:
        self.plane.held -= 1

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


@dataclass(frozen=True)
class Result:
    outputs: Arrays


@dataclass(frozen=True)
class Status:
    version: int
    state: State
    code: Code = Code.OK
    message: str = ""


class FakePlane:
    """`models`: (name, version) to signatures. Remembers what ran and how many versions are held."""

    def __init__(self, models: Mapping[tuple[str, int], Sequence[Signature]], labels: Mapping[str, int] | None = None):
        self.models = {key: {s.info.key: s for s in several} for key, several in models.items()}
        self.labels = dict(labels or {})
        self.statuses = {key: Status(key[1], State.AVAILABLE) for key in models}
        self.fit = True
        self.tracing: Any = None
        self.reads_inputs = False
        self.metrics = Metrics()
        self.held = 0
        self.calls: list[tuple[Handle, str, Arrays, Sequence[str] | None, float | None, str]] = []
        self.conversions: dict[tuple[str, int], Any] = {}
        self.all_plans: dict[tuple[str, int], Plan | None] = dict.fromkeys(models)
        self.release = threading.Event()
        self.folder = Path("/models/m/1")
        self.configs: list[Any] = []
        self.on_reload: Callable[[], Any] | None = None
        self.reload_error: ServingError | None = None
        self.reload_outcome: ServingError | str | None = "done"  # None: never
        self.batch = 0  # rows of a batch of any signature; 0: rows depend on each other

    def resolve(self, spec: ModelSpec) -> Handle:
        version = spec.version
        if spec.label is not None:
            if spec.label not in self.labels:
                raise invalid(f"Unrecognized servable version label: {spec.label}")
            version = self.labels[spec.label]
        found = [v for name, v in self.models if name == spec.name and version in (None, v)]
        if not found:
            wanted = f"Latest({spec.name})" if version is None else f"Specific({spec.name}, {version})"
            raise not_found(f"Servable not found for request: {wanted}")
        self.held += 1
        return Handle(spec.name, max(found), self, self.folder)

    def _signatures(self, handle: Handle) -> dict[str, Signature]:
        return self.models[handle.name, handle.version]

    def signature(self, handle: Handle, key: str) -> SignatureInfo | None:
        found = self._signatures(handle).get(key)
        return None if found is None else found.info

    def metadata(self, handle: Handle) -> Mapping[str, Any]:
        return {key: each.proto() for key, each in self._signatures(handle).items()}

    def status(self, name: str, version: int | None = None) -> Sequence[Status]:
        if version is not None:
            if (name, version) not in self.statuses:
                raise not_found(f"Could not find version {version} of model {name}")
            return (self.statuses[name, version],)
        found = sorted((s for (n, _), s in self.statuses.items() if n == name), key=lambda s: -s.version)
        if not found:
            raise not_found(f"Could not find any versions of model {name}")
        return tuple(found)

    def reload(self, config: Any) -> Future[None]:
        if self.reload_error is not None:
            raise self.reload_error
        self.configs.append(config)
        future: Future[None] = Future()
        threading.Thread(target=self._reloaded, args=(future,), daemon=True).start()
        return future

    def _reloaded(self, future: Future[None]) -> None:
        if self.on_reload is not None:
            self.on_reload()
        if isinstance(self.reload_outcome, ServingError):
            future.set_exception(self.reload_outcome)
        elif self.reload_outcome is not None:
            future.set_result(None)

    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, _ in self.models))

    def load(self, name: str, base_path: str = "") -> Future[None]:
        return self.reload(("load", name, base_path))

    def unload(self, name: str) -> Future[None]:
        return self.reload(("unload", name))

    def batch_rows(self, handle: Handle, signature: str) -> int:
        return self.batch

    def steps(self, handle: Handle, signature: str) -> Steps:
        return self.metrics.steps(handle.name, signature)

    def why(self) -> Mapping[tuple[str, int], str]:
        return dict.fromkeys(self.all_plans, "not optimized")

    def plans(self) -> Mapping[tuple[str, int], Plan | None]:
        return self.all_plans

    def optimized(self) -> tuple[Optimized, ...]:
        plans = self.all_plans.items()
        return tuple(Optimized(*key, "not optimized", plan, self.conversions.get(key)) for key, plan in plans)

    def ready(self) -> bool:
        return self.fit

    def start(  # noqa: PLR0917 - as in Dataplane
        self, handle: Handle, signature: str, feeds: Arrays, outputs: Sequence[str] | None = None,
        deadline: float | None = None, face: str = "", *, api: str = "Predict",
    ) -> Result | Future[Result]:  # fmt: skip
        self.calls.append((handle, signature, feeds, outputs, deadline, face))
        found = self._signatures(handle)[signature]

        def run() -> Result:
            made = found.function(**feeds)
            return Result(made if outputs is None else {name: made[name] for name in outputs})

        if not found.later:
            return run()
        future: Future[Result] = Future()
        threading.Thread(target=_fulfil, args=(future, run), daemon=True).start()
        return future


def _fulfil(future: Future[Result], run: Callable[[], Result]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(run())
    except Exception as error:
        future.set_exception(error)


class Busy:
    """A model that is busy: who asks hears UNAVAILABLE, who comes back as told is answered, who comes back too early
    has lost (INVALID_ARGUMENT). For one client at a time."""

    def __init__(self, seconds: float, code: Code = Code.UNAVAILABLE) -> None:
        self._seconds, self._code, self._free = seconds, code, 0.0

    def __call__(self, x: np.ndarray) -> Arrays:
        free, now = self._free, time.monotonic()
        if not free:
            self._free = now + self._seconds
            raise ServingError(self._code, "busy", self._seconds)
        self._free = 0.0
        if now < free:
            raise invalid(f"{free - now:.3f} s too early")
        return {"y": x}


def busy(seconds: float, code: Code = Code.UNAVAILABLE) -> dict[str, Signature]:
    """The signatures of such a model, by name."""
    one = signature("serving_default", Busy(seconds, code), {"x": "float"}, {"y": "float"})
    return {one.info.key: one}


DTYPES = (
    "float", "double", "int32", "int16", "int8", "uint8", "int64", "uint32", "uint64", "bool", "string", "half",
    "complex64",
)  # fmt: skip


def _fail(**_: Any) -> Arrays:
    raise RuntimeError("a secret of the server")


def bad() -> dict[str, Signature]:
    """Signatures that fail by the server's fault: at once, and on a thread."""
    several = (signature(key, _fail, {"x": "float"}, {"y": "float"}, later=key == "later") for key in ("now", "later"))
    return {one.info.key: one for one in several}


def _refuse(**_: Any) -> Arrays:
    raise ServingError(Code.INVALID_ARGUMENT, "Matrix size-incompatible: In[0]: [1,3], In[1]: [2,1]")


def _joined(a: np.ndarray, b: np.ndarray) -> Arrays:
    return {"sum": a * 2, "text": np.array([value + b"!" for value in b.ravel()], object).reshape(b.shape)}


def _slow(x: np.ndarray) -> Arrays:
    time.sleep(float(x.ravel()[0]))
    return {"y": x}


def many_signatures() -> tuple[Signature, ...]:
    """One signature per thing that a request can meet."""
    x, y = {"x": "float"}, {"y": "float"}
    return (
        signature("serving_default", lambda x: {"y": x / np.float32(2) + np.float32(2)}, x, y),
        *(signature(f"echo_{d}", lambda x: {"y": x}, {"x": d}, {"y": d}) for d in DTYPES),
        signature("two", _joined, {"a": "float", "b": "string"}, {"sum": "float", "text": "string"}),
        signature("image", lambda s: {"image_bytes": s}, {"s": "string"}, {"image_bytes": "string"}),
        signature("images", lambda s: {"image_bytes": s, "n": np.arange(len(s))}, {"s": "string"},
                  {"image_bytes": "string", "n": "int64"}),
        signature("scalar", lambda x: {"y": x.sum()}, x, y),
        signature("uneven", lambda x: {"y": x, "z": x[:1]}, x, {"y": "float", "z": "float"}),
        signature("nothing", lambda: {"y": np.float32([7])}, {}, y),
        signature("no_outputs", lambda x: {}, x, {}),
        signature("to_half", lambda x: {"y": x.astype(np.float16)}, x, {"y": "half"}),
        signature("with_default", lambda a, b: {"y": a + b}, {"a": "float", "b": "float"}, y,
                  defaults={"b": np.float32([10])}),
        signature("scaled", lambda x, factor, shift: {"y": x * factor + shift},
                  {"x": "float", "factor": "float", "shift": "float"}, y, scalars=("factor",)),
        signature("several", lambda x: {"a": x, "b": -x, "c": x + 1}, x, {"a": "float", "b": "float", "c": "float"}),
        signature("fails", _fail, x, y),
        signature("refuses", _refuse, x, y),
        signature("slow", _slow, x, y, later=True),
        signature("later_refuses", _refuse, x, y, later=True),
    )  # fmt: skip


def plane() -> FakePlane:
    """Model "m" with versions 1 and 2 (labels stable: 1, canary: 2) and `many_signatures`."""
    return FakePlane({("m", 1): many_signatures(), ("m", 2): many_signatures()}, {"stable": 1, "canary": 2})

"""The reference engine: the SavedModel in TensorFlow itself, by either of its two loaders.

- `function`: tf.saved_model.load and a call of the signature, numpy in and numpy out as a user of TensorFlow calls it.
  This is the yardstick "plain TF" of every log line.
- `session`: the TF1 loader and a session callable (TensorFlow Serving's own path): the same kernels, a quarter of the
  cost per call on tiny models (62 us against 256 us measured). `inline` is the same session, but all operations of a
  call run on the thread that makes it, which suits small graphs.

Neither loader takes every model: tf.saved_model.load refuses TF1 reference variables; a TF1 session leaves variables
of some Keras 3 exports uninitialized. `open_model` says why a loader cannot be used.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer import disk, saved_model
from tfopt_optimizer.absent import absent
from tfopt_optimizer.engines.base import Arrays, Feeds, Place, Prepared, Runner, Target
from tfopt_optimizer.errors import EngineError, NotLowerable, first_line
from tfopt_optimizer.plan import SignatureInfo
from tfopt_optimizer.saved_model import SavedModelError

FUNCTION, SESSION, INLINE, JIT = "function", "session", "inline", "jit"
REWRITTEN = "rewritten"  # the graph in a target's source, made where it is not there: for proofs alone
LOADER_OF = {FUNCTION: FUNCTION, SESSION: SESSION, INLINE: SESSION, JIT: FUNCTION, REWRITTEN: FUNCTION}
_CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 4: "DEADLINE_EXCEEDED", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED", 11: "OUT_OF_RANGE",
    12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS", 16: "UNAUTHENTICATED",
}  # fmt: skip
# Of Keras' wrappers for scikit-learn and TFLite's converter of jax functions: 2 of the 5.5 s of CPU that importing
# TensorFlow takes, and 180 of 720 MB (docs/decisions/0185).
UNNEEDED = ("jax", "sklearn")
_import_lock = threading.Lock()
_configured = False


def tensorflow(place: Place) -> Any:
    """Imports TensorFlow quietly; the first call of a process decides its thread pools."""
    global _configured
    with _import_lock:
        # TensorFlow's C++ side logs to stderr from the import on; a healthy start has nothing to say (2: errors only).
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        with absent(*UNNEEDED), disk.named_temporary():
            import tensorflow as tf

        if not _configured:
            _configured = True
            try:
                tf.config.threading.set_intra_op_parallelism_threads(place.intra_op_threads)
                tf.config.threading.set_inter_op_parallelism_threads(max(place.inter_op_threads, 0))
            except RuntimeError:
                pass  # this process used TensorFlow before us (a test, a notebook): its pools are set and stay
        return tf


def open_model(place: Place, loader: str) -> FunctionModel | SessionModel:
    """Loads the SavedModel with one loader. SavedModelError says why this loader cannot take it."""
    tf = tensorflow(place)
    try:
        return (FunctionModel if loader == FUNCTION else SessionModel)(tf, place)
    except SavedModelError:
        raise
    except Exception as error:
        # The loaders raise whatever their importers meet (KeyError, ValueError, OpError): it all means "not this way".
        raise SavedModelError(f"{loader} loader: {type(error).__name__}: {first_line(error)}") from error


def open_any(place: Place, preferred: Sequence[str] = (SESSION, FUNCTION)) -> FunctionModel | SessionModel:
    """The first loader that takes the model; SavedModelError with every loader's reason when none does."""
    reasons = []
    for loader in preferred:
        try:
            return open_model(place, loader)
        except SavedModelError as error:
            reasons.append(str(error))
    raise SavedModelError(f"TensorFlow cannot load {place.model_dir}: " + "; ".join(reasons))


class FunctionModel:
    """The model by tf.saved_model.load."""

    loader = FUNCTION

    def __init__(self, tf: Any, place: Place) -> None:
        self.tf, self._place = tf, place
        self.loaded = tf.saved_model.load(str(place.model_dir), tags=list(place.tags))

    def signature(self, key: str) -> Any:
        return self.loaded.signatures[key]

    def function(self, target: Target, *, pinned: bool = False) -> Any:
        """What a converter reads: the signature, or the graph that stands for it. `pinned`: such a graph at the inner
        sizes of the target's shapes alone."""
        from tfopt_optimizer.engines import rewritten

        if not target.source:
            return self.signature(target.signature.key)
        return rewritten.function(self.tf, self._place.plan_dir, target, pinned=pinned)

    def rewrite(self, target: Target) -> Runner:
        """Makes the graph in the target's source, where it is not there yet. NotLowerable where nothing changes."""
        from tfopt_optimizer.engines import rewritten

        key, folder = target.signature.key, self._place.plan_dir / target.source
        if not (folder / rewritten.META).exists():
            signatures = saved_model.read_signatures(self._place.model_dir, self._place.tags)
            info = next(s for s in signatures if s.key == key)
            _, light = rewritten.make(self, info, target.signature, folder)
            return FunctionRunner(self.tf, rewritten.callable_of(self.tf, light), {})
        return FunctionRunner(self.tf, self.function(target), {})

    def runner(self, signature: SignatureInfo, variant: str = FUNCTION) -> Runner:
        defaults = saved_model.signature_defaults(self._place.model_dir, signature.key, self._place.tags)
        return FunctionRunner(self.tf, self.signature(signature.key), defaults)

    def close(self) -> None:
        self.loaded = None


class FunctionRunner:
    """Calls the signature; every output is computed, `outputs` only picks."""

    def __init__(self, tf: Any, function: Any, defaults: Arrays) -> None:
        self._constant, self._function, self._errors = tf.constant, function, tf.errors.OpError
        self._defaults = defaults

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        if self._defaults:
            feeds = {**self._defaults, **feeds}
        try:
            found = self._function(**{name: self._constant(value) for name, value in feeds.items()})
            return {name: as_array(found[name].numpy()) for name in (outputs or found)}
        except self._errors as error:
            raise tensorflow_error(error) from error
        except (TypeError, ValueError) as error:
            raise EngineError("INVALID_ARGUMENT", first_line(error)) from error

    def close(self) -> None:
        self._function = None


class SessionModel:
    """The model by the TF1 loader in a session of its own."""

    loader = SESSION

    def __init__(self, tf: Any, place: Place) -> None:
        from tensorflow.core.protobuf import config_pb2

        self.tf, self._place, self._config = tf, place, config_pb2
        # tf.compat.v1.saved_model.load is this call behind a deprecation warning in every log.
        from tensorflow.python.saved_model.loader_impl import SavedModelLoader

        graph = tf.Graph()
        self.session = tf.compat.v1.Session(
            graph=graph,
            config=config_pb2.ConfigProto(
                intra_op_parallelism_threads=place.intra_op_threads,
                inter_op_parallelism_threads=place.inter_op_threads,
            ),
        )
        try:
            with graph.as_default():
                meta = SavedModelLoader(str(place.model_dir)).load(self.session, list(place.tags))
                self._refuse_uninitialized(graph, meta)
            self._signatures = meta.signature_def
        except BaseException:
            self.session.close()
            raise

    def _refuse_uninitialized(self, graph: Any, meta: Any) -> None:
        """Keras 3 models saved by tf.saved_model.save hold two handles per variable; the restore op fills the other."""
        definitions = [d for key, d in meta.signature_def.items() if saved_model.is_callable(key)]
        wanted = [t.name for d in definitions for t in d.outputs.values() if t.name]
        handles = [o for o in _reachable(graph, wanted) if o.type == "VarHandleOp"]
        ready = self.session.run([self.tf.raw_ops.VarIsInitializedOp(resource=o.outputs[0]) for o in handles])
        missing = [o.name for o, is_ready in zip(handles, ready, strict=True) if not is_ready]
        if missing:
            raise SavedModelError(
                f"session loader: {len(missing)} variables stay uninitialized in a TF1 session, first {missing[0]!r}"
            )

    def runner(self, signature: SignatureInfo, variant: str = SESSION) -> Runner:
        defaults = saved_model.signature_defaults(self._place.model_dir, signature.key, self._place.tags)
        return SessionRunner(self, self._signatures[signature.key], defaults, inline=variant == INLINE)

    def callable(self, feeds: Sequence[str], fetches: Sequence[str], inline: bool) -> Any:
        options = self._config.CallableOptions(feed=feeds, fetch=fetches)
        if inline:
            options.run_options.inter_op_thread_pool = -1  # DirectSession: run on the caller's thread
        return self.session._make_callable_from_options(options)

    def close(self) -> None:
        self.session.close()


class SessionRunner:
    """A session callable per set of outputs. Shapes are not checked and dtypes not cast, as in TensorFlow Serving."""

    def __init__(self, model: SessionModel, definition: Any, defaults: Arrays, inline: bool) -> None:
        self._model, self._inline, self._defaults = model, inline, defaults
        self._errors = model.tf.errors.OpError
        # Several keys may name one tensor: a callable takes each tensor once.
        tensors = {name: info.name for name, info in sorted(definition.inputs.items())}
        self._feed_names = tuple({tensor: name for name, tensor in reversed(tensors.items())}.values())
        self._feed_tensors = [tensors[name] for name in self._feed_names]
        self._outputs = {name: info.name for name, info in sorted(definition.outputs.items())}
        self._plans: dict[tuple[str, ...], tuple[Any, tuple[tuple[str, int], ...]]] = {}
        self._all = tuple(self._outputs)
        self._plan(self._all)

    def _plan(self, names: tuple[str, ...]) -> tuple[Any, tuple[tuple[str, int], ...]]:
        plan = self._plans.get(names)
        if plan is None:
            fetches = list(dict.fromkeys(self._outputs[n] for n in names))
            positions = tuple((n, fetches.index(self._outputs[n])) for n in names)
            plan = (self._model.callable(self._feed_tensors, fetches, self._inline), positions)
            self._plans[names] = plan
        return plan

    def __call__(self, feeds: Feeds, outputs: Sequence[str] | None = None) -> Arrays:
        run, positions = self._plan(self._all if not outputs else tuple(outputs))
        if self._defaults:
            feeds = {**self._defaults, **feeds}
        try:
            found = run(*[feeds[name] for name in self._feed_names])
        except self._errors as error:
            raise tensorflow_error(error) from error
        except (TypeError, ValueError) as error:
            raise EngineError("INVALID_ARGUMENT", first_line(error)) from error
        return {name: as_array(found[i]) for name, i in positions}

    def close(self) -> None:
        self._plans.clear()


class Worker:
    """The tensorflow engine in a worker process: both loaders, so that times can be compared in one place."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._models: dict[str, FunctionModel | SessionModel] = {}
        found = {}
        for loader in (FUNCTION, SESSION):
            try:
                self._models[loader] = open_model(place, loader)
                found[loader] = ""
            except SavedModelError as error:
                found[loader] = str(error)
        return found

    def prepare(self, target: Target) -> Prepared:
        return Prepared()

    def runner(self, target: Target) -> Runner:
        model = self._models.get(LOADER_OF[target.variant])
        if target.variant == REWRITTEN:
            if not isinstance(model, FunctionModel):
                raise NotLowerable("tf.saved_model.load does not take the model")
            return model.rewrite(target)
        return self._models[LOADER_OF[target.variant]].runner(target.signature, target.variant)

    def release(self, target: Target) -> None:
        """A runner holds nothing of its own: the model is shared."""


def as_array(value: Any) -> np.ndarray:
    """TensorFlow gives scalars as numpy scalars, and string scalars as bytes."""
    if isinstance(value, np.ndarray):
        return value
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def tensorflow_error(error: Any) -> EngineError:
    """TensorFlow's code and text, without the frame that the eager runtime puts around it."""
    text = re.sub(r"^Graph execution error:.*?<stack traces unavailable>\n", "", str(error.message), flags=re.DOTALL)
    text = re.sub(r" \[Op:[^\]]*\](?: name: ?\S*)?$", "", text)
    return EngineError(_CODES.get(error.error_code, "UNKNOWN"), text)


def _reachable(graph: Any, tensor_names: Sequence[str]) -> list[Any]:
    """Operations that these tensors depend on."""
    todo = [graph.get_tensor_by_name(n).op for n in dict.fromkeys(tensor_names)]
    seen: dict[str, Any] = {}
    while todo:
        op = todo.pop()
        if op.name not in seen:
            seen[op.name] = op
            todo += [t.op for t in op.inputs] + list(op.control_inputs)
    return list(seen.values())

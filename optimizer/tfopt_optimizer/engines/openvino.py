"""The openvino engine: OpenVINO's CPU plugin, without TensorFlow. The variant is the precision.

`f32` computes in 32-bit floats whatever the processor prefers. The others are lossy: `bf16` is the same model computed
in bfloat16, the rest are models that NNCF made of it (openvino_compress.py), each in a folder of its own.

A signature's model is kept once in OpenVINO's own format (`model.xml`, `model.bin`, mapped into memory) and compiled
for each bucket when a plan is opened. OpenVINO's cache of compiled blobs is not used: it adds the weights once more on
disk for every bucket and saves nothing (BERT-base: 0.45 s to compile, 0.5 s to read 417 MB of blob).

A compiled model packs its weights anew. So above SHARED_ABOVE bytes one compiled model with an unknown batch dimension
(and unknown inner ones, where there are buckets of several) serves all buckets: 370 MB less per bucket for BERT-base,
at 4 % of its time (ResNet50 1 %). Small models are compiled per bucket: there an unknown batch costs 10 %. Rows that
are cut to their own lengths (shortening.py) all run in one model of unknown rows and length, whatever its size: what it
loses on each shape, it saves on rows that need not be filled up.

Variants: `f32`, one stream of all cores, and `f32-s<streams>`, which share the cores (table.py says how many): a batch
runs as equal parts side by side, which stay in their core's cache and do not wait for each other within a layer. So do
calls. `f32-s<streams>p1` cuts it into single rows, several for each stream: what a layer of a convolution net leaves
for the next then stays in the cache (MobileNetV2 at batch 8: 0.77 of the time of two parts with cold caches, 0.96 with
warm ones). `f32-blocked` and `f32-blocked-s<streams>` have other kernels for convolutions (openvino_blocked.py),
`f32-amx` for products (openvino_amx.py). With those kernels `f32-blocked-funnel-s<streams>` takes rows one by one
through a net's first layers and some at a time through the others (openvino_funnel.py). `f32-winograd` (one row, all
cores) and `f32-winograd-s<streams>p1` multiply less for convolutions (openvino_winograd.py). Both need known shapes: of
these two weights grow, so all buckets share what one row needs.

Measured on 2 cores with AVX-512 (plain TensorFlow beside it): BERT-small 4.0 ms (13.9), at batch 8 27 ms (50);
MobileNetV2 3.2 ms (19.8). A call of a tiny model costs 12 us. `infer` releases the GIL.
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import compression, cpu, likely
from tfopt_optimizer.engines import (
    openvino_blocked,
    openvino_funnel,
    openvino_graph,
    openvino_packed,
    openvino_winograd,
)
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target, own_bytes
from tfopt_optimizer.engines.limits import Within
from tfopt_optimizer.engines.openvino_requests import OpenvinoRunner, Request, RowsRunner, Shapes, Team, reason
from tfopt_optimizer.engines.pool import Pool
from tfopt_optimizer.errors import NeedsConversion, NotLowerable
from tfopt_optimizer.plan import Shortening

F32 = "f32"
AMX = f"{F32}-amx"  # matrix products by the processor's bfloat16 unit, in three parts (openvino_amx.py)
BLOCKED = f"{F32}-blocked"  # convolutions on blocked layouts (openvino_blocked.py)
FUNNEL = f"{BLOCKED}-funnel"  # ... the first of them row by row (openvino_funnel.py)
WINOGRAD = f"{F32}-winograd"  # convolutions with fewer multiplications (openvino_winograd.py)
STREAMS = "-s"  # + a number: so many streams of one thread each, a batch's parts run side by side on them
ROW = "p1"  # after it: parts of one row
SPARSE = 0.65  # quantizing moves a few weights across zero
FOLDER, MODEL, WEIGHTS = "openvino", "model.xml", "model.bin"
SHARED_ABOVE = 64 << 20

_import_lock = threading.Lock()


def library() -> Any:
    """The openvino package without its conversion tools, which report every import to a web service of Intel's.

    The package imports them where it can; None in sys.modules is Python's own way to say that it cannot.
    """
    with _import_lock:
        if "openvino" not in sys.modules:
            sys.modules["openvino.tools.ovc"] = None  # type: ignore[assignment]
        import openvino

        return openvino


class Device:
    """OpenVINO in this process, and the models of one plan."""

    def __init__(self, place: Place) -> None:
        self.openvino = library()
        self.core = self.openvino.Core()
        self._threads = place.intra_op_threads
        self._plan_dir = place.plan_dir
        self._models: dict[str, Model] = {}

    def properties(self, variant: str) -> dict[str, Any]:
        return {
            # AMX processors would be given bfloat16 where nothing is said.
            "INFERENCE_PRECISION_HINT": compression.BF16 if variant == compression.BF16 else F32,
            "NUM_STREAMS": streams_of(variant),
            "INFERENCE_NUM_THREADS": self._threads,
            # Threads bound to cores wait for whoever else runs there: with a neighbour a call took twice as long.
            "ENABLE_CPU_PINNING": False,
            # Layers with this share of zeros skip them; with fewer that would be slower than multiplying.
            **({"CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": SPARSE} if variant == compression.PRUNED else {}),
        }

    def model(self, folder: str) -> Model:
        if folder not in self._models:
            self._models[folder] = Model(self, self._plan_dir / folder)
        return self._models[folder]


def folder(target: Target) -> str:
    """Where the model lies, relative to the plan: "s0/openvino" for f32 in "s0/b8", "s0/openvino-int8" for int8."""
    same = (target.variant.startswith(F32) and target.lengths is None) or target.variant == compression.BF16
    name = FOLDER if same else f"{FOLDER}-{target.variant if target.lengths is None else likely.PACKED}"
    return (Path(target.folder).parent / name).as_posix()


class Model:
    """A signature's model, read once. RuntimeError when the files are not there or damaged."""

    def __init__(self, device: Device, folder: Path) -> None:
        self._device, self._file = device, str(folder / MODEL)
        self._model = device.core.read_model(self._file)
        self._wishes = bool(openvino_blocked.wishes(self._model))
        openvino_blocked.without(self._model)
        self._shared = (folder / WEIGHTS).stat().st_size > SHARED_ABOVE
        self._guards = openvino_graph.guards_of(self._model)
        self._clean = not (self._guards.refusal or self._guards.strays)
        self._compiled: dict[Any, Any] = {}
        self._of_rows: dict[tuple[Any, int], RowsRunner] = {}

    def runner(self, target: Target) -> OpenvinoRunner:
        """Compiles for the shapes, or takes what serves them already. NotLowerable when OpenVINO refuses them."""
        if target.lengths is not None:
            return self._packed(target, target.lengths)
        variant, streams, part = target.variant, streams_of(target.variant), parts(target)
        self._refuse(target, cut=part is not target.shapes)
        # int8 with an unknown batch always: with a static batch of 8 OpenVINO 2026.4 answers a small quantized MLP
        # wrongly on AMX (errors of 20 to 60 % of the largest value; batch 1, 3 and unknown are right).
        shared = (self._shared or variant in (compression.INT8, compression.PRUNED)) and not _rewritten(variant)
        wanted = {
            t.name: _dimensions(
                t.shape, part[t.name], shared or target.open, target.open or (target.varying and self._shared)
            )
            for t in target.signature.inputs
        }
        key, within = (variant.removesuffix(ROW), tuple(sorted(wanted.items()))), Within(self._guarded(part).limits)
        try:
            if key not in self._compiled:
                model = self._of(variant)
                model.reshape({p.any_name: list(wanted[p.any_name]) for p in model.inputs})
                if variant.startswith(WINOGRAD):
                    openvino_winograd.rewrite(self._device.openvino, model)
                elif variant.startswith(FUNNEL):
                    model = openvino_funnel.funnel(self._device.openvino, model)
                self._compiled[key] = self._device.core.compile_model(model, "CPU", self._device.properties(variant))
            names = frozenset(t.name for t in target.signature.outputs)
            one = functools.partial(Request, self._device.openvino, self._compiled[key], part, within, names)
            number = 1 if part is target.shapes else (target.rows or 1) // min(shape[0] for shape in part.values())
            make = one if part is target.shapes else functools.partial(Team, one, number)
            if target.open and make is not one and target.variant.endswith(ROW) and self._clean:
                if (key, number) not in self._of_rows:
                    self._of_rows[key, number] = RowsRunner(Pool(make, cpu.usable_cores()), streams)
                return self._of_rows[key, number]
            return OpenvinoRunner(Pool(make, cpu.usable_cores()))
        except RuntimeError as error:
            raise NotLowerable(f"OpenVINO does not compile it: {reason(error)}") from error

    def _refuse(self, target: Target, *, cut: bool) -> None:
        """`cut`: whether the batch is, into parts."""
        if target.variant.startswith(BLOCKED) and not self._wishes:
            raise NotLowerable("it has no convolutions")
        if target.variant.startswith(WINOGRAD) and target.rows not in (None, 1) and not cut:
            raise NotLowerable("for single rows alone, or as many of them as divide among the streams")
        if target.variant.startswith(FUNNEL) and not cut:
            raise NotLowerable("for batches of which each stream gets as many rows, in twos, threes or fours")
        if target.variant.startswith(FUNNEL) and self._shared:
            raise NotLowerable("weights of more than 64 MB would be there once more")

    def _packed(self, target: Target, lengths: Shortening) -> OpenvinoRunner:
        shapes = parts(target)
        inputs = (*target.signature.inputs, *openvino_packed.INPUTS)
        try:
            streams = streams_of(target.variant)
            if streams not in self._compiled:  # one for all buckets
                model = self._model.clone()
                wanted = {t.name: _dimensions(t.shape, shapes[t.name], True, True) for t in inputs}
                model.reshape({p.any_name: list(wanted[p.any_name]) for p in model.inputs})
                properties = self._device.properties(target.variant)
                self._compiled[streams] = self._device.core.compile_model(model, "CPU", properties)
            names = frozenset(t.name for t in target.signature.outputs)
            within = Within(self._guarded(shapes).limits)
            one = functools.partial(Request, self._device.openvino, self._compiled[streams], shapes, within, names)
            return openvino_packed.PackedRunner(lengths, one, streams, cpu.usable_cores())
        except RuntimeError as error:
            raise NotLowerable(f"OpenVINO does not compile it: {reason(error)}") from error

    def checked(self, target: Target, *, look_ups: bool = True) -> None:
        """NotLowerable where OpenVINO would compute on with what TensorFlow refuses, and no limit of an input helps.
        `look_ups`: they count too; a cut's host looks after those of its device segments (split/strays.py)."""
        found = self._guarded(parts(target))
        if refusal := found.refusal or (found.strays if look_ups else ""):
            raise NotLowerable(refusal)

    def _guarded(self, shapes: Shapes) -> openvino_graph.Found:
        """For all shapes where that is possible, else for these: a sequence's length may be that of a table."""
        if self._clean:
            return self._guards
        model = self._model.clone()
        model.reshape({port.any_name: list(shapes[port.any_name]) for port in model.inputs})
        return openvino_graph.guards_of(model)

    def _of(self, variant: str) -> Any:
        if variant == AMX:
            return self._split()
        if variant.startswith(WINOGRAD):
            return openvino_blocked.without(self._device.core.read_model(self._file), openvino_blocked.of_an_image)
        if not variant.startswith(BLOCKED):
            return self._model
        return self._device.core.read_model(self._file)

    def _split(self) -> Any:
        from tfopt_optimizer.engines import openvino_amx

        if self._shared:
            raise NotLowerable("weights of more than 64 MB would be packed at half their size again")
        model = self._model.clone()
        openvino_amx.split_products(self._device.openvino, model)
        return model

    def forget(self, target: Target) -> None:
        """Frees what was compiled for these shapes alone."""
        if target.lengths is not None:
            return
        self._compiled.pop((target.variant.removesuffix(ROW), tuple(sorted(parts(target).items()))), None)


def _rewritten(variant: str) -> bool:
    """Whether it is a model of its own for each number of rows."""
    return variant.startswith((WINOGRAD, FUNNEL))


def streams_of(variant: str) -> int:
    _, found, number = variant.removesuffix(ROW).partition(STREAMS)
    return int(number) if found else 1


def parts(target: Target) -> Shapes:
    """The shapes of one inference: the target's, or of an equal part of its rows for each stream where that divides. Of
    what is not rows (a cut may hand over a table's entries beside them) no part is made."""
    assert target.shapes is not None
    if target.lengths is not None:  # whose rows its request shares
        return openvino_packed.shapes(target.shapes, target.lengths.size)
    streams, rows = streams_of(target.variant), target.rows
    each = 1 if target.variant.endswith(ROW) else (rows or 0) // streams
    if target.variant.startswith(FUNNEL):
        each = openvino_funnel.together(rows, streams)
    tensors = (*target.signature.inputs, *target.signature.outputs)
    if (
        streams == 1
        or not rows
        or not each
        or rows % streams
        or not all(t.shape is None or t.shape[:1] == (None,) for t in tensors)
    ):
        return target.shapes
    return {name: (each, *shape[1:]) for name, shape in target.shapes.items()}


def _dimensions(
    declared: Sequence[int | None] | None, shape: tuple[int, ...], shared: bool, varying: bool
) -> tuple[int, ...]:
    """`shared`: the rows are left unknown where they are; `varying`: so are the inner dimensions."""
    if not shared or not shape:
        return shape
    known = declared if declared is not None and len(declared) == len(shape) else (None, *shape[1:])
    return tuple(-1 if d is None and (varying or not i) else shape[i] for i, d in enumerate(known))


class Opener:
    """Opens the runners of a finished plan; compiling takes 0.1 to 0.5 s a bucket."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._plan_dir, self._device = place.plan_dir, Device(place)

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        """`target.folder` is the plan's artifact. NotLowerable or OSError when it does not load."""
        (self._plan_dir / target.folder / WEIGHTS).stat()  # if it is missing, the error names it
        return self._device.model(target.folder).runner(target)


class Worker:
    """The engine in a worker process of the optimizer. It reads most SavedModels by itself (openvino_read.py)."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._device = place, Device(place)
        self._runners: dict[tuple[str, str], Runner] = {}
        return {F32: ""}

    def prepare(self, target: Target) -> Prepared:
        from tfopt_optimizer.engines import openvino_read

        started, place = time.perf_counter(), folder(target)
        if not (self._place.plan_dir / place / MODEL).exists():
            if target.lengths is None and place != (Path(target.folder).parent / FOLDER).as_posix():
                raise NeedsConversion(f"there is no model in {target.variant} yet")
            openvino_read.write_model(self._device, self._place, target, self._place.plan_dir / place)
        before = own_bytes()  # from here on it is what a server does
        model = self._device.model(place)
        model.checked(target, look_ups=not self._place.cut)
        self._runners[target.folder, target.variant] = model.runner(target)
        memory = max(0, own_bytes() - before)
        return Prepared(
            time.perf_counter() - started, memory, place, any_rows=target.open or target.lengths is not None
        )

    def runner(self, target: Target) -> Runner:
        return self._runners[target.folder, target.variant]

    def release(self, target: Target) -> None:
        if self._runners.pop((target.folder, target.variant), None) is not None:
            self._device.model(folder(target)).forget(target)

"""The Plan: what the optimizer decided, with the evidence, and what the server needs to run it.

A plan is a directory: `plan.json` (this module), one folder of artifacts per signature, weights stored once.
Rules for changing it: every field is plain data; reading an unknown `format_version` is an error, never a guess; a new
field gets a default so that older plans of the same format still load. Paths inside are relative to the plan directory.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfopt_optimizer import typed_json

FORMAT_VERSION = 1
# Of what a plan stands on: the proofs (independent rows, padding) and the gate. It rises when they learn to see more: a
# plan that an earlier one let through may merge what must not be merged, or answer what is not right.
PROOF_VERSION = 6
FILE_NAME = "plan.json"
UNFINISHED = FILE_NAME + ".part"  # there while a plan is made
LOCK = FILE_NAME + ".lock"  # of the process that makes it
MAKING = ".part."  # in the name of a folder that is no plan yet, or no longer

Shape = tuple[int | None, ...]


class PlanError(ValueError):
    """A plan directory that cannot be used; the text names the file and what is wrong with it (for the operator)."""


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """One input or output of a signature.

    `dtype` is TensorFlow's enum name without `DT_` in lower case ("float", "int64", "string", "bfloat16", ...);
    `shape` has None for unknown dimensions and is None itself for an unknown rank; `tensor` is the graph's tensor name.
    """

    name: str
    dtype: str
    shape: Shape | None
    tensor: str = ""


@dataclasses.dataclass(frozen=True)
class SignatureInfo:
    """A signature as the SavedModel declares it, in the model's own order of inputs and outputs."""

    key: str
    method_name: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    defaults: tuple[str, ...] = ()  # names of inputs that have a default value


@dataclasses.dataclass(frozen=True)
class Measured:
    """Times of one call in microseconds, arrays in and arrays out, as the server calls it, in the quieter rounds.

    `rate`: calls per second with all cores busy, at the number of `callers` at once that gives most; 0.0: not measured.
    """

    median_us: float
    p90_us: float
    calls: int
    rate: float = 0.0
    callers: int = 0


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Distance from plain TensorFlow on the checked rows, relative to each output's largest magnitude.

    `top1` is the share of rows whose largest entry stands at the same place, None where no output is a score vector.
    `histogram` counts values by their relative error, two bins a decade: below 1e-9 (equal ones too), 1e-9 to
    3.2e-9, ..., 0.32 to 1, above (verify.ERROR_EDGES). Empty where nothing was compared as numbers. `slice_rel_error`
    is the worst row's or column's distance, relative to its own largest magnitude; 0.0 where only the whole counts;
    `column_mean_error` the worst column's mean distance, relative to the same.
    """

    max_rel_error: float
    mean_rel_error: float
    rows: int
    top1: float | None = None
    histogram: tuple[int, ...] = ()
    slice_rel_error: float = 0.0
    column_mean_error: float = 0.0


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One engine tried on one signature and bucket. status: "chosen", "slower", "rejected" or "skipped".

    `memory_bytes` is what its runner of this bucket allocated, `artifact_bytes` the size of its files, which buckets
    may share. `precision` is what a lossy candidate computes or keeps its weights in (compression.py), "" for a
    lossless one.
    """

    engine: str
    variant: str
    status: str
    reason: str
    measured: Measured | None = None
    agreement: Agreement | None = None
    compile_s: float | None = None
    memory_bytes: int | None = None
    precision: str = ""
    artifact_bytes: int | None = None


@dataclasses.dataclass(frozen=True)
class BucketPlan:
    """What runs one static set of input shapes.

    `batch` is the bucket's number of rows, None for a signature whose rows are not independent (shapes then match
    exactly or not at all). `shapes` holds the full static shape per input. `engine`/`variant` name the choice;
    `static` is True when the runner takes exactly `shapes` (requests are padded up to it) and False when it takes any
    number of rows (nothing is padded). `artifact` is the runner's folder or file in the plan, "" when it needs none.
    `inner` are the sizes of the signature's inner dimensions here, () where it has none that vary (InnerPlan).
    `positions`: where the runner leaves filling out, what the rows had together on which it was measured; else 0.
    """

    batch: int | None
    shapes: Mapping[str, tuple[int, ...]]
    engine: str
    variant: str
    static: bool
    artifact: str
    candidates: tuple[Candidate, ...]
    why: str
    inner: tuple[int, ...] = ()
    positions: int = 0


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis of an input or output, counted from 0, which is the rows."""

    name: str
    axis: int


@dataclasses.dataclass(frozen=True)
class InnerDimension:
    """A size that differs between requests (a sequence's length), with every axis of the inputs and outputs it is the
    size of."""

    inputs: tuple[Axis, ...]
    outputs: tuple[Axis, ...] = ()


@dataclasses.dataclass(frozen=True)
class InnerBucket:
    """Sizes that buckets were made for, one per inner dimension. Requests of fewer than `least` elements (the product
    of their sizes) are not padded up to them: plain TensorFlow is faster on what they are."""

    sizes: tuple[int, ...]
    least: int


@dataclasses.dataclass(frozen=True)
class InnerPlan:
    """The inner dimensions of a signature whose rows are independent, and its inner buckets, smallest first.

    `padded`: requests of other sizes are filled up with zeros and empty strings, and their answers cut, because that
    was proven to change nothing (`reason` has the proof, or why not), from the sizes `floor` on.
    """

    dimensions: tuple[InnerDimension, ...]
    buckets: tuple[InnerBucket, ...]
    padded: bool
    reason: str
    floor: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Filled:
    """An input that has a fixed length on `axis` and is filled up with `value` behind what it says. `needed`:
    a row in which all of it is filling is computed in full."""

    name: str
    axis: int
    value: float
    needed: bool


@dataclasses.dataclass(frozen=True)
class Shortening:
    """A signature of fixed length whose rows are computed at shorter ones where the rest is filling (shortening.py).

    `size` is the signature's length; `lengths`, in rising order and below it, have buckets of their own, as the length
    itself has. `reason` has the proof that answers stay the same.
    """

    inputs: tuple[Filled, ...]
    size: int
    lengths: tuple[int, ...]
    reason: str


@dataclasses.dataclass(frozen=True)
class Crossing:
    """A tensor at a border between segments. `parts` are the graph's tensors that travel in it, side by side."""

    name: str
    dtype: str
    shape: Shape | None
    parts: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HostOperation:
    """An operation of the signature that runs on the host, with the reason."""

    name: str
    op: str
    why: str


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a split signature. `where`: "host" or "device"; segments run one after another, in the plan's order.

    `runs_on` is "python" or "tensorflow" for host segments, "" for device segments: there it is what the bucket's
    engine says behind "host+". `kinds` counts the operations by kind; `operations` names those of host segments.
    `takes` is what the segment is given, `gives` what others need of it.
    """

    where: str
    runs_on: str
    kinds: Mapping[str, int]
    operations: tuple[HostOperation, ...] = ()
    takes: tuple[Crossing, ...] = ()
    gives: tuple[Crossing, ...] = ()


@dataclasses.dataclass(frozen=True)
class SignaturePlan:
    """A signature, whether its rows are independent (with the proof or the reason), and its buckets in rising order.

    `merge` says whether concurrent requests are joined: rows must be independent and joining must have been measured
    to pay. `segments` is the cut into host and device parts, for the buckets whose engine is "host+..." (empty when the
    signature was not cut). `inner` is None where the records have one inner shape that the signature fixes.
    `bucket_reason`: which numbers of rows have a bucket, and why. `shortening`: None where rows are computed in full.
    `rewritten`: how the graph that engines were given differs from the model's own, "" where they were given that.
    """

    signature: SignatureInfo
    row_independent: bool
    row_reason: str
    merge: bool
    merge_reason: str
    buckets: tuple[BucketPlan, ...]
    segments: tuple[Segment, ...] = ()
    inner: InnerPlan | None = None
    bucket_reason: str = ""
    shortening: Shortening | None = None
    rewritten: str = ""


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """What a plan is valid for; two equal fingerprints mean the plan can be used as it is."""

    model: str
    flags: str
    versions: Mapping[str, str]
    hardware: Mapping[str, str]

    def differences(self, other: Fingerprint) -> list[str]:
        """Readable names of the fields in which `other` differs, e.g. ["versions.jaxlib: 0.10.2 != 0.10.3"]."""
        found = [f"{f}: {a} != {b}" for f in ("model", "flags") if (a := getattr(self, f)) != (b := getattr(other, f))]
        for field in ("versions", "hardware"):
            mine, theirs = getattr(self, field), getattr(other, field)
            keys = sorted(set(mine) | set(theirs))
            found += [
                _difference(f"{field}.{k}", mine.get(k), theirs.get(k)) for k in keys if mine.get(k) != theirs.get(k)
            ]
        return found


def _difference(name: str, mine: str | None, theirs: str | None) -> str:
    """Of lists of words only what one has and the other lacks."""
    if name != "hardware.features" or mine is None or theirs is None:
        return f"{name}: {mine} != {theirs}"
    left, right = set(mine.split()), set(theirs.split())
    return f"{name}: {' '.join(sorted(left - right)) or 'nothing'} != {' '.join(sorted(right - left)) or 'nothing'}"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that was decided for one SavedModel on one machine.

    `loader` is how plain TensorFlow loads the model: "function" (tf.saved_model.load) or "session" (the TF1 loader, a
    session callable as in TensorFlow Serving). `records` says where the check inputs came from: "warmup" or
    "synthesized". `log` holds the optimization log, one readable line per decision. `files` gives the size and checksum
    of every artifact, so that a damaged plan is found before it is served. `runners`: how many calls are best under way
    at a time when requests queue, 0 where that was not measured. `device` is where compiled segments run, `device_kind`
    which accelerator that is, "" on cpu.
    """

    fingerprint: Fingerprint
    device: str
    loader: str
    records: str
    signatures: tuple[SignaturePlan, ...]
    log: tuple[str, ...]
    created: str
    optimize_s: float
    weights_bytes: int = 0
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    format_version: int = FORMAT_VERSION
    runners: int = 0
    device_kind: str = ""

    @property
    def where(self) -> str:
        """The device and its kind, for people: "gpu (NVIDIA H100 80GB HBM3)"."""
        return f"{self.device} ({self.device_kind})" if self.device_kind else self.device

    def signature(self, key: str) -> SignaturePlan | None:
        return next((s for s in self.signatures if s.signature.key == key), None)

    def engines(self) -> frozenset[str]:
        """The engines that the chosen runners need, e.g. frozenset({"xla"})."""
        return frozenset(b.engine for s in self.signatures for b in s.buckets)

    @property
    def needs_tensorflow(self) -> bool:
        """Whether a server imports TensorFlow when it opens the plan, and not only for requests outside of it."""
        return any(runs_tensorflow(s, b) for s in self.signatures for b in s.buckets)


def runs_tensorflow(signature: SignaturePlan, bucket: BucketPlan) -> bool:
    """Whether a bucket's runner needs TensorFlow."""
    if bucket.engine.startswith("host+"):
        return any(s.runs_on == "tensorflow" for s in signature.segments)
    return bucket.engine == "tensorflow" or (bucket.engine, bucket.variant) == ("xla", "jit")


def write(plan: Plan, directory: Path) -> None:
    """Writes plan.json last and atomically: a directory with a readable plan.json is a complete plan."""
    text = json.dumps(dataclasses.asdict(plan), indent=1)
    part = directory / UNFINISHED
    part.write_text(text)
    part.replace(directory / FILE_NAME)


def read(directory: Path) -> Plan:
    """Reads plan.json. PlanError names the file and the field when it is missing, damaged or of another format."""
    path = directory / FILE_NAME
    try:
        data = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise PlanError(f"{path}: there is no plan here") from error
    except ValueError as error:
        raise PlanError(f"{path}: not valid JSON: {error}") from error
    return parsed(data, str(path))


def folders(parent: Path) -> list[Path]:
    """The plans that lie side by side in a folder, by name; not those that are being made, or were when they were
    killed: they are gone soon."""
    found = (path.parent for path in parent.glob(f"*/{FILE_NAME}"))
    return sorted(folder for folder in found if MAKING not in folder.name)


def is_one(directory: Path) -> bool:
    """Whether the folder's plan.json is a plan's, of whatever format, and not another program's."""
    try:
        return "format_version" in json.loads((directory / FILE_NAME).read_text())
    except (OSError, ValueError, TypeError):
        return False


def parsed(data: Any, where: str) -> Plan:
    """The document of a plan.json that lay at `where`. PlanError."""
    found = data.get("format_version") if isinstance(data, dict) else None
    if found != FORMAT_VERSION:
        raise PlanError(f"{where}: format_version: expected {FORMAT_VERSION}, received {found!r}")
    try:
        return typing.cast(Plan, typed_json.build(Plan, data, where))
    except typed_json.DocumentError as error:
        raise PlanError(str(error)) from error

"""What the conversion did, as data, as log lines and as JSON, which lies beside the converted model too."""

from __future__ import annotations

import collections
import dataclasses
import json
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path

from tfopt_optimizer import typed_json
from tfopt_optimizer.tpu import ahead, cost, io_shapes, link
from tfopt_optimizer.tpu.ahead import Compiled
from tfopt_optimizer.tpu.automatic import Parted
from tfopt_optimizer.tpu.cost import Costs
from tfopt_optimizer.tpu.io_shapes import Weighed
from tfopt_optimizer.tpu.link import Transfer
from tfopt_optimizer.tpu.quantize import Quantized
from tfopt_optimizer.tpu.trial import Tried
from tfopt_optimizer.wording import size

FILE = Path("assets.extra", "tpu_conversion.json")  # in the converted model's folder; TensorFlow Serving ignores it


@dataclasses.dataclass(frozen=True)
class PlacedFunction:
    """A function on the TPU and the option that chose it."""

    name: str
    chosen_by: str


@dataclasses.dataclass(frozen=True)
class BatchedFunction:
    """What a batch op was given; sizes in rows, the timeout in microseconds."""

    name: str
    num_batch_threads: int
    max_batch_size: int
    batch_timeout_micros: int
    allowed_batch_sizes: tuple[int, ...]
    max_enqueued_batches: int
    splitting: bool


@dataclasses.dataclass(frozen=True)
class Bfloat16Function:
    """How many operations of each kind compute in bfloat16, and how many stayed in float32."""

    name: str
    changed: Mapping[str, int]
    kept: Mapping[str, int]
    casts: int
    on_host: bool = False


@dataclasses.dataclass(frozen=True)
class Bfloat16Variables:
    """How many became bfloat16, the checkpoint's bytes before and after, and why others stayed (names, which need not
    be unique, and reasons)."""

    changed: int
    bytes_before: int
    bytes_after: int
    kept: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Report:
    placed: tuple[PlacedFunction, ...]
    batched: tuple[BatchedFunction, ...]
    bfloat16: tuple[Bfloat16Function, ...]
    bfloat16_variables: Bfloat16Variables | None
    updated_batch_ops: tuple[str, ...]
    joined_handles: int
    cautions: tuple[str, ...]
    tried: tuple[Tried, ...]
    samples: str
    seconds: float
    written: str = ""  # "" for a dry run
    cut: Parted | None = None  # where no function was named
    costs: Costs | None = None
    quantized: Quantized | None = None
    topology: str = ""
    ahead: tuple[Compiled, ...] = ()
    link: tuple[Transfer, ...] = ()
    io_shapes: tuple[Weighed, ...] = ()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2)


class ReportError(ValueError):
    """The text names the file and what is wrong with it (for the operator)."""


def write(report: Report, model: Path) -> None:
    (model / FILE).parent.mkdir(exist_ok=True)
    (model / FILE).write_text(report.to_json() + "\n")


def read(model: Path) -> Report | None:
    """The report beside a model that was converted here; None for others. ReportError."""
    try:
        text = (model / FILE).read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{model / FILE} cannot be read: {error}") from error
    try:
        return typing.cast(Report, typed_json.build(Report, json.loads(text), str(model / FILE)))
    except json.JSONDecodeError as error:
        raise ReportError(f"{model / FILE}: not valid JSON: {error}") from error
    except typed_json.DocumentError as error:
        raise ReportError(str(error)) from error


def lines(report: Report) -> list[str]:
    """The report for the log."""
    found = _quantized(report.quantized) if report.quantized else []
    found += [f"on the TPU: {p.name} ({p.chosen_by})" for p in report.placed]
    found += _cut(report.cut) if report.cut else []
    found += cost.lines(report.costs) if report.costs and report.placed else []
    found += [f"batched: {_batched(b)}" for b in report.batched]
    found += [_bfloat16(b) for b in report.bfloat16]
    found += _variables(report.bfloat16_variables) if report.bfloat16_variables else []
    found += [f"new options for the batch op {name}" for name in report.updated_batch_ops]
    if report.joined_handles:
        found.append(f"{report.joined_handles} second handles of Keras 3 variables joined with the restored ones")
    found += [f"caution: {c}" for c in report.cautions]
    found += tried(report.tried, report.samples)
    found += link.lines(report.link)
    found += io_shapes.lines(report.io_shapes)
    found += ahead.lines(report.ahead, report.topology)
    found.append(f"written to {report.written}" if report.written else "dry run: nothing was written")
    return found


def _quantized(q: Quantized) -> list[str]:
    ranges = f", ranges from {q.calibrated_on}" if q.calibrated_on else ""
    shrunk = f"the model goes from {size(q.bytes_before)} to {size(q.bytes_after)}"
    left = [f"quantized: not {', '.join(q.left)}: TensorFlow's quantizer cannot do them so"] if q.left else []
    return [f"quantized: {q.method}, signatures {', '.join(q.signatures)}{ranges}; {shrunk}", *left]


def _cut(found: Parted) -> list[str]:
    told = [f"on the host: all of signature {key}: {why}" for key, why in found.whole_on_host.items()]
    told += [f"moved to the host, for a compiler refused it: {line}" for line in found.moved]
    for key, reasons in found.reasons.items():
        most = sorted(reasons.items(), key=lambda item: -item[1])[:5]
        told += [f"on the host in {key}: {count} operations: {why}" for why, count in most]
    return told


def tried(results: Sequence[Tried], samples: str) -> list[str]:
    if not results:
        return [f"caution: the converted model was not run: {samples}"]
    return [_tried(t, samples) for t in results]


def _tried(t: Tried, samples: str) -> str:
    if t.agreement is None:
        refusal = f"the original refuses the samples ({samples}): {t.refused}"
        return f"caution: signature {t.signature} was not compared: {refusal}"
    top1 = "" if t.agreement.top1 is None else f", {t.agreement.top1:.2%} of the rows keep their best class"
    each = ", ".join(f"{name} {found.max_rel_error:.2g}" for name, found in t.outputs.items())
    by_output = f"; by output: {each}" if len(t.outputs) > 1 else ""
    return (
        f"signature {t.signature}: compiled by XLA and compared on {t.calls} samples ({samples}): max error "
        f"{t.agreement.max_rel_error:.2g}, mean {t.agreement.mean_rel_error:.2g} of the largest value{top1}{by_output}"
    )


def _bfloat16(b: Bfloat16Function) -> str:
    kept = ", ".join(f"{op} {count}" for op, count in b.kept.items()) or "none"
    where = " (host)" if b.on_host else ""
    return (
        f"bfloat16: {b.name}{where}: {sum(b.changed.values())} operations, {b.casts} casts; in float32 stayed: {kept}"
    )


def _variables(found: Bfloat16Variables) -> list[str]:
    told = [
        f"bfloat16: {found.changed} variables; the checkpoint shrinks from {size(found.bytes_before)} to "
        f"{size(found.bytes_after)}"
    ]
    reasons = collections.Counter(why for _, why in found.kept)
    stayed = [f"bfloat16: {count} variables stayed in float32: {why}" for why, count in sorted(reasons.items())]
    return (told if found.changed else []) + stayed


def _batched(b: BatchedFunction) -> str:
    sizes = ",".join(map(str, b.allowed_batch_sizes)) or "any"
    large = "split" if b.splitting else "refused"
    return (
        f"{b.name}: up to {b.max_batch_size} rows, sizes {sizes}, {b.batch_timeout_micros} us, {b.num_batch_threads} "
        f"threads, {b.max_enqueued_batches} batches in the queue, large requests {large}"
    )

"""Models that compute in bfloat16 themselves: no engine can agree with TensorFlow on them to float32 rounding.

bfloat16 keeps 8 bits. Where TensorFlow rounds after every operation a compiler rounds after every fused one, and both
are right. How far apart they are depends on the depth of the model, so the gate follows what the conversion measured
against float32, where it is known (docs/decisions/0156). Outputs that nothing in bfloat16 leads to keep the gate of all
others (0202).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer import verify
from tfopt_optimizer.graphs import Graph
from tfopt_optimizer.lineage import Lineage
from tfopt_optimizer.plan import Agreement, SignatureInfo
from tfopt_optimizer.tpu import report
from tfopt_optimizer.tpu.report import Report
from tfopt_optimizer.verify import Gate, Tolerance

BFLOAT16 = 14  # TensorFlow's number of the type
# Where nobody measured: four units in the last place at most, one on the average.
REL_ERROR, MEAN_ERROR = 2.0**-6, 2.0**-8
# TensorFlow's rounding and a compiler's are that far from float32 each: together at most twice as far.
TIMES = 2.0
LEAST, MOST = Tolerance(3 * 2.0**-8, 2.0**-9, 0.0), Tolerance(2.0**-4, 2.0**-6, 0.0)


def lossless(
    graph: Graph, signatures: Sequence[SignatureInfo], model: Path, max_rel_error: float, say: Callable[[str], None]
) -> dict[str, Gate]:
    """By signature the gate that exact candidates for the model in the folder `model` can pass. `max_rel_error` is the
    operator's, of float32 rounding; a larger one stays."""
    usual = verify.lossless(max_rel_error)
    rounded = {info.key: _rounded(graph, info) for info in signatures}
    if not any(rounded.values()):
        return {info.key: Gate(usual) for info in signatures}
    found, whence = _found(model)
    if max_rel_error >= found.max_rel_error:
        return {info.key: Gate(usual) for info in signatures}
    say(
        f"the model computes in bfloat16 itself ({whence}): exact candidates may be off by {found.max_rel_error:.2g} "
        f"of the largest value, and by {found.mean_rel_error:.2g} on the average{_where(signatures, rounded)}"
    )
    return {key: Gate(usual, dict.fromkeys(outputs, found)) for key, outputs in rounded.items()}


def _rounded(graph: Graph, signature: SignatureInfo) -> tuple[str, ...]:
    """The outputs that something in bfloat16 leads to."""
    lineage, fed = Lineage(graph, _in_bfloat16), [t.tensor for t in signature.inputs]
    return tuple(t.name for t in signature.outputs if lineage.below(t.tensor, fed))


def _where(signatures: Sequence[SignatureInfo], rounded: Mapping[str, Sequence[str]]) -> str:
    """Which outputs that holds for, where it does not for all."""
    if all(len(rounded[info.key]) == len(info.outputs) for info in signatures):
        return ""
    names = [f"{key} {', '.join(map(repr, outputs))}" for key, outputs in sorted(rounded.items()) if outputs]
    return f", in {'; '.join(names)} alone"


def _found(model: Path) -> tuple[Tolerance, str]:
    try:
        conversion = report.read(model)
    except report.ReportError as error:
        return Tolerance(REL_ERROR, MEAN_ERROR, 0.0), str(error)
    measured = _rounding(conversion) if conversion else []
    if not measured:
        return Tolerance(REL_ERROR, MEAN_ERROR, 0.0), "nobody measured how far that is from float32"
    largest = TIMES * max(a.max_rel_error for a in measured)
    mean = TIMES * max(a.mean_rel_error for a in measured)
    bounded = Tolerance(
        min(max(largest, LEAST.max_rel_error), MOST.max_rel_error),
        min(max(mean, LEAST.mean_rel_error), MOST.mean_rel_error),
        0.0,
    )
    return bounded, "its conversion measured how far that is from float32"


def _rounding(conversion: Report) -> list[Agreement]:
    """What the conversion to bfloat16, and nothing else, moved."""
    if not conversion.bfloat16 or conversion.quantized:
        return []
    return [t.agreement for t in conversion.tried if t.agreement is not None and t.agreement.max_rel_error]


def _in_bfloat16(node: Any) -> bool:
    return any(value.type == BFLOAT16 for value in node.attr.values())

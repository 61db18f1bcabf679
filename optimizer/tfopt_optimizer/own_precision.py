"""Models that compute in bfloat16 themselves: no engine can agree with TensorFlow on them to float32 rounding.

bfloat16 keeps 8 bits. Where TensorFlow rounds after every operation a compiler rounds after every fused one, and both
are right. How far apart they are depends on the depth of the model, so the gate follows what the conversion measured
against float32, where it is known (docs/decisions/0156).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tfopt_optimizer import verify
from tfopt_optimizer.plan import Agreement
from tfopt_optimizer.tpu import report
from tfopt_optimizer.tpu.report import Report
from tfopt_optimizer.verify import Tolerance

BFLOAT16 = 14  # TensorFlow's number of the type
# Where nobody measured: four units in the last place at most, one on the average.
REL_ERROR, MEAN_ERROR = 2.0**-6, 2.0**-8
# TensorFlow's rounding and a compiler's are that far from float32 each: together at most twice as far.
TIMES = 2.0
LEAST, MOST = Tolerance(3 * 2.0**-8, 2.0**-9, 0.0), Tolerance(2.0**-4, 2.0**-6, 0.0)


def lossless(meta: Any, model: Path, max_rel_error: float, say: Callable[[str], None]) -> Tolerance:
    """The gate that exact candidates for the MetaGraphDef in the folder `model` can pass. `max_rel_error` is the
    operator's, of float32 rounding; a larger one stays."""
    if not _holds(meta.graph_def):
        return verify.lossless(max_rel_error)
    found, whence = _found(model)
    if max_rel_error >= found.max_rel_error:
        return verify.lossless(max_rel_error)
    say(
        f"the model computes in bfloat16 itself ({whence}): exact candidates may be off by {found.max_rel_error:.2g} "
        f"of the largest value, and by {found.mean_rel_error:.2g} on the average"
    )
    return found


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


def _holds(graph: Any) -> bool:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return any(value.type == BFLOAT16 for body in bodies for node in body for value in node.attr.values())

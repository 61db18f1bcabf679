"""Models that compute in bfloat16 themselves: no engine can agree with TensorFlow on them to float32 rounding.

bfloat16 keeps 8 bits. Where TensorFlow rounds after every operation a compiler rounds after every fused one, and both
are right: measured 0.5 to 0.8 % of the largest value on the converter's test models. Pure.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from tfopt_optimizer.flags import OptimizerFlags

BFLOAT16 = 14  # TensorFlow's number of the type
REL_ERROR = 2.0**-6  # four units in the last place


def allowed_for(meta: Any, flags: OptimizerFlags, say: Callable[[str], None]) -> OptimizerFlags:
    """The flags with a gate that candidates for this MetaGraphDef can pass."""
    if flags.lossless_max_rel_error >= REL_ERROR or not _holds(meta.graph_def):
        return flags
    say(f"the model computes in bfloat16 itself: exact candidates may be off by {REL_ERROR:.2g} of the largest value")
    return dataclasses.replace(flags, lossless_max_rel_error=REL_ERROR)


def _holds(graph: Any) -> bool:
    bodies = [graph.node, *(f.node_def for f in graph.library.function)]
    return any(value.type == BFLOAT16 for body in bodies for node in body for value in node.attr.values())

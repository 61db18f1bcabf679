"""What the names of a plan's candidates mean: `litert/t2`, `openvino/f32-s2p1`, `host+xla`."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tfopt_optimizer.compression import PRECISIONS
from tfopt_optimizer.page import facts
from tfopt_optimizer.plan import Candidate

HOST = "what a compiler cannot take stays on the host, the rest runs on the engine"
_MEANINGS = (
    (r"tensorflow/function", "plain TensorFlow: tf.saved_model.load, and a call of the signature"),
    (r"tensorflow/session", "TensorFlow's session, as TensorFlow Serving calls it"),
    (r"tensorflow/inline", "the session, with all operations on the thread that calls it"),
    (r"\w+/t1", "one thread"),
    (r"\w+/t(\d+)", "{} threads"),
    (r"litert/s(\d+)", "a batch in {} parts side by side, one thread each"),
    (r"openvino/f32", "32-bit floats, one stream of all cores"),
    (r"openvino/f32-s(\d+)", "a batch in {} parts side by side, one thread each"),
    (r"openvino/f32-s(\d+)p1", "a batch in single rows over {} threads"),
    (r"openvino/f32-packed", "rows of all lengths together, their filling left out"),
    (r"openvino/f32-packed-s(\d+)", "rows of all lengths together, their filling left out, in {} parts side by side"),
    (r"openvino/f32-blocked", "convolutions on blocked layouts"),
    (r"openvino/f32-blocked-s(\d+)", "convolutions on blocked layouts, a batch in {} parts side by side"),
    (r"openvino/f32-blocked-funnel-s(\d+)",
     "convolutions on blocked layouts, the first row by row, the others by some rows, over {} threads"),
    (r"openvino/f32-amx", "exact products on the processor's bfloat16 unit"),
    (r"openvino/f32-winograd", "convolutions with fewer multiplications"),
    (r"openvino/f32-winograd-s(\d+)p1", "convolutions with fewer multiplications, single rows over {} threads"),
    (r"xla/pjrt", "compiled ahead of time, on the PJRT runtime"),
    (r"xla/jit", "compiled within TensorFlow: tf.function(jit_compile=True)"),
    (r"xla/gpu", "compiled ahead of time for the GPU"),
    (r"xla/tpu", "compiled ahead of time for the TPU"),
)  # fmt: skip


def meanings(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Name without "host+" -> meaning, in the candidates' order; "host+" first where there is one. Unknown names are
    left out."""
    found: dict[str, str] = {}
    split = False
    for c in candidates:
        split = split or c.engine != facts.device_engine(c.engine)
        name = f"{facts.device_engine(c.engine)}/{c.variant}".rstrip("/")
        if name not in found and (said := _meaning(name, c.precision)):
            found[name] = said
    return ({"host+": HOST} if split else {}) | found


def _meaning(name: str, precision: str) -> str:
    engine, _, variant = name.partition("/")
    base = variant.removesuffix(precision).rstrip("+") if precision else variant
    found = [m.format(*match.groups()) for p, m in _MEANINGS if (match := re.fullmatch(p, f"{engine}/{base}"))]
    about = [PRECISIONS[precision].about] if precision in PRECISIONS else []
    return "; ".join([*about, *found[:1]])

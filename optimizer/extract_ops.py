"""Writes tfopt_optimizer/ops.txt: every operation of the installed TensorFlow, and which of them XLA compiles.

Run by `make protos` after TensorFlow changes version. The list lets the doctor and `tfopt inspect` answer in
milliseconds, on machines without TensorFlow too.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HEADER = "# tensorflow {version}, GraphDef version {producer}. Written by optimizer/extract_ops.py: name[ xla]"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "tfopt_optimizer" / "ops.txt")
    out: Path = parser.parse_args(argv).out
    out.write_text(listing())
    return 0


def listing() -> str:
    import tensorflow as tf
    from tensorflow.core.framework import op_def_pb2
    from tensorflow.python.client import pywrap_tf_session
    from tensorflow.python.util import pywrap_xla_ops

    registered = op_def_pb2.OpList()
    registered.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    compiled = set(pywrap_xla_ops.get_cpu_kernel_names())
    names = sorted(op.name for op in registered.op)
    header = HEADER.format(version=tf.__version__, producer=tf.version.GRAPH_DEF_VERSION)
    return "\n".join([header, *(f"{name} xla" if name in compiled else name for name in names)]) + "\n"


if __name__ == "__main__":
    sys.exit(main())

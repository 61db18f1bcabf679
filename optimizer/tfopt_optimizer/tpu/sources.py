"""Where in the Python source does an operation come from: debug/saved_model_debug_info.pb, where the model has one.

tf.saved_model.save writes it with SaveOptions(save_debug_info=True).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_FILE = Path("debug", "saved_model_debug_info.pb")


def read(folder: Path) -> dict[tuple[str, str], str]:
    """(function, node) -> "model.py:12"; {} for a model without the file. Needs TensorFlow (for its message)."""
    path = folder / _FILE
    if not path.exists():
        return {}
    from tensorflow.core.framework import graph_debug_info_pb2

    info = graph_debug_info_pb2.GraphDebugInfo.FromString(path.read_bytes())
    traces = {name: _line(info, trace) for name, trace in info.traces.items()}
    for name, number in info.name_to_trace_id.items():
        trace = info.traces_by_id[number]
        traces[name] = _line(info, trace, [info.frames_by_id[f] for f in trace.frame_id])
    found = {}
    for name, line in traces.items():
        node, _, function = name.partition("@")
        if line:
            found[function, node] = line
    return found


def _line(info: Any, trace: Any, frames: Any = None) -> str:
    """The innermost frame that is neither TensorFlow's nor Keras's: the user's own line."""
    listed = list(frames if frames is not None else trace.file_line_cols)
    for frame in reversed(listed):
        name = info.files[frame.file_index] if frame.file_index < len(info.files) else ""
        if name and not any(f"/{package}/" in name for package in ("tensorflow", "keras", "tf_keras")):
            return f"{name}:{frame.line}"
    return ""

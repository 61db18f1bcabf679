"""--platform_config_file and --tensorflow_session_config_file: what TensorFlow Serving's texts mean here.

    platform_configs { key: "tensorflow" value { source_adapter_config {
      [type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig] { legacy_config {
        session_config { intra_op_parallelism_threads: 4 gpu_options { per_process_gpu_memory_fraction: 0.5 } }
        batching_parameters { max_batch_size { value: 32 } }  saved_model_tags: "serve" } } } } }

What a platform config says replaces the flags for batching and sessions, which TensorFlow Serving does not look at
then; a flag that was given wins over a session config. Fields that mean nothing here are named in one line of the log.
Unlike there, a platform config that does not mention warmup leaves --enable_model_warmup as it is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfopt_server import batching_parameters
from tfopt_server.batching_parameters import BatchingParametersError

PLATFORM = "tensorflow"
_ADAPTER = "tensorflow.serving.SavedModelBundleSourceAdapterConfig"


@dataclass
class Found:
    """`values` by the name of the flag, or of the Settings field, that they stand for; `unused`: fields without effect
    here; `problems`: texts without the flag's name."""

    values: dict[str, Any] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def session(path: Path) -> Found:
    """A ConfigProto."""
    found = Found()
    proto = _parsed(path, "tensorflow.ConfigProto", found)
    if proto is not None:
        _session(proto, found, "")
    return found


def platform(path: Path) -> Found:
    """A PlatformConfigMap."""
    found = Found()
    proto = _parsed(path, "tensorflow.serving.PlatformConfigMap", found)
    if proto is None:
        return found
    found.unused += [f"platform_configs {key!r}" for key in sorted(proto.platform_configs) if key != PLATFORM]
    if PLATFORM not in proto.platform_configs:
        found.problems.append(f'expected platform_configs with the key "{PLATFORM}", received none in {path}')
        return found
    wrapped = proto.platform_configs[PLATFORM].source_adapter_config
    from tfopt_protos import messages

    adapter = messages.message(_ADAPTER)()
    if not wrapped.Is(adapter.DESCRIPTOR):
        received = wrapped.type_url or "nothing"
        found.problems.append(f"expected a source_adapter_config of {_ADAPTER}, received {received} in {path}")
        return found
    wrapped.Unpack(adapter)
    _bundle(adapter.legacy_config, found, path)
    return found


def _parsed(path: Path, name: str, found: Found) -> Any:
    from google.protobuf import text_format
    from tfopt_protos import messages

    try:
        return messages.from_text(name, path.read_text())
    except (text_format.ParseError, UnicodeDecodeError, OSError) as error:
        found.problems.append(f"{path} is not a {name.rpartition('.')[2]} text: {error}")
        return None


def _bundle(proto: Any, found: Found, path: Path) -> None:
    """SessionBundleConfig."""
    values = found.values
    if proto.HasField("session_config"):
        _session(proto.session_config, found, "session_config.")
    values["enable_batching"] = proto.HasField("batching_parameters")
    if values["enable_batching"]:
        try:
            values["platform_batching"] = batching_parameters.from_proto(proto.batching_parameters, str(path))
        except BatchingParametersError as error:
            found.problems.append(str(error))
    if proto.saved_model_tags:
        values["saved_model_tags"] = tuple(proto.saved_model_tags)
    if proto.enable_model_warmup:
        values["enable_model_warmup"] = True
    warmup = proto.model_warmup_options
    if warmup.HasField("num_request_iterations"):
        values["num_request_iterations_for_warmup"] = warmup.num_request_iterations.value
    _others(proto, found, "", (
        "session_config", "batching_parameters", "saved_model_tags", "enable_model_warmup", "model_warmup_options",
    ))  # fmt: skip
    _others(warmup, found, "model_warmup_options.", ("num_request_iterations",))


def _session(proto: Any, found: Found, where: str) -> None:
    """ConfigProto. 0 threads: automatic, which is also what -1 (no pool) comes to here."""
    for name in ("intra_op_parallelism_threads", "inter_op_parallelism_threads"):
        if getattr(proto, name):
            found.values[f"tensorflow_{name.removesuffix('_threads')}"] = max(0, getattr(proto, name))
    gpu = proto.gpu_options
    if fraction := gpu.per_process_gpu_memory_fraction:
        if 0.0 < fraction <= 1.0:
            found.values["per_process_gpu_memory_fraction"] = fraction
        else:
            found.problems.append(f"expected per_process_gpu_memory_fraction from 0 to 1, received {fraction:g}")
    threads = ("intra_op_parallelism_threads", "inter_op_parallelism_threads")
    _others(proto, found, where, (*threads, "gpu_options"))
    _others(gpu, found, f"{where}gpu_options.", ("per_process_gpu_memory_fraction",))


def _others(proto: Any, found: Found, where: str, used: Collection[str]) -> None:
    found.unused += [f"{where}{each.name}" for each, _ in proto.ListFields() if each.name not in used]

"""What was asked for: one frozen Settings from argv and the environment; nothing else in the code base reads either.

Precedence, highest first: flags; the platform's AIP_* variables; MODEL_NAME and MODEL_BASE_PATH (TensorFlow Serving's
image); model_name and model_path (the prebuilt Vertex AI images); the flag's default. Empty variables count as unset.
TFOPT_DEVICE and TFOPT_LOG_STREAM are how an image says what --device and --log_stream are by default.

Rules for changing it: every flag of flags.py that has an effect is a field of the same name here, so a reader needs
one list; fields that are worked out from several sources stand in the last group. Mistakes are collected and raised
together as SettingsErrors, so that an operator needs one start to see them all.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tfopt_server import argv as arguments
from tfopt_server import flags, uris
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.flags import Flag, Value
from tfopt_server.uris import Uri

DEFAULT_REST_PORT = 8501
VERTEX_PORT = 8080  # what Vertex AI gives a container that declares no port


class SettingsErrors(Exception):
    """Everything that is wrong with the arguments and the environment; texts for the operator."""

    def __init__(self, errors: Sequence[str]) -> None:
        super().__init__("\n".join(errors))
        self.errors = tuple(errors)


@dataclasses.dataclass(frozen=True)
class Notice:
    """Something to say once in the log: a flag without effect (INFO) or one that looks like a mistake (WARNING)."""

    severity: Literal["INFO", "WARNING"]
    text: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """Field names are flag names, with units in them (`_s` seconds, `_ms`, `_micros`); flags.py has the meanings."""

    # Which model, and how it is loaded.
    model_name: str
    model_base_path: Path | Uri
    model_config_file: Path | None
    model_config_file_poll_wait_seconds: int
    allow_version_labels_for_unavailable_models: bool
    saved_model_tags: tuple[str, ...]
    file_system_poll_wait_seconds: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    enable_model_warmup: bool
    num_request_iterations_for_warmup: int
    # The optimizer.
    allow_precompilation: bool
    allow_compression: bool
    use_tfrt: bool
    disable_optimizer: bool
    allowed_batch_sizes: tuple[int, ...]
    lossless_max_rel_error: float
    lossy_mean_rel_error: float
    lossy_max_rel_error: float
    lossy_top1: float
    compression_requires_records: bool
    plan_cache_dir: Path
    optimize_for: str
    optimize_budget_s: float | None
    engines: tuple[str, ...]
    without_tensorflow: bool
    optimize_in_background: bool
    candidate_timeout_s: float
    optimize_timeout_s: float
    tensorflow_session_parallelism: int  # already filled into the two below
    tensorflow_intra_op_parallelism: int
    tensorflow_inter_op_parallelism: int
    # The device.
    device: str
    require_device: bool
    num_devices: int
    num_cores_per_replica: int
    per_process_gpu_memory_fraction: float
    # Batching.
    enable_batching: bool
    batching_parameters_file: Path | None
    enable_per_model_batching_parameters: bool
    # The faces.
    port: int
    grpc_socket_path: str
    grpc_channel_arguments: Mapping[str, int | str]
    ssl_config_file: Path | None
    enable_serialization_as_tensor_content: bool
    enable_signature_method_name_check: bool
    rest_api_port: int
    rest_api_timeout_in_ms: int
    rest_api_enable_cors_support: bool
    monitoring_config_file: Path | None
    http_port: int
    health_route: str
    predict_route: str
    max_body_bytes: int
    max_arriving_body_bytes: int
    # The process.
    workers: int
    drain_grace_s: float
    drain_timeout_s: float
    strict_flags: bool
    log_format: str
    log_stream: str
    log_level: str
    version: bool
    # Beyond TensorFlow Serving.
    max_answer_bytes: int
    explanation_spec_file: Path | None
    max_explain_rows: int
    otlp_traces_endpoint: str
    trace_sample_ratio: float
    enable_model_repository: bool
    response_cache_bytes: int
    response_cache_ttl_s: float
    response_cache_models: tuple[str, ...]
    record_warmup: int
    record_warmup_every: int
    record_warmup_dir: Path | None
    # What files of TensorFlow Serving's mean instead of flags.
    platform_config_file: Path | None
    tensorflow_session_config_file: Path | None
    platform_batching: BatchingParameters | None
    # A --plan_cache_dir in a bucket; the folder is then the default one.
    plan_bucket: Uri | None
    # Storage.
    model_cache_dir: Path
    storage_poll_wait_seconds: int
    # Worked out: the HTTP ports to listen on, the platform's first; () when REST is off. Whether this is Vertex AI.
    http_ports: tuple[int, ...]
    on_vertex: bool


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> tuple[Settings, tuple[Notice, ...]]:
    """Settings from `argv` (without the program's name) and `environ`. SettingsErrors with everything that is wrong."""
    return resolve(arguments.parse(argv, flags.ALL, environ), environ)


def resolve(parsed: arguments.Parsed, environ: Mapping[str, str]) -> tuple[Settings, tuple[Notice, ...]]:
    """`parse` for arguments that were already read, maybe by a table with flags of a sub-command's own."""
    values: dict[str, Any] = {f.name: f.default for f in flags.ALL} | dict(parsed.values)
    errors = list(parsed.errors)
    env = {k: arguments.expand(v, environ) for k, v in environ.items() if v and k in _READ}
    _fill_in(values, set(parsed.values), env, errors)
    from_files = _from_files(values, set(parsed.values), errors)
    errors += _refused(parsed.values) + _cross_field(values)
    for pool in ("tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism"):
        values[pool] = values[pool] or values["tensorflow_session_parallelism"]
    notices = [Notice("WARNING", u) for u in parsed.unresolved] + _inert(parsed.values) + from_files + _idle(values)
    strays = list(parsed.unknown) + [f"{p!r} is not a flag" for p in parsed.positionals]
    if values["strict_flags"]:
        errors += strays
    notices += [Notice("WARNING", f"{s}; ignored") for s in strays]
    if errors:
        raise SettingsErrors(errors)
    fields = {f.name for f in dataclasses.fields(Settings)}
    return Settings(**{k: v for k, v in values.items() if k in fields}), tuple(notices)


_READ = frozenset({
    "AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_STORAGE_URI", "AIP_MODE",
    "MODEL_NAME", "MODEL_BASE_PATH", "model_name", "model_path", "XDG_CACHE_HOME", "HOME", "TFOPT_DEVICE",
    "TFOPT_LOG_STREAM",
})  # fmt: skip


_FILES = (
    "batching_parameters_file", "monitoring_config_file", "ssl_config_file", "model_config_file",
    "explanation_spec_file", "tensorflow_session_config_file", "platform_config_file",
)  # fmt: skip


def _fill_in(v: dict[str, Any], given: set[str], env: Mapping[str, str], errors: list[str]) -> None:
    """Replaces every None in `v` by what the environment or the machine says."""
    v["on_vertex"] = "AIP_MODE" in env
    _model(v, env, errors)
    _ports(v, given, env, errors)
    _routes(v, given, env, errors)
    for name, variable, default in (("device", "TFOPT_DEVICE", "cpu"), ("log_stream", "TFOPT_LOG_STREAM", "stderr")):
        if v[name] is None:
            v[name] = _from_environment(name, variable, env, errors) if variable in env else default
    try:
        v["grpc_channel_arguments"] = _channel_arguments(v["grpc_channel_arguments"])
    except ValueError as error:
        errors.append(str(error))
    cache = cache_folder(env)
    v["plan_bucket"] = None
    if v["plan_cache_dir"] and uris.is_uri(v["plan_cache_dir"]):
        try:
            v["plan_bucket"] = uris.parse(v["plan_cache_dir"])
        except ValueError as error:
            errors.append(f"--plan_cache_dir: {error}")
        v["plan_cache_dir"] = None
    v["plan_cache_dir"] = Path(v["plan_cache_dir"] or cache / "plans").absolute()
    v["model_cache_dir"] = Path(v["model_cache_dir"] or cache / "models").absolute()
    v["record_warmup_dir"] = Path(v["record_warmup_dir"]).absolute() if v["record_warmup_dir"] else None
    for name in _FILES:
        v[name] = Path(v[name]).absolute() if v[name] else None
        if v[name] is not None and not v[name].is_file():
            errors.append(f"--{name}: expected a file, received {str(v[name])!r}")


def _from_files(v: dict[str, Any], given: set[str], errors: list[str]) -> list[Notice]:
    """What --platform_config_file and --tensorflow_session_config_file say, and what of it has no effect."""
    v["platform_batching"] = None
    notices = []
    for name in ("tensorflow_session_config_file", "platform_config_file"):
        path = v[name]
        if path is None or not path.is_file():
            continue
        from tfopt_server import session_config

        overrides = name == "platform_config_file"
        found = session_config.platform(path) if overrides else session_config.session(path)
        errors += [f"--{name}: {problem}" for problem in found.problems]
        v.update({k: value for k, value in found.values.items() if overrides or k not in given})
        if overrides:
            v["batching_parameters_file"] = v["batching_parameters_file"] if v["enable_batching"] else None
        if found.unused:
            notices.append(Notice("INFO", f"--{name}: has no effect here: {', '.join(found.unused)}"))
    return notices


def _model(v: dict[str, Any], env: Mapping[str, str], errors: list[str]) -> None:
    """Name and path. TensorFlow Serving's image serves $MODEL_BASE_PATH/$MODEL_NAME, by default /models/model."""
    in_serving_image = "MODEL_NAME" in env or "MODEL_BASE_PATH" in env
    serving_path = f"{env.get('MODEL_BASE_PATH', '/models')}/{env.get('MODEL_NAME', 'model')}"
    fallback_name = "model" if "MODEL_BASE_PATH" in env else "default"
    v["model_name"] = v["model_name"] or env.get("MODEL_NAME") or env.get("model_name") or fallback_name
    if "/" in v["model_name"]:
        errors.append(f"--model_name: expected a name without slashes, received {v['model_name']!r}")
    path = (
        v["model_base_path"]
        or env.get("AIP_STORAGE_URI")
        or (serving_path if in_serving_image else "")
        or env.get("model_path", "")
    )
    if v["model_config_file"]:
        path = ""  # the file's models are served, and what else names one is not looked at, as in TensorFlow Serving
    elif not path:
        errors.append("--model_base_path: expected a folder with a SavedModel, received nothing")
    if uris.is_uri(path):
        try:
            v["model_base_path"] = uris.parse(path)
        except ValueError as error:
            errors.append(f"--model_base_path: {error}")
    else:
        v["model_base_path"] = Path(os.path.abspath(path.replace("file://", "", 1)))


def _ports(v: dict[str, Any], given: set[str], env: Mapping[str, str], errors: list[str]) -> None:
    """The platform probes $AIP_HTTP_PORT; a --rest_api_port that says otherwise is served as well, not instead."""
    platform = v["http_port"]
    if platform is None and "AIP_HTTP_PORT" in env:
        platform = _from_environment("http_port", "AIP_HTTP_PORT", env, errors)
    if platform is None and "AIP_MODE" in env:
        platform = VERTEX_PORT
    rest = v["rest_api_port"]
    if rest is None:
        rest = platform if platform is not None else DEFAULT_REST_PORT
    ports = (platform, rest) if platform is not None else (rest,)
    v["http_ports"] = tuple(dict.fromkeys(p for p in ports if p))
    v["rest_api_port"] = rest
    v["http_port"] = v["http_ports"][0] if v["http_ports"] else 0


def _routes(v: dict[str, Any], given: set[str], env: Mapping[str, str], errors: list[str]) -> None:
    for name, variable in (("health_route", "AIP_HEALTH_ROUTE"), ("predict_route", "AIP_PREDICT_ROUTE")):
        source = f"--{name}" if name in given else variable
        v[name] = v[name] or env.get(variable) or f"/{name.removesuffix('_route')}"
        if not v[name].startswith("/"):
            errors.append(f"{source}: expected a path that starts with '/', received {v[name]!r}")


def _from_environment(name: str, variable: str, env: Mapping[str, str], errors: list[str]) -> Any:
    try:
        return arguments.convert(_flag(name), env[variable], variable)
    except ValueError as error:
        errors.append(str(error))
        return None


def _channel_arguments(text: str) -> Mapping[str, int | str]:
    """`k=v,k=v`; a value that is a whole number is an int argument, as TensorFlow Serving reads it (server.cc)."""
    found: dict[str, int | str] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise ValueError(f"--grpc_channel_arguments: expected key=value, received {pair!r}")
        found[key] = int(value) if re.fullmatch(r"-?\d+", value) else value
    return found


def _refused(given: Mapping[str, Value]) -> list[str]:
    return [f"--{f.name}: {f.refused}" for f in flags.ALL if f.refused and given.get(f.name, f.default) != f.default]


def _inert(given: Mapping[str, Value]) -> list[Notice]:
    return [
        Notice("INFO", f"--{f.name} has no effect here: {f.inert}") for f in flags.ALL if f.inert and f.name in given
    ]


def _idle(values: Mapping[str, Any]) -> list[Notice]:
    """Not a mistake: an image says which device, and arguments for another image must start it."""
    if values["device"] == "cpu" or values["use_tfrt"]:
        return []
    return [Notice("WARNING", f"--nouse_tfrt: nothing runs on the {values['device']}, only TensorFlow on the cpu")]


def _rising(sizes: Sequence[int]) -> bool:
    return all(a < b for a, b in itertools.pairwise(sizes))


# Each rule: when it is broken, and the text. TensorFlow Serving's own rules except the two on ports: it logs equal
# ports and serves without REST, which no platform that probes REST can use.
_RULES: tuple[tuple[Callable[[dict[str, Any]], bool], str], ...] = (
    (
        lambda v: v["batching_parameters_file"] is not None and not v["enable_batching"],
        "--batching_parameters_file: expected --enable_batching with it, received it alone",
    ),
    (
        lambda v: not _rising(v["allowed_batch_sizes"]),
        "--allowed_batch_sizes: expected rising sizes, received {allowed_batch_sizes}",
    ),
    (
        lambda v: v["port"] != 0 and v["port"] in v["http_ports"],
        "--port: expected another port than HTTP's, received {port} for both",
    ),
    (
        lambda v: v["port"] == 0 and not v["http_ports"] and not v["grpc_socket_path"],
        "--port: expected a port for gRPC or REST, received 0 for both and no --grpc_socket_path",
    ),
    (
        lambda v: bool(
            v["tensorflow_session_parallelism"]
            and v["tensorflow_intra_op_parallelism"]
            and v["tensorflow_inter_op_parallelism"]
        ),
        "--tensorflow_session_parallelism: expected it without the intra- and inter-op flags, received all three",
    ),
    (lambda v: not v["saved_model_tags"], "--saved_model_tags: expected at least one tag, received none"),
    (
        lambda v: v["require_device"] and v["device"] == "cpu",
        "--require_device: expected --device=gpu, tpu or auto with it, received cpu",
    ),
    (
        lambda v: v["num_cores_per_replica"] > 1 and v["device"] == "cpu",
        "--num_cores_per_replica: expected --device=gpu, tpu or auto with it, received cpu",
    ),
    (
        lambda v: v["drain_grace_s"] >= v["drain_timeout_s"],
        "--drain_grace_s: expected less than --drain_timeout_s ({drain_timeout_s:g}), received {drain_grace_s:g}",
    ),
)


def _cross_field(v: dict[str, Any]) -> list[str]:
    return [text.format(**v) for broken, text in _RULES if broken(v)]


def _flag(name: str) -> Flag:
    return next(f for f in flags.ALL if f.name == name)


def cache_folder(env: Mapping[str, str]) -> Path:
    """Where plans and models from buckets lie by default."""
    return Path(env.get("XDG_CACHE_HOME") or (f"{env['HOME']}/.cache" if "HOME" in env else "/tmp")) / "tfopt"

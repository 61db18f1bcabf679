"""Which flags exist: one row per flag, TensorFlow Serving's first, then the optimizer's, then our own.

Rules for changing it: a row is data and nothing here reads argv or the environment (argv.py does the one, settings.py
the other). `tensorflow_model_server`'s flags keep their name, type and default, because people paste its arguments
(names and defaults: TensorFlow Serving main.cc and server.h at 9d981c5). A row says in `inert` why the flag changes
nothing here, or in `refused` why a value other than the default cannot be served honestly (a TLS file that was ignored
would serve in the clear). Every other row has a field of the same name in settings.Settings; a test holds that.
"""

from __future__ import annotations

import dataclasses
import textwrap
from typing import Literal

Kind = Literal["bool", "int", "float", "str", "strs", "ints"]
Value = bool | int | float | str | tuple[str, ...] | tuple[int, ...] | None


@dataclasses.dataclass(frozen=True)
class Flag:
    """One flag. `default` None means "decided from the machine or the environment", as `meaning` says.

    `within` bounds numbers, both ends inclusive; `choices` lists the only values of a "str", or
    in "strs".
    """

    name: str
    kind: Kind
    default: Value
    meaning: str
    aliases: tuple[str, ...] = ()
    within: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    inert: str = ""
    refused: str = ""


_PORT = (0, 65535)
_COUNT = (0, 2**31 - 1)
_SECONDS = (0.0, 7 * 86400.0)
_LATER = "is not supported yet"

SERVING: tuple[Flag, ...] = (
    Flag("port", "int", 8500, "gRPC port; 0: off", within=_PORT),
    Flag("grpc_socket_path", "str", "", "also serve gRPC on this UNIX socket"),
    Flag("rest_api_port", "int", None, "REST port (default $AIP_HTTP_PORT, else 8501); 0: off", within=_PORT),
    Flag("rest_api_num_threads", "int", None, "", inert="each worker has one event loop; see --workers", within=_COUNT),
    Flag("rest_api_timeout_in_ms", "int", 30000, "longest a REST request may run", within=(1, 2**31 - 1)),
    Flag("rest_api_enable_cors_support", "bool", False, "CORS headers on every REST answer"),
    Flag("enable_batching", "bool", False, "merge concurrent requests as --batching_parameters_file says"),
    Flag(
        "allow_version_labels_for_unavailable_models", "bool", False,
        "labels in --model_config_file may name versions that are not available yet, as all are at the start",
    ),
    Flag("batching_parameters_file", "str", "", "BatchingParameters in text form; needs --enable_batching"),
    Flag(
        "enable_per_model_batching_parameters", "bool", False,
        "read batching_params.pbtxt in the version folder instead of --batching_parameters_file",
    ),
    Flag("model_config_file", "str", "", "ModelServerConfig in text form: several models, version policies, labels"),
    Flag(
        "model_config_file_poll_wait_seconds", "int", 0, "read --model_config_file again this often; 0: never",
        within=_COUNT,
    ),
    Flag("model_name", "str", None, "the model's name in routes and specs (default $MODEL_NAME, else default)"),
    Flag(
        "model_base_path", "str", None,
        "a SavedModel, or a folder of numbered versions of it, here or at gs://, s3://, az:// "
        "(default $AIP_STORAGE_URI, $MODEL_BASE_PATH/$MODEL_NAME, "
        "$model_path)",
    ),
    Flag("num_load_threads", "int", 0, "", inert="versions are loaded one after the other", within=_COUNT),
    Flag("num_unload_threads", "int", 0, "", inert="versions are unloaded one after the other", within=_COUNT),
    Flag("max_num_load_retries", "int", 5, "how often a version that failed to load is tried again", within=_COUNT),
    Flag("load_retry_interval_micros", "int", 60_000_000, "pause between those tries", within=(0, 2**63 - 1)),
    Flag(
        "file_system_poll_wait_seconds", "int", 1, "look for new versions this often; 0: once; negative: never",
        within=(-(2**31), 2**31 - 1),
    ),
    Flag("flush_filesystem_caches", "bool", True, "", inert="weights are memory-mapped: the page cache is their home"),
    Flag("tensorflow_session_parallelism", "int", 0, "threads of both TensorFlow pools; 0: automatic", within=_COUNT),
    Flag("tensorflow_intra_op_parallelism", "int", 0, "threads inside one TensorFlow op; 0: automatic", within=_COUNT),
    Flag("tensorflow_inter_op_parallelism", "int", 0, "TensorFlow ops at once; 0: automatic", within=_COUNT),
    Flag(
        "tensorflow_session_config_file", "str", "", "ConfigProto in text form: threads, share of a gpu's memory; "
        "flags that are given win",
    ),
    Flag("use_alts_credentials", "bool", False, "", refused=f"{_LATER}; end ALTS in front of the server"),
    Flag("ssl_config_file", "str", "", "SSLConfig in text form: TLS, or mutual TLS, on the gRPC port"),
    Flag(
        "platform_config_file", "str", "", "PlatformConfigMap in text form: threads, share of a gpu's memory, "
        "batching, tags, warmup, instead of their flags",
    ),
    Flag(
        "per_process_gpu_memory_fraction", "float", 0.0, "reserve this share of a gpu's memory at the start; 0: take "
        "what is needed, as XLA_CLIENT_MEM_FRACTION and XLA_PYTHON_CLIENT_PREALLOCATE say", within=(0.0, 1.0),
    ),
    Flag("saved_model_tags", "strs", ("serve",), "tags of the MetaGraph to load"),
    Flag("grpc_channel_arguments", "str", "", "k=v,k=v by gRPC's names: message limits, keepalive, connection age ..."),
    Flag(
        "grpc_max_threads", "int", None, "", inert="gRPC is served by each worker's event loop; see --workers",
        within=(1, 100_000),
    ),
    Flag("enable_model_warmup", "bool", True, "replay the model's warmup records before it is AVAILABLE"),
    Flag("num_request_iterations_for_warmup", "int", 0, "replay each record this often; 0: once", within=_COUNT),
    Flag("version", "bool", False, "print versions and exit"),
    Flag("monitoring_config_file", "str", "", "MonitoringConfig in text form (Prometheus on or off, and its path)"),
    Flag("remove_unused_fields_from_bundle_metagraph", "bool", True, "", inert="nothing here depends on those fields"),
    Flag("prefer_tflite_model", "bool", False, "", inert="engines are chosen by measurement"),
    Flag("num_tflite_pools", "int", None, "", inert="there is no TFLite interpreter pool", within=_COUNT),
    Flag("num_tflite_interpreters_per_pool", "int", 1, "", inert="there is no TFLite interpreter pool", within=_COUNT),
    Flag(
        "enable_signature_method_name_check", "bool", False,
        "classify and regress only signatures whose method_name says so",
    ),
    Flag("xla_cpu_compilation_enabled", "bool", False, "", inert="see --allow_precompilation"),
    Flag("xla_gpu_compilation_enabled", "bool", False, "", inert="see --allow_precompilation"),
    Flag("enable_profiler", "bool", True, "", inert="there is no TensorFlow profiler service"),
    Flag("thread_pool_factory_config_file", "str", "", "", inert="thread counts have flags of their own"),
    Flag("mixed_precision", "str", "", "", choices=("", "bfloat16"), inert="see --allow_compression"),
    Flag("skip_initialize_tpu", "bool", False, "", inert="a TPU is used where --device says so"),
    Flag("enable_grpc_healthcheck_service", "bool", False, "", inert="the gRPC health service is always on"),
    Flag(
        "enable_serialization_as_tensor_content", "bool", False,
        "gRPC answers carry tensors as raw bytes instead of typed fields",
    ),
)  # fmt: skip

OPTIMIZER: tuple[Flag, ...] = (
    Flag(
        "allow_precompilation", "bool", False, "the xla engine joins the tournament; every bucket is compiled first",
    ),
    Flag(
        "allow_compression", "bool", False, "candidates that change precision join; each must pass the accuracy gate",
        ("allow_precision_affecting_optimizations",),
    ),
    Flag("use_tfrt", "bool", True, "compiled segments run on PJRT; false: jit_compile inside TensorFlow"),
    Flag("disable_optimizer", "bool", False, "run the SavedModel as it is"),
    Flag(
        "allowed_batch_sizes", "ints", (), "the batch buckets, rising (default: batching file, warmup records, or "
        "1,2,4,8,16,32)", ("allow_batch_sizes",), within=(1, 2**20),
    ),
    Flag(
        "lossless_max_rel_error", "float", 1e-4, "largest error a lossless candidate may have, relative to the "
        "output's largest magnitude", within=(0.0, 1.0),
    ),
    Flag(
        "lossy_mean_rel_error", "float", 1e-4, "largest mean error of a candidate that --allow_compression lets in, "
        "relative to the output's largest magnitude", within=(0.0, 1.0),
    ),
    Flag("lossy_max_rel_error", "float", 1e-2, "largest error of such a candidate anywhere", within=(0.0, 1.0)),
    Flag("lossy_top1", "float", 0.99, "least share of rows whose best class it must keep", within=(0.0, 1.0)),
    Flag(
        "compression_requires_records", "bool", False,
        "no such candidate where the model has no warmup records to check it on",
    ),
    Flag(
        "plan_cache_dir", "str", None, "where plans are kept, a folder or gs://, s3://, az:// (default "
        "~/.cache/tfopt/plans)",
    ),
    Flag(
        "optimize_for", "str", "latency", "what decides between right candidates: the latency of a lone call, the "
        "throughput with all cores busy, or the memory of runners that are not slower than plain TensorFlow",
        choices=("latency", "throughput", "memory"),
    ),
    Flag(
        "optimize_budget_s", "float", None, "seconds for trying candidates; the likeliest come first (default 30, with "
        "allow_precompilation or allow_compression 300)", within=_SECONDS,
    ),
    Flag(
        "engines", "strs", (), "the only engines that may take part beside plain TensorFlow, as far as the other flags "
        "allow (default: all that are installed)", choices=("litert", "onnxruntime", "openvino", "xla"),
    ),
    Flag(
        "without_tensorflow", "bool", False, "a plan that runs where TensorFlow is not installed, in a runtime image: "
        "an error for signatures that no other engine takes",
    ),
    Flag("optimize_in_background", "bool", False, "serve plain TensorFlow at once, and the plan when it is ready"),
    Flag("candidate_timeout_s", "float", 300.0, "a candidate that takes longer is dropped", within=_SECONDS),
    Flag(
        "optimize_timeout_s", "float", 3600.0, "an optimization that takes longer ends; the model runs on TensorFlow",
        within=_SECONDS,
    ),
)  # fmt: skip

OWN: tuple[Flag, ...] = (
    Flag(
        "device", "str", None, "where compiled segments run; auto: a gpu or tpu if one is there (default "
        "$TFOPT_DEVICE, else cpu)", choices=("cpu", "gpu", "tpu", "auto"),
    ),
    Flag("require_device", "bool", False, "end with an error where --device is not there, instead of serving on cpu"),
    Flag(
        "num_cores_per_replica", "int", 1, "gpus or tpu cores over which each replica of a model is spread, its large "
        "weights in parts", within=(1, 1024),
    ),
    Flag("num_devices", "int", 0, "gpus or tpu cores that serve replicas of every model; 0: all", within=(0, 1024)),
    Flag("http_port", "int", None, "HTTP port of the platform (default $AIP_HTTP_PORT)", within=_PORT),
    Flag("health_route", "str", None, "health route (default $AIP_HEALTH_ROUTE, else /health)"),
    Flag("predict_route", "str", None, "predict route (default $AIP_PREDICT_ROUTE, else /predict)"),
    Flag("workers", "int", 1, "server processes; more than one only pays for tiny models", within=(1, 1024)),
    Flag("max_body_bytes", "int", 2**31 - 1, "largest REST request body; 0: any", within=(0, 2**40)),
    Flag(
        "max_arriving_body_bytes", "int", 2**31 - 1,
        "REST request bodies of all connections that have not come whole, together, in each process; 0: any",
        within=(0, 2**40),
    ),
    Flag("drain_grace_s", "float", 0.0, "after SIGTERM, keep accepting connections this long", within=_SECONDS),
    Flag("drain_timeout_s", "float", 30.0, "after SIGTERM, the process is gone within this time", within=_SECONDS),
    Flag("strict_flags", "bool", False, "an unknown flag is an error, not a warning"),
    Flag(
        "log_format", "str", "auto", "auto: human on a terminal, else json", choices=("auto", "json", "human")
    ),
    Flag(
        "log_stream", "str", None, "where the log goes (default $TFOPT_LOG_STREAM, else stderr)",
        choices=("stdout", "stderr"),
    ),
    Flag(
        "log_level", "str", "info", "the least severe line that is written",
        choices=("debug", "info", "warning", "error"),
    ),
)  # fmt: skip

BEYOND: tuple[Flag, ...] = (
    Flag("max_answer_bytes", "int", 0, "largest REST answer that is not streamed; 0: any", within=(0, 2**40)),
    Flag(
        "explanation_spec_file", "str", "", "ExplanationSpec (JSON) for :explain; else explanation_metadata.json "
        "beside the model, if there is one",
    ),
    Flag(
        "record_warmup", "int", 0, "record up to this many live requests of each version as its warmup file; 0: none",
        within=(0, 1000),
    ),
    Flag("record_warmup_every", "int", 1, "look at each N-th request only, and at new shapes", within=(1, 2**31 - 1)),
    Flag(
        "record_warmup_dir", "str", "", "where those files go, as MODEL/VERSION/assets.extra/... (default: beside the "
        "model)",
    ),
    Flag(
        "response_cache_bytes", "int", 0, "remember answers by their inputs' bytes, up to this much per model; 0: none",
        within=(0, 2**50),
    ),
    Flag("response_cache_ttl_s", "float", 60.0, "how long such an answer is remembered", within=_SECONDS),
    Flag("response_cache_models", "strs", (), "the models whose answers are remembered (default: all)"),
    Flag(
        "otlp_traces_endpoint", "str", "", "send OpenTelemetry traces there, by OTLP over HTTP: "
        "http://collector:4318/v1/traces; needs tfopt[tracing]",
    ),
    Flag("trace_sample_ratio", "float", 1.0, "share of traces kept where the client did not decide", within=(0.0, 1.0)),
    Flag(
        "enable_model_repository", "bool", False, "clients may load and unload models by name (Open Inference "
        "Protocol's repository)",
    ),
    Flag("max_explain_rows", "int", 100_000, "rows that one :explain request may run", within=(1, 2**31 - 1)),
)  # fmt: skip

STORAGE: tuple[Flag, ...] = (
    Flag("model_cache_dir", "str", None, "where models from buckets are kept (default ~/.cache/tfopt/models)"),
    Flag(
        "storage_poll_wait_seconds", "int", 30, "look for new versions in buckets this often; never where "
        "--file_system_poll_wait_seconds says so", within=(1, 2**31 - 1),
    ),
)  # fmt: skip

GROUPS = {
    "tfopt": OWN,
    "beyond TensorFlow Serving": BEYOND,
    "storage": STORAGE,
    "optimizer": OPTIMIZER,
    "TensorFlow Serving": SERVING,
}
ALL: tuple[Flag, ...] = SERVING + OPTIMIZER + OWN + BEYOND + STORAGE


def usage() -> str:
    """The flags as help text in groups; flags without effect are listed by name only."""
    lines: list[str] = []
    for group, table in GROUPS.items():
        lines += [f"\n{group} flags:"]
        lines += [
            _row(f"--{f.name}{_hint(f)}", f.meaning + _default(f)) for f in table if not f.inert and not f.refused
        ]
    without = textwrap.wrap(", ".join(f.name for f in ALL if f.inert), 108)
    return "\n".join([*lines, "\nAccepted, without effect here:", *(f"  {line}" for line in without)]) + "\n"


def _row(left: str, right: str) -> str:
    wrapped = textwrap.wrap(right, 66)
    return "\n".join([f"  {left:<42} {wrapped[0]}", *(" " * 45 + line for line in wrapped[1:])])


def _hint(flag: Flag) -> str:
    if flag.choices:
        return "=" + ("," if flag.kind == "strs" else "|").join(c for c in flag.choices if c)
    return {"bool": "", "int": "=N", "float": "=X", "str": "=TEXT", "strs": "=A,B", "ints": "=N,N"}[flag.kind]


def _default(flag: Flag) -> str:
    shown = ",".join(map(str, flag.default)) if isinstance(flag.default, tuple) else str(flag.default).lower()
    parts = [] if flag.default in (None, "", ()) else [shown]
    parts += [f"also --{alias}" for alias in flag.aliases]
    return f" [{'; '.join(parts)}]" if parts else ""

"""Settings from flags and environment: precedence, derived fields, all mistakes at once."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
from tfopt_server import flags
from tfopt_server.settings import Notice, Settings, SettingsErrors, parse

MODEL = "--model_base_path=/models/m"
VERTEX = {
    "AIP_HTTP_PORT": "8080",
    "AIP_HEALTH_ROUTE": "/v1/endpoints/1/deployedModels/2",
    "AIP_PREDICT_ROUTE": "/v1/endpoints/1/deployedModels/2:predict",
    "AIP_STORAGE_URI": "/mnt/artifact",
    "AIP_MODE": "PREDICTION",
}


def read(*argv: str, **environ: str) -> Settings:
    settings, notices = parse(argv, environ)
    assert [n for n in notices if n.severity == "WARNING"] == []
    return settings


def fields(settings: Settings, *names: str) -> tuple:
    return tuple(getattr(settings, name) for name in names)


def mistakes(*argv: str, **environ: str) -> tuple[str, ...]:
    with pytest.raises(SettingsErrors) as caught:
        parse(argv, environ)
    return caught.value.errors


def test_every_flag_that_has_an_effect_is_a_field_of_the_same_name():
    effective = {f.name for f in flags.ALL if not f.inert and not f.refused}
    assert {f.name for f in dataclasses.fields(Settings)} - effective == {
        "http_ports", "on_vertex", "platform_batching", "plan_bucket"
    }  # fmt: skip
    assert effective - {f.name for f in dataclasses.fields(Settings)} == set()


def test_no_field_is_for_show():
    """Everything that flags.py calls effective is read by somebody."""
    package = Path(__file__).parents[2] / "server" / "tfopt_server"
    code = "".join(p.read_text() for p in package.rglob("*.py") if p.name not in ("settings.py", "flags.py"))
    filled_in_here = {
        "rest_api_port", "tensorflow_session_parallelism", "strict_flags", "platform_config_file",
        "tensorflow_session_config_file",
    }  # fmt: skip
    unread = {f.name for f in dataclasses.fields(Settings) if not re.search(rf"settings\.{f.name}\b", code)}
    assert unread == filled_in_here


def test_nothing_asked_for_gives_tensorflow_servings_defaults():
    settings = read(MODEL)
    for flag in flags.ALL:
        if flag.default is not None and flag.default != "" and hasattr(settings, flag.name):
            assert getattr(settings, flag.name) == flag.default, flag.name
    assert fields(settings, "model_name", "port", "http_ports", "health_route", "predict_route") == (
        "default", 8500, (8501,), "/health", "/predict"
    )  # fmt: skip


def test_on_vertex_the_environment_is_enough():
    settings = read(**VERTEX)
    assert fields(settings, "model_base_path", "http_port", "http_ports", "health_route", "predict_route") == (
        Path("/mnt/artifact"), 8080, (8080,), VERTEX["AIP_HEALTH_ROUTE"], VERTEX["AIP_PREDICT_ROUTE"]
    )  # fmt: skip


def test_the_arguments_of_a_prebuilt_vertex_image_swap_in():
    """As observed for tf2-* images: contract 1.8. Vertex expands $(AIP_STORAGE_URI), plain docker does not."""
    settings = read(
        "--port=8500", "--rest_api_port=8080", "--model_name=default", "--model_base_path=$(AIP_STORAGE_URI)", **VERTEX
    )  # fmt: skip
    assert fields(settings, "port", "http_ports", "model_name", "model_base_path") == (
        8500, (8080,), "default", Path("/mnt/artifact")
    )  # fmt: skip


def test_flags_win_over_the_platforms_variables_and_those_over_the_images():
    images = {"MODEL_NAME": "n1", "MODEL_BASE_PATH": "/b1", "model_name": "n2", "model_path": "/p2"}
    steps = [
        (["--model_name=n0", "--model_base_path=/b0"], VERTEX | images, ("n0", "/b0")),
        ([], VERTEX | images, ("n1", "/mnt/artifact")),
        ([], images, ("n1", "/b1/n1")),
        ([], {"model_name": "n2", "model_path": "/p2"}, ("n2", "/p2")),
        ([], {"MODEL_NAME": "n1"}, ("n1", "/models/n1")),
        ([], {"MODEL_BASE_PATH": "/b1"}, ("model", "/b1/model")),
        ([], {"model_path": "/p2"}, ("default", "/p2")),
        ([], {"AIP_STORAGE_URI": "", "model_path": "/p2"}, ("default", "/p2")),
    ]
    for argv, environ, (name, path) in steps:
        assert fields(read(*argv, **environ), "model_name", "model_base_path") == (name, Path(path)), (argv, environ)


@pytest.mark.parametrize(
    ("argv", "environ", "port", "ports"),
    [
        ([], {}, 8501, (8501,)),
        (["--rest_api_port=9000"], {}, 9000, (9000,)),
        ([], {"AIP_HTTP_PORT": "8080"}, 8080, (8080,)),
        ([], {"AIP_MODE": "PREDICTION"}, 8080, (8080,)),
        # The platform probes its port and a client may use the other one: both are served.
        (["--rest_api_port=9000"], {"AIP_HTTP_PORT": "8080"}, 8080, (8080, 9000)),
        (["--http_port=7000"], {"AIP_HTTP_PORT": "8080"}, 7000, (7000,)),
        (["--rest_api_port=0"], {"AIP_HTTP_PORT": "8080"}, 8080, (8080,)),
        (["--rest_api_port=0"], {}, 0, ()),
    ],
)
def test_http_ports(argv, environ, port, ports):
    assert fields(read(MODEL, *argv, **environ), "http_port", "http_ports") == (port, ports)


def test_variables_expand_in_variables_too():
    assert read(MODEL_BASE_PATH="$(ROOT)/m", MODEL_NAME="x", ROOT="/r").model_base_path == Path("/r/m/x")


def test_every_mistake_is_reported_at_once():
    found = mistakes(
        "--port=x", "--ssl_config_file=/no/tls.txt", "--batching_parameters_file=/no/such", "--allowed_batch_sizes=4,2",
        "--grpc_channel_arguments=a", "--saved_model_tags=", "--drain_grace_s=30", "--model_name=a/b",
        "--tensorflow_session_parallelism=1", "--tensorflow_intra_op_parallelism=1",
        "--tensorflow_inter_op_parallelism=1",
        AIP_HTTP_PORT="http", AIP_STORAGE_URI="hdfs://bucket/model", AIP_HEALTH_ROUTE="health",
    )  # fmt: skip
    assert found == (
        "--port: expected a whole number from 0 to 65535, received 'x'",
        "--model_name: expected a name without slashes, received 'a/b'",
        "--model_base_path: expected a folder, gs://, s3:// or az://, received 'hdfs://bucket/model'",
        "AIP_HTTP_PORT: expected a whole number from 0 to 65535, received 'http'",
        "AIP_HEALTH_ROUTE: expected a path that starts with '/', received 'health'",
        "--grpc_channel_arguments: expected key=value, received 'a'",
        "--batching_parameters_file: expected a file, received '/no/such'",
        "--ssl_config_file: expected a file, received '/no/tls.txt'",
        "--batching_parameters_file: expected --enable_batching with it, received it alone",
        "--allowed_batch_sizes: expected rising sizes, received (4, 2)",
        "--tensorflow_session_parallelism: expected it without the intra- and inter-op flags, received all three",
        "--saved_model_tags: expected at least one tag, received none",
        "--drain_grace_s: expected less than --drain_timeout_s (30), received 30",
    )


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--port=9000", "--rest_api_port=9000"], "--port: expected another port than HTTP's, received 9000 for both"),
        (
            ["--port=0", "--rest_api_port=0"],
            "--port: expected a port for gRPC or REST, received 0 for both and no --grpc_socket_path",
        ),
        (["--allowed_batch_sizes=2,2"], "--allowed_batch_sizes: expected rising sizes, received (2, 2)"),
        (["--use_alts_credentials"], "--use_alts_credentials: is not supported yet; end ALTS in front of the server"),
    ],
)
def test_rules_between_flags(argv, said):
    assert mistakes(MODEL, *argv) == (said,)


def test_no_model_at_all():
    assert mistakes() == ("--model_base_path: expected a folder with a SavedModel, received nothing",)


def test_the_session_flag_fills_both_pools_and_a_pools_own_flag_wins():
    settings = read(MODEL, "--tensorflow_session_parallelism=3", "--tensorflow_inter_op_parallelism=1")
    assert fields(settings, "tensorflow_intra_op_parallelism", "tensorflow_inter_op_parallelism") == (3, 1)


def test_what_is_ignored_is_said_and_strict_flags_makes_it_a_mistake():
    argv = [MODEL, "--num_load_threads=4", "--enable_bathing", "8", "--noenable_profiler"]
    _, notices = parse(argv, {})
    assert notices == (
        Notice("INFO", "--num_load_threads has no effect here: versions are loaded one after the other"),
        Notice("INFO", "--enable_profiler has no effect here: there is no TensorFlow profiler service"),
        Notice("WARNING", "unknown flag --enable_bathing; did you mean --enable_batching?; ignored"),
        Notice("WARNING", "'8' is not a flag; ignored"),
    )  # fmt: skip
    assert mistakes(*argv, "--strict_flags") == (
        "unknown flag --enable_bathing; did you mean --enable_batching?", "'8' is not a flag"
    )  # fmt: skip


def test_where_plans_are_kept():
    assert read(MODEL, HOME="/home/u").plan_cache_dir == Path("/home/u/.cache/tfopt/plans")
    assert read(MODEL, HOME="/home/u", XDG_CACHE_HOME="/c").plan_cache_dir == Path("/c/tfopt/plans")
    assert read(MODEL).plan_cache_dir == Path("/tmp/tfopt/plans")
    assert read(MODEL, "--plan_cache_dir=/p").plan_cache_dir == Path("/p")


def test_settings_are_one_frozen_value():
    settings = read(MODEL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]


def test_the_environment_is_handed_out_in_one_place():
    """Nobody reads `os.environ` but __main__, which passes it on, and what a Beam worker enters by; native libraries
    are told things by writing to it."""
    reads = r"\bos\.(getenv|environb?)\b(?!\.setdefault\(|\[[^]]+\] = )"
    root = Path(__file__).parents[2]
    packages = ("server/tfopt_server", "optimizer/tfopt_optimizer", "warmup/tfopt_warmup", "protos/tfopt_protos")
    paths = [path for package in packages for path in sorted((root / package).rglob("*.py"))]
    readers = [str(p.relative_to(root)) for p in paths if re.search(reads, p.read_text())]
    assert readers == ["server/tfopt_server/__main__.py", "server/tfopt_server/beam/scorer.py"]

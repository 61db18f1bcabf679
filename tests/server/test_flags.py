"""The table of flags, and how arguments are read by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tfopt_server import flags
from tfopt_server.argv import Parsed, expand, parse, unquote

# tensorflow_model_server's flags at 9d981c5 (main.cc), so that a row cannot get lost here.
TENSORFLOW_SERVING = """
port grpc_socket_path rest_api_port rest_api_num_threads rest_api_timeout_in_ms rest_api_enable_cors_support
enable_batching allow_version_labels_for_unavailable_models batching_parameters_file
enable_per_model_batching_parameters model_config_file model_config_file_poll_wait_seconds model_name model_base_path
num_load_threads num_unload_threads max_num_load_retries load_retry_interval_micros file_system_poll_wait_seconds
flush_filesystem_caches tensorflow_session_parallelism tensorflow_intra_op_parallelism tensorflow_inter_op_parallelism
tensorflow_session_config_file use_alts_credentials ssl_config_file platform_config_file
per_process_gpu_memory_fraction saved_model_tags grpc_channel_arguments grpc_max_threads enable_model_warmup
num_request_iterations_for_warmup version monitoring_config_file remove_unused_fields_from_bundle_metagraph
prefer_tflite_model num_tflite_pools num_tflite_interpreters_per_pool enable_signature_method_name_check
xla_cpu_compilation_enabled xla_gpu_compilation_enabled enable_profiler thread_pool_factory_config_file
mixed_precision skip_initialize_tpu enable_grpc_healthcheck_service enable_serialization_as_tensor_content
"""


def values(*argv: str, environ: dict[str, str] | None = None) -> dict:
    """What was read from arguments without a mistake in them."""
    parsed = parse(argv, flags.ALL, environ or {})
    assert parsed == Parsed(parsed.values, (), (), (), ())
    return dict(parsed.values)


def test_the_table_has_every_flag_of_tensorflow_serving_and_no_name_twice():
    assert [f.name for f in flags.SERVING] == TENSORFLOW_SERVING.split()
    names = [n for f in flags.ALL for n in (f.name, *f.aliases)]
    assert len(names) == len(set(names))


def test_every_row_either_works_and_says_what_it_means_or_says_why_it_does_not():
    for flag in flags.ALL:
        assert bool(flag.meaning) != bool(flag.inert or flag.refused), flag.name
        assert not (flag.inert and flag.refused), flag.name


@pytest.mark.parametrize(
    ("argv", "read"),
    [
        (["--port=9000"], {"port": 9000}),
        (["--port", "9000"], {"port": 9000}),
        (["-port=9000"], {"port": 9000}),
        (["-port", "9000"], {"port": 9000}),
        (["--port=1", "--port=2"], {"port": 2}),
        (["--enable_batching"], {"enable_batching": True}),
        (["--enable_batching=False"], {"enable_batching": False}),
        (["--enable_batching=0"], {"enable_batching": False}),
        (["--noenable_model_warmup"], {"enable_model_warmup": False}),
        (["--allow_precompilation", "--allow_compression"], {"allow_precompilation": True, "allow_compression": True}),
        (["--allow_precision_affecting_optimizations"], {"allow_compression": True}),
        (["--noallow_precision_affecting_optimizations"], {"allow_compression": False}),
        (["--allow_batch_sizes=1,8"], {"allowed_batch_sizes": (1, 8)}),
        (["--allowed_batch_sizes", "1, 8 32"], {"allowed_batch_sizes": (1, 8, 32)}),
        (["--file_system_poll_wait_seconds", "-1"], {"file_system_poll_wait_seconds": -1}),
        (["--model_base_path="], {"model_base_path": ""}),
        (["--model_base_path", ""], {"model_base_path": ""}),
        (["--drain_timeout_s=1.5"], {"drain_timeout_s": 1.5}),
        (["--grpc_channel_arguments=a=1,b=c"], {"grpc_channel_arguments": "a=1,b=c"}),
    ],
)
def test_spellings(argv, read):
    assert values(*argv) == read


@pytest.mark.parametrize(
    "argv",
    [
        ["--saved_model_tags='serve,tpu'"],  # as a public deployment passes it to tf_opt
        ['--saved_model_tags="serve,tpu"'],
        ["'--saved_model_tags=serve,tpu'"],
        ['"--saved_model_tags=serve,tpu"'],
        ["--saved_model_tags", "'serve,tpu'"],
        ["  --saved_model_tags=serve,tpu\n"],
        ["--saved_model_tags='serve','tpu'"],
    ],
)
def test_quotes_that_no_shell_took_off(argv):
    assert values(*argv) == {"saved_model_tags": ("serve", "tpu")}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$(A)/x", "1/x"),
        ("$(A)$(B)", "12"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$(NOBODY)", "$(NOBODY)"),
        ("$(A", "$(A"),
        ("$A ${A} $", "$A ${A} $"),
        ("$()", "$()"),
    ],
)
def test_variables_expand_as_on_kubernetes_and_vertex(text, expanded):
    """The cases of kubernetes/third_party/forked/golang/expansion that can occur in arguments."""
    assert expand(text, {"A": "1", "B": "2"}) == expanded


def test_a_variable_that_is_not_set_stays_and_is_pointed_out():
    parsed = parse(["--model_base_path=$(AIP_STORAGE_URI)/1"], flags.ALL, {})
    assert parsed == Parsed(
        {"model_base_path": "$(AIP_STORAGE_URI)/1"}, (), (), ("--model_base_path: $(AIP_STORAGE_URI) is not set",), ()
    )


def test_unknown_flags_are_kept_apart_with_the_nearest_known_name():
    parsed = parse(
        ["--allow_precompilaton", "--zzz=1", "--batch", "8", "--port=1", "stray"], flags.ALL, {}
    )  # fmt: skip
    assert parsed == Parsed(
        values={"port": 1},
        positionals=("8", "stray"),
        unknown=(
            "unknown flag --allow_precompilaton; did you mean --allow_precompilation?",
            "unknown flag --zzz",
            "unknown flag --batch",
        ),
        unresolved=(),
        errors=(),
    )


def test_after_two_dashes_there_are_no_flags():
    assert parse(["--port=1", "--", "--port=2"], flags.ALL, {}).positionals == ("--port=2",)


def test_every_mistake_is_named_with_what_was_expected_and_what_came():
    parsed = parse(
        [
            "--port=http", "--rest_api_port=70000", "--workers=0", "--enable_batching=maybe", "--log_format=xml",
            "--allowed_batch_sizes=1,two", "--enable_model_warmup", "false", "--noenable_batching=true",
            "--candidate_timeout_s=nan", "--model_name",
        ],
        flags.ALL, {},
    )  # fmt: skip
    assert parsed.errors == (
        "--port: expected a whole number from 0 to 65535, received 'http'",
        "--rest_api_port: expected a whole number from 0 to 65535, received '70000'",
        "--workers: expected a whole number from 1 to 1024, received '0'",
        "--enable_batching: expected true or false, received 'maybe'",
        "--log_format: expected one of 'auto', 'json', 'human', received 'xml'",
        "--allowed_batch_sizes: expected whole numbers with commas between from 1 to 1048576, received '1,two'",
        "--enable_model_warmup: expected --enable_model_warmup=false, received 'false' as a separate argument",
        "--noenable_batching: expected no value after a negated flag, received 'true'",
        "--candidate_timeout_s: expected a number from 0 to 604800, received 'nan'",
        "--model_name: expected a text, received nothing",
    )
    assert parsed.values == {}


@given(st.lists(st.text(max_size=20), max_size=6))
def test_no_argument_can_break_the_parser(argv):
    parsed = parse(argv, flags.ALL, {})
    assert all(isinstance(text, str) for text in (*parsed.unknown, *parsed.errors, *parsed.positionals))


@given(st.text())
def test_one_pair_of_quotes_comes_off(text):
    inner = text.replace("'", "")
    assert unquote(f"'{inner}'") == inner


def test_help_shows_every_flag():
    usage = flags.usage()
    assert [f.name for f in flags.ALL if f.name not in usage and not f.refused] == []
    assert max(len(line) for line in usage.splitlines()) <= 120

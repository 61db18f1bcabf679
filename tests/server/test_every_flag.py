# ruff: noqa: E501 - a row of a table reads best on one line
"""Every flag of tensorflow_model_server: what shows that it does its work, or that it is accepted with one line.

A row names the test in which the flag has its effect; the test must exist. A flag without a row must be one without
effect here: each of those is taken with a value of its type and named exactly once.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from tfopt_server import flags
from tfopt_server.flags import Flag
from tfopt_server.settings import SettingsErrors, parse

TESTS = Path(__file__).parents[1]

WORKS = {
    "port": "process/test_serve.py::test_a_grpc_port_that_is_taken_ends_with_255",
    "grpc_socket_path": "rpc/test_rpc_services.py::test_an_address_that_is_taken_is_named",
    "rest_api_port": "process/test_serve.py::test_without_rest_the_healthcheck_asks_grpc",
    "rest_api_timeout_in_ms": "rest/test_rest_app.py::test_long_requests_overlap_and_end_at_their_deadline",
    "rest_api_enable_cors_support": "rest/test_rest_app.py::test_cors_only_when_asked_for",
    "enable_batching": "server/test_plane.py::test_a_batching_file",
    "allow_version_labels_for_unavailable_models": "server/test_model_config.py::test_real_models_with_policies_and_labels",
    "batching_parameters_file": "server/test_plane.py::test_the_threads_of_the_batching_file_are_the_runners",
    "enable_per_model_batching_parameters": "server/test_preparing.py::test_per_model_files_replace_the_flags_and_their_absence_means_no_batching",
    "model_config_file": "server/test_model_config.py::test_the_flags",
    "model_config_file_poll_wait_seconds": "server/test_model_config.py::test_a_file_that_changes_is_followed_without_disturbing_the_other_models",
    "model_name": "process/test_reload_config.py::test_every_worker_serves_what_a_client_configures_and_so_does_a_replacement",
    "model_base_path": "process/test_serve.py::test_a_missing_base_path_is_waited_for",
    "max_num_load_retries": "process/test_serve.py::test_a_model_that_cannot_load_ends_with_255",
    "load_retry_interval_micros": "server/test_loading.py::test_an_attempt_waits_its_interval_unless_the_files_changed",
    "file_system_poll_wait_seconds": "server/test_loading.py::test_without_polling_the_repository_is_read_once",
    "tensorflow_session_parallelism": "server/test_settings.py::test_every_mistake_is_reported_at_once",
    "tensorflow_intra_op_parallelism": "server/test_plane.py::test_every_flag_arrives",
    "tensorflow_inter_op_parallelism": "server/test_plane.py::test_every_flag_arrives",
    "tensorflow_session_config_file": "server/test_session_config.py::test_a_session_config",
    "ssl_config_file": "rpc/test_rpc_tls.py::test_tls",
    "platform_config_file": "server/test_session_config.py::test_a_platform_config_replaces_the_flags",
    "per_process_gpu_memory_fraction": "server/test_devices.py::test_a_fraction_is_reserved_by_the_server_and_not_by_the_optimizer_beside_it",
    "saved_model_tags": "server/test_preparing.py::test_tags_that_no_graph_has",
    "grpc_channel_arguments": "rpc/test_rpc_clients.py::test_messages_over_the_limits",
    "enable_model_warmup": "server/test_plane.py::test_every_flag_arrives",
    "num_request_iterations_for_warmup": "warmup/test_replay.py::test_records_run_in_order_each_so_many_times",
    "version": "process/test_cli.py::test_help_imports_little",
    "monitoring_config_file": "rest/test_rest_app.py::test_the_metrics_page_is_where_the_monitoring_config_says",
    "enable_signature_method_name_check": "conformance/test_inference.py::test_method_names_count_only_with_the_flag",
    "enable_serialization_as_tensor_content": "rpc/test_rpc_services.py::test_answers_as_tensor_content_when_asked_for",
}  # fmt: skip
REFUSED = {"use_alts_credentials"}
GOOD = {"bool": "true", "int": "1", "float": "0.5", "str": "x", "strs": "a,b", "ints": "1,2"}
BAD = {"bool": "perhaps", "int": "1.5", "float": "much"}
MODEL = "--model_base_path=/m"


def inert() -> list[Flag]:
    return [f for f in flags.SERVING if f.name not in WORKS and f.name not in REFUSED]


def test_every_flag_has_a_row_or_no_effect() -> None:
    names = [f.name for f in flags.SERVING]
    assert [name for name in (*WORKS, *REFUSED) if name not in names] == []
    assert [f.name for f in inert() if not f.inert] == []
    assert [f.name for f in flags.SERVING if f.inert and f.name in WORKS] == []


@pytest.mark.parametrize(("name", "test"), WORKS.items())
def test_the_test_of_a_flag_exists(name: str, test: str) -> None:
    file, function = test.split("::")
    assert f"def {function}(" in (TESTS / file).read_text()


@pytest.mark.parametrize("flag", inert(), ids=lambda f: f.name)
def test_what_has_no_effect_is_accepted_with_one_line(flag: Flag) -> None:
    value = next((c for c in flag.choices if c), GOOD[flag.kind])
    _, notices = parse([MODEL, f"--{flag.name}={value}"], {})
    assert [(n.severity, n.text) for n in notices] == [("INFO", f"--{flag.name} has no effect here: {flag.inert}")]


def test_what_cannot_be_served_honestly_is_refused_unless_it_is_off() -> None:
    assert parse([MODEL, "--use_alts_credentials=false"], {})[1] == ()
    with pytest.raises(SettingsErrors, match="--use_alts_credentials: "):
        parse([MODEL, "--use_alts_credentials"], {})


def test_all_flags_with_a_value_of_another_type_are_named_at_once() -> None:
    wrong = [f for f in flags.ALL if f.kind in BAD]
    with pytest.raises(SettingsErrors) as raised:
        parse([MODEL, *(f"--{f.name}={BAD[f.kind]}" for f in wrong)], {})
    assert [e.split(":")[0] for e in raised.value.errors] == [f"--{f.name}" for f in wrong]
    assert all("expected " in e and "received '" in e for e in raised.value.errors)


def test_unknown_flags_are_one_line_each_and_all_errors_when_strict() -> None:
    strays = ["--no_such_flag=1", "--rest_api_prot=8501"]
    _, notices = parse([MODEL, *strays], {})
    assert len(notices) == 2
    assert [n.severity for n in notices] == ["WARNING"] * 2
    with pytest.raises(SettingsErrors) as raised:
        parse([MODEL, "--strict_flags", "--port=x", *strays], {})
    assert len(raised.value.errors) == 3

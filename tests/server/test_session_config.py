"""--platform_config_file and --tensorflow_session_config_file: what their texts mean for the settings."""

from __future__ import annotations

from pathlib import Path

import pytest
from tfopt_server import plane
from tfopt_server.batching_parameters import BatchingParameters
from tfopt_server.settings import Notice, Settings, SettingsErrors, parse

ADAPTER = "type.googleapis.com/tensorflow.serving.SavedModelBundleSourceAdapterConfig"


def platform(config: str) -> str:
    return (
        f'platform_configs {{ key: "tensorflow" value {{ source_adapter_config {{ [{ADAPTER}] '
        f"{{ legacy_config {{ {config} }} }} }} }} }}"
    )


def read(tmp_path: Path, name: str, text: str, *more: str) -> tuple[Settings, list[Notice]]:
    file = tmp_path / "config.txt"
    file.write_text(text)
    settings, notices = parse(["--model_base_path=/m", f"--{name}={file}", *more], {})
    return settings, list(notices)


SESSION = """
intra_op_parallelism_threads: 3 inter_op_parallelism_threads: 2
gpu_options { per_process_gpu_memory_fraction: 0.25 allow_growth: true } allow_soft_placement: true
"""


def test_a_session_config(tmp_path: Path) -> None:
    settings, notices = read(tmp_path, "tensorflow_session_config_file", SESSION)
    flags = plane.load_options(settings).flags
    assert (flags.intra_op_threads, flags.inter_op_threads) == (3, 2)
    assert settings.per_process_gpu_memory_fraction == 0.25
    assert notices == [
        Notice(
            "INFO",
            "--tensorflow_session_config_file: has no effect here: allow_soft_placement, gpu_options.allow_growth",
        )
    ]


def test_a_flag_that_is_given_wins_over_a_session_config(tmp_path: Path) -> None:
    settings, _ = read(tmp_path, "tensorflow_session_config_file", SESSION, "--tensorflow_intra_op_parallelism=7")
    assert (settings.tensorflow_intra_op_parallelism, settings.tensorflow_inter_op_parallelism) == (7, 2)


def test_a_platform_config_replaces_the_flags(tmp_path: Path) -> None:
    text = platform(
        f"session_config {{ {SESSION} }} "
        "batching_parameters { max_batch_size { value: 8 } allowed_batch_sizes: 8 } "
        'saved_model_tags: "serve" saved_model_tags: "tpu" enable_model_warmup: true '
        "model_warmup_options { num_request_iterations { value: 4 } } enable_session_metadata: true"
    )
    settings, notices = read(
        tmp_path, "platform_config_file", text, "--tensorflow_intra_op_parallelism=7", "--noenable_model_warmup"
    )
    options = plane.load_options(settings)
    assert (options.flags.intra_op_threads, options.tags, options.warmup, options.warmup_iterations) == (
        3, ("serve", "tpu"), True, 4,
    )  # fmt: skip
    assert options.parameters == BatchingParameters(max_batch_size=8, allowed_batch_sizes=(8,))
    assert notices[0].text == (
        "--platform_config_file: has no effect here: session_config.allow_soft_placement, "
        "session_config.gpu_options.allow_growth, enable_session_metadata"
    )


def test_a_platform_config_without_batching_switches_it_off_and_leaves_warmup(tmp_path: Path) -> None:
    settings, notices = read(tmp_path, "platform_config_file", platform(""), "--enable_batching")
    options = plane.load_options(settings)
    assert (options.parameters, options.warmup, options.tags, notices) == (None, True, ("serve",), [])


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("tensorflow_session_config_file", "nonsense: 1", "--tensorflow_session_config_file: "),
        ("tensorflow_session_config_file", "gpu_options { per_process_gpu_memory_fraction: 2 }",
         "--tensorflow_session_config_file: expected per_process_gpu_memory_fraction from 0 to 1, received 2"),
        ("platform_config_file", "", '--platform_config_file: expected platform_configs with the key "tensorflow"'),
        ("platform_config_file", 'platform_configs { key: "tensorflow" value {} }',
         "--platform_config_file: expected a source_adapter_config of "),
        ("platform_config_file", platform("batching_parameters { max_batch_size { value: 8 } allowed_batch_sizes: 4 }"),
         "--platform_config_file: "),
    ],
)  # fmt: skip
def test_what_cannot_be_used_ends_the_start(tmp_path: Path, name: str, text: str, problem: str) -> None:
    with pytest.raises(SettingsErrors) as raised:
        read(tmp_path, name, text)
    (error,) = raised.value.errors
    assert error.startswith(problem)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsErrors, match="--platform_config_file: expected a file, received '/no'"):
        parse(["--model_base_path=/m", "--platform_config_file=/no"], {})

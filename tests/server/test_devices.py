"""--device: what is chosen of what was found, and what the log says of it."""

from __future__ import annotations

import logging

import pytest
from tfopt_optimizer.device import ON_CPU, Device, Found
from tfopt_optimizer.errors import DeviceMissing
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_server import devices, plane
from tfopt_server.settings import Settings, SettingsErrors, parse

HERE = Found(Device("gpu", "NVIDIA H100", 4), {})
GONE = Found(ON_CPU, {"gpu": "no gpu is visible"})


def settings(*flags: str, **environ: str) -> Settings:
    return parse(["--model_base_path=/models/m", *flags], environ)[0]


def test_an_image_says_which_device_and_a_flag_wins() -> None:
    assert settings().device == "cpu"
    assert settings(TFOPT_DEVICE="gpu").device == "gpu"
    assert settings("--device=cpu", TFOPT_DEVICE="gpu").device == "cpu"


@pytest.mark.parametrize(
    ("flags", "environ", "error"),
    [
        (["--device=cuda"], {}, "--device: expected one of 'cpu', 'gpu', 'tpu', 'auto', received 'cuda'"),
        ([], {"TFOPT_DEVICE": "cuda"}, "TFOPT_DEVICE: expected one of 'cpu', 'gpu', 'tpu', 'auto', received 'cuda'"),
        (["--require_device"], {}, "--require_device: expected --device=gpu, tpu or auto with it, received cpu"),
        (["--num_cores_per_replica=2"], {},
         "--num_cores_per_replica: expected --device=gpu, tpu or auto with it, received cpu"),
    ],
)  # fmt: skip
def test_mistakes(flags: list[str], environ: dict[str, str], error: str) -> None:
    with pytest.raises(SettingsErrors) as caught:
        settings(*flags, **environ)
    assert caught.value.errors == (error,)


def test_tensorflows_executor_leaves_the_gpu_idle_and_that_is_said() -> None:
    _, notices = parse(["--model_base_path=/models/m", "--nouse_tfrt"], {"TFOPT_DEVICE": "gpu"})
    assert [(n.severity, n.text) for n in notices] == [
        ("WARNING", "--nouse_tfrt: nothing runs on the gpu, only TensorFlow on the cpu")
    ]


def test_all_gpus_serve_and_their_memory_is_left_to_whoever_needs_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    found = devices.chosen(HERE, settings("--device=gpu"))
    assert found == Device("gpu", "NVIDIA H100", 4)
    assert [r.getMessage() for r in caplog.records] == ["device: gpu (NVIDIA H100), 4 of 4"]
    options = plane.load_options(settings("--device=gpu"), found)
    assert options.flags == OptimizerFlags(device="gpu", device_kind="NVIDIA H100")
    assert options.device == found


def test_a_fraction_is_reserved_by_the_server_and_not_by_the_optimizer_beside_it() -> None:
    given = settings("--device=gpu", "--per_process_gpu_memory_fraction=0.4", "--num_devices=2")
    found = devices.chosen(HERE, given)
    assert found == Device("gpu", "NVIDIA H100", 2, 0.4, reserve=True)
    assert plane.load_options(given, found).flags.accelerator() == Device("gpu", "NVIDIA H100", 1, 0.4, reserve=False)


def test_a_replica_is_spread_over_several_gpus(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    given = settings("--device=gpu", "--num_cores_per_replica=2", "--num_devices=3")
    found = devices.chosen(HERE, given)
    assert found == Device("gpu", "NVIDIA H100", 2, per_replica=2)
    assert found.replicas == 1
    assert caplog.messages == ["device: gpu (NVIDIA H100), 2 of 4, 2 for each replica"]
    assert plane.load_options(given, found).flags.accelerator() == Device("gpu", "NVIDIA H100", 2, per_replica=2)
    with pytest.raises(DeviceMissing) as caught:
        devices.chosen(HERE, settings("--device=gpu", "--num_cores_per_replica=8"))
    assert str(caught.value) == "--num_cores_per_replica: expected at least 8 gpus to serve on, there are 4"


@pytest.mark.parametrize(("asked", "level"), [("gpu", "WARNING"), ("auto", "INFO")])
def test_without_the_device_the_cpu_serves_and_one_line_says_why(
    asked: str, level: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert devices.chosen(GONE, settings(f"--device={asked}")) == ON_CPU
    told = [(r.levelname, r.getMessage()) for r in caplog.records]
    assert told == [(level, f"--device={asked}: serving on the cpu (gpu: no gpu is visible)")]


def test_a_required_device_that_is_not_there_is_an_error() -> None:
    with pytest.raises(DeviceMissing) as caught:
        devices.chosen(GONE, settings("--device=gpu", "--require_device"))
    assert str(caught.value) == "--require_device: expected --device=gpu to be there: gpu: no gpu is visible"

"""The gpu and tpu images on a machine that has neither (--device=gpu): they serve, and one line says on what."""

from __future__ import annotations

import pytest

from .conftest import free_port, volume

pytestmark = pytest.mark.image


def test_an_image_for_a_device_that_is_not_there_serves_on_the_cpu_and_says_so_once(
    start, models, subject, pytestconfig
):
    device = pytestconfig.getoption("--device")
    if device == "cpu":
        pytest.skip("for the images of accelerators: --device=gpu")
    port = free_port()
    words = (f"--rest_api_port={port}", f"--port={free_port()}", "--optimize_budget_s=5")
    container = start(*words, options=(volume(models), f"--env=MODEL_NAME={subject.name}"), port=port)
    container.wait_until_ready()
    assert subject.right(container.predict(subject.predict, [subject.row])[0])
    (line,) = [line for line in container.log() if line["severity"] not in ("DEBUG", "INFO")]
    assert line["message"].startswith(f"--device={device}: serving on the cpu (")
    assert container.stop() == 0

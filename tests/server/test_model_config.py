# ruff: noqa: E501 - a row of a table reads best on one line
"""--model_config_file: which models, versions and labels a text means, and a plane that serves them."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tfopt_server import model_config, plane
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import ServingError
from tfopt_server.lifecycle import All, Latest, Policy, Specific
from tfopt_server.loading import ModelConfig
from tfopt_server.metrics import Metrics
from tfopt_server.model_config import ModelConfigError, Models
from tfopt_server.settings import SettingsErrors, parse
from tfopt_server.uris import Uri

CONFIG = 'config {{ name: "{}" base_path: "/models/{}" model_platform: "tensorflow" {} }}'


def listed(*configs: str) -> str:
    return "model_config_list { " + " ".join(configs) + " }"


def one(rest: str = "", name: str = "m") -> str:
    return CONFIG.format(name, name, rest)


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("", Latest(1)),
        ("model_version_policy {}", Latest(1)),
        ("model_version_policy { latest {} }", Latest(1)),
        ("model_version_policy { latest { num_versions: 3 } }", Latest(3)),
        ("model_version_policy { all {} }", All()),
        ("model_version_policy { specific { versions: 1 versions: 7 } }", Specific(frozenset({1, 7}))),
    ],
)
def test_version_policies(text: str, policy: Policy) -> None:
    assert model_config.parse(listed(one(text))) == Models((ModelConfig("m", Path("/models/m"), policy),))


def test_several_models_with_labels() -> None:
    text = listed(
        one('version_labels { key: "stable" value: 1 } version_labels { key: "next" value: 2 }'), one(name="n")
    )
    found = model_config.parse(text, labels_ahead=True)
    assert [c.name for c in found.configs] == ["m", "n"]
    assert found.labels == {"m": {"stable": 1, "next": 2}}


def test_old_and_empty_forms() -> None:
    assert model_config.parse("model_config_list {}") == Models(())
    old = 'model_config_list { config { name: "m" base_path: "file:///m" model_type: TENSORFLOW } }'
    assert model_config.parse(old) == Models((ModelConfig("m", Path("/m")),))


def test_logging_is_accepted_and_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        model_config.parse(listed(one("logging_config { sampling_config { sampling_rate: 0.1 } }")))
    assert "model m: logging_config has no effect here" in caplog.text


def test_a_base_path_may_be_in_a_bucket() -> None:
    models = model_config.parse(listed(one().replace("/models", "gs://models")))
    assert models == Models((ModelConfig("m", Uri("gs", "models", "m")),))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "not a ModelServerConfig text: "),
        ("", "expected a model_config_list, received nothing"),
        ("custom_model_config {}", "expected a model_config_list, received custom_model_config"),
        (listed(one(), one()), "Illegal to list model m multiple times in config list"),
        (listed(one().replace("/models", "models")), "Expected model m to have an absolute path or URI; got base_path()=models/m"),
        (listed(one().replace("/models", "hdfs://models")), "model m: expected a folder, gs://, s3:// or az://, received 'hdfs://models/m'"),
        (listed(one().replace('m" base', 'm/n" base')), "expected a name without slashes, received 'm/n'"),
        (listed(one().replace("tensorflow", "caffe")), "Model m requests unsupported platform caffe"),
        (listed(one().replace('model_platform: "tensorflow"', "")), 'model m: expected model_platform: "tensorflow", received nothing'),
        (listed(one("model_version_policy { specific {} }")), "model m: expected versions in the specific policy, received none"),
        (listed(one('version_labels { key: "a" value: 7 }')),
         "Request to assign label to version 7 of model m, which is not currently available for inference"),
    ],
)  # fmt: skip
def test_what_cannot_be_served(text: str, problem: str) -> None:
    with pytest.raises(ModelConfigError) as raised:
        model_config.parse(text, "f")
    assert str(raised.value).startswith("f: ")
    assert raised.value.problems[0].startswith(problem)


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(ModelConfigError) as raised:
        model_config.parse(listed(one().replace("tensorflow", "caffe"), one(name="n").replace("/models", "x")))
    assert len(raised.value.problems) == 2


def test_the_flags(tmp_path: Path) -> None:
    file = tmp_path / "models.txt"
    file.write_text(listed(one(name="only")))
    settings, _ = parse([f"--model_config_file={file}", "--model_base_path=gs://elsewhere"], {})
    models = plane.models_of(settings)
    assert [c.name for c in models.configs] == ["only"]
    assert plane.with_platforms_model(settings, models).model_name == "only"
    with pytest.raises(SettingsErrors, match="--model_config_file: expected a file"):
        parse([f"--model_config_file={tmp_path}/none"], {})


def _wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def _resolved(data: Dataplane, spec: ModelSpec) -> int:
    with data.resolve(spec) as handle:
        return handle.version


@pytest.mark.tensorflow
def test_real_models_with_policies_and_labels(tmp_path: Path, savedmodel: Callable[[str], Path]) -> None:
    for number in (1, 2, 3):
        shutil.copytree(savedmodel("half_plus_two"), tmp_path / "two" / str(number))
    shutil.copytree(savedmodel("scalar"), tmp_path / "scalar" / "5")
    label = 'model_version_policy { specific { versions: 1 versions: 2 } } version_labels { key: "stable" value: 1 }'
    ahead = 'version_labels { key: "next" value: 9 }'
    file = tmp_path / "models.txt"
    file.write_text(listed(one(label, "two"), one(ahead, "scalar")).replace("/models", str(tmp_path)))
    allow = "--allow_version_labels_for_unavailable_models"
    settings, _ = parse([f"--model_config_file={file}", allow, "--disable_optimizer"], {})
    data, loader, _ = plane.build(settings, Metrics())
    loader.start()
    try:
        _wait(lambda: data.ready() and len(data.plans()) == 3)
        assert set(data.plans()) == {("two", 1), ("two", 2), ("scalar", 5)}
        assert _resolved(data, ModelSpec("two")) == 2
        assert _resolved(data, ModelSpec("two", label="stable")) == 1
        with pytest.raises(ServingError, match=r"Servable not found for request: Specific\(scalar, 9\)"):
            data.resolve(ModelSpec("scalar", label="next"))
        with pytest.raises(ServingError, match="Unrecognized servable version label: stable"):
            data.resolve(ModelSpec("scalar", label="stable"))
    finally:
        assert data.drain(10)


@pytest.mark.tensorflow
def test_a_file_that_changes_is_followed_without_disturbing_the_other_models(
    tmp_path: Path, savedmodel: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    for name, model in (("two", "half_plus_two"), ("scalar", "scalar"), ("strings", "strings")):
        shutil.copytree(savedmodel(model), tmp_path / name / "1")
    file = tmp_path / "models.txt"

    def write(*configs: str) -> None:
        file.write_text(listed(*configs).replace("/models", str(tmp_path)))

    write(one(name="two"), one(name="scalar"))
    flags = [f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1", "--disable_optimizer"]
    data, loader, _ = plane.build(parse([*flags, "--file_system_poll_wait_seconds=0"], {})[0], Metrics())
    loader.start()
    try:
        _wait(data.ready)
        with data.resolve(ModelSpec("two")) as held:
            write(
                one(name="two"),
                one('version_labels { key: "a" value: 1 } version_labels { key: "b" value: 2 }', "strings"),
            )
            _wait(lambda: data.ready() and set(data.plans()) == {("two", 1), ("strings", 1)})
            assert held.loaded is next(v for v in data._registry.available() if v.name == "two").loaded
        with pytest.raises(ServingError, match=r"Servable not found for request: Latest\(scalar\)"):
            data.resolve(ModelSpec("scalar"))
        _wait(lambda: data.status("scalar")[0].state.name == "END")
        _wait(lambda: bool(data._registry.labels("strings")))
        assert data._registry.labels("strings") == {"a": 1}  # there is no version 2
        assert "labels that wait until their version is available for inference: 'b' of model strings" in caplog.text
        write(one().replace("tensorflow", "caffe"))
        _wait(lambda: "what was configured before stays" in caplog.text)
        assert set(data.plans()) == {("two", 1), ("strings", 1)}
        write(one(name="two"), one(name="scalar"))
        _wait(lambda: set(data.plans()) == {("two", 1), ("scalar", 1)})
        assert data.ready()
        assert data._registry.labels("strings") == {}
    finally:
        assert data.drain(10)

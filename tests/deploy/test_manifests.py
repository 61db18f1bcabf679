"""What deploy/ ships, against the schemas that its platforms publish, and against what the server really has."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tfopt_server import flags, settings
from tfopt_server.metrics import Metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = "1.33"  # the oldest that the managed clusters still run


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def containers(document: Any) -> list[dict[str, Any]]:
    """Every container in a manifest, however deep."""
    if isinstance(document, dict):
        own = document.get("containers", [])
        return own + [c for key, value in document.items() if key != "containers" for c in containers(value)]
    return [c for each in document for c in containers(each)] if isinstance(document, list) else []


@pytest.mark.parametrize("document", documents("kubernetes/tfopt.yaml"), ids=lambda d: d["kind"])
def test_kubernetes_manifests_are_valid(document):
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", ["kubernetes/tfopt.yaml", "kserve/runtime.yaml", "cloudrun/service.yaml"])
def test_arguments_of_manifests_are_flags_that_the_server_takes(name):
    (container,) = containers(documents(name))
    args = [arg.replace("{{.Name}}", "m") for arg in container["args"]]
    parsed, notices = settings.parse([*args, "--strict_flags"], {})
    assert parsed.model_name == "m"
    assert notices == ()
    ports = {p["containerPort"] for p in container["ports"]}
    assert ports <= {*parsed.http_ports, parsed.port}


def time_until_killed(name: str) -> float:
    """Seconds between a platform's SIGTERM and its SIGKILL."""
    if name == "kubernetes/tfopt.yaml":
        return documents(name)[0]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    if name == "compose/compose.yaml":
        return float(documents(name)[0]["services"]["tfopt"]["stop_grace_period"].removesuffix("s"))
    # Kubernetes' default, which KServe's Standard mode keeps; Knative takes the model's timeout. Cloud Run says 10.
    return {"kserve/runtime.yaml": min(30, model_timeout()), "cloudrun/service.yaml": 10}[name]


def model_timeout() -> float:
    return documents("kserve/model.yaml")[0]["spec"]["predictor"]["timeout"]


@pytest.mark.parametrize(
    "name", ["kubernetes/tfopt.yaml", "kserve/runtime.yaml", "cloudrun/service.yaml", "compose/compose.yaml"]
)
def test_a_server_has_time_to_drain(name):
    args = [arg for container in containers(documents(name)) for arg in container["args"]]
    parsed, _ = settings.parse([*args, "--model_base_path=/m"], {})
    assert parsed.drain_grace_s < parsed.drain_timeout_s < time_until_killed(name)


def test_nothing_ends_a_start_on_knative_before_its_deadline():
    """Knative before 1.15 refuses startup probes, and later ones end what still compiles."""
    (container,) = containers(documents("kserve/runtime.yaml"))
    assert "startupProbe" not in container
    assert "livenessProbe" not in container


@pytest.fixture(scope="module")
def kserve_models() -> Any:
    """kserve's model classes without kserve, whose own server would be imported with it."""
    place = importlib.util.find_spec("kserve")
    assert place is not None
    stubs = {}
    for name in ("kserve", "kserve.models"):
        stub = types.ModuleType(name)
        stub.__path__ = [str(Path(*[next(iter(place.submodule_search_locations)), *name.split(".")[1:]]))]
        stubs[name] = stub
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "kserve"}
    sys.modules.update(stubs)
    yield lambda module, name: getattr(importlib.import_module(f"kserve.models.{module}"), name)
    for name in [n for n in sys.modules if n.split(".")[0] == "kserve"]:
        del sys.modules[name]
    sys.modules.update(before)


def unknown(model: Any, document: dict[str, Any]) -> set[str]:
    """Fields that the published schema does not have."""
    return set(document) - set(model.attribute_map.values())


def test_the_kserve_runtime_and_model_fit_its_schema(kserve_models):
    (runtime,), (model,) = documents("kserve/runtime.yaml"), documents("kserve/model.yaml")
    assert not unknown(kserve_models("v1alpha1_serving_runtime", "V1alpha1ServingRuntime"), runtime)
    assert not unknown(kserve_models("v1alpha1_serving_runtime_spec", "V1alpha1ServingRuntimeSpec"), runtime["spec"])
    for each in runtime["spec"]["supportedModelFormats"]:
        assert not unknown(kserve_models("v1alpha1_supported_model_format", "V1alpha1SupportedModelFormat"), each)
    assert not unknown(kserve_models("v1beta1_inference_service", "V1beta1InferenceService"), model)
    predictor = model["spec"]["predictor"]
    assert not unknown(kserve_models("v1beta1_predictor_spec", "V1beta1PredictorSpec"), predictor)
    assert not unknown(kserve_models("v1beta1_model_spec", "V1beta1ModelSpec"), predictor["model"])
    formats = {f["name"] for f in runtime["spec"]["supportedModelFormats"]}
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    assert predictor["model"]["modelFormat"]["name"] in formats
    (container,) = containers(runtime)
    assert runtime["spec"]["protocolVersions"] == ["v1", "v2"]
    assert container["ports"] == [{"containerPort": 8080, "protocol": "TCP"}]  # REST: no grpc-v2 without its port


def test_the_dashboard_asks_for_metrics_that_the_server_has():
    """Names with all their labels, as the page spells them."""
    board = json.loads((DEPLOY / "compose/grafana/dashboards/tfopt.json").read_text())
    asked = {t["expr"] for panel in board["panels"] for t in panel["targets"]}
    page = Metrics().render().decode()
    known = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    names = {n for expr in asked for n in re.findall(r"(?<![a-z:_])(:tensorflow[a-z_:]+|tfopt_[a-z_]+)", expr)}
    assert names
    assert {n for n in names if n not in known and re.sub(r"_(bucket|sum|count)$", "", n) not in known} == set()


def test_the_autoscaler_and_prometheus_look_where_the_metrics_are():
    page = Metrics().render().decode()
    scaler = next(d for d in documents("kubernetes/tfopt.yaml") if d["kind"] == "HorizontalPodAutoscaler")
    assert f"# TYPE {scaler['spec']['metrics'][0]['pods']['metric']['name']} gauge" in page
    (job,) = documents("compose/prometheus.yaml")[0]["scrape_configs"]
    assert job["metrics_path"] == "/monitoring/prometheus/metrics"


def test_the_vertex_script_asks_for_routes_and_flags_that_exist():
    spec = importlib.util.spec_from_file_location("vertex_deploy", DEPLOY / "vertex/deploy.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    args = script.parse(
        ["--project=p", "--region=r", "--image=i", "--artifact_uri=gs://b/m", "--flag=--allow_precompilation"]
    )
    upload, deploy = script.upload_arguments(args), script.deploy_arguments(args)
    environ = {
        "AIP_HTTP_PORT": str(upload["serving_container_ports"][0]),
        "AIP_HEALTH_ROUTE": upload["serving_container_health_route"],
        "AIP_PREDICT_ROUTE": upload["serving_container_predict_route"],
        "AIP_STORAGE_URI": "/tmp",
        "AIP_MODE": "PREDICTION",
    }
    parsed, notices = settings.parse([*upload["serving_container_args"], "--strict_flags"], environ)
    assert notices == ()
    assert (parsed.http_port, parsed.port) == (8080, upload["serving_container_grpc_ports"][0])
    assert not [name for name in upload if "startup_probe" in name]  # it would fail a model that compiles for 30 s
    assert deploy == {
        "machine_type": "n2-standard-4", "min_replica_count": 1, "max_replica_count": 1, "traffic_percentage": 100,
    }  # fmt: skip
    assert {f.name for f in flags.ALL} >= {"port"}

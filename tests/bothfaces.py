"""Both faces of one plane, and a way of writing and reading their tensors that shares nothing with the server's."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faceplane
import ml_dtypes
import numpy as np
import pytest
import restclient
import rpcclient
from conformance_cases import Answer
from tfopt_server.dataplane import Dataplane
from tfopt_server.executor import Executor
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare
from tfopt_server.registry import Loaded, Registry
from tfopt_server.rest.app import App


def named(cases: Sequence[Any]) -> Any:
    return pytest.mark.parametrize("case", cases, ids=[case.name for case in cases])


class Faces:
    """Both faces of one plane, and an independent way of writing and reading their tensors."""

    def __init__(self, app: App, client: rpcclient.Client, plane: Any = None, registry: Any = None) -> None:
        self.app, self.client = app, client
        self.plane, self.registry = plane, registry

    def rest(self, body: str, model: str = "m") -> restclient.Answer:
        return restclient.call(self.app, "POST", f"/v1/models/{model}:predict", body)

    def rows(self, case: Answer) -> dict[str, Any]:
        instances = [
            {name: spelled(array[i]) for name, array in case.feeds.items()} for i in range(rows_of(case.feeds))
        ]
        answer = self.rest(json.dumps({"signature_name": case.signature, "instances": instances}), case.model)
        assert answer.status == 200, answer.body
        predictions = answer.json()["predictions"]
        if len(case.outputs) == 1:
            return {next(iter(case.outputs)): predictions}
        return {name: [row[name] for row in predictions] for name in case.outputs}

    def columns(self, case: Answer) -> dict[str, Any]:
        inputs = {name: spelled(array) for name, array in case.feeds.items()}
        answer = self.rest(json.dumps({"signature_name": case.signature, "inputs": inputs}), case.model)
        assert answer.status == 200, answer.body
        outputs = answer.json()["outputs"]
        return {next(iter(case.outputs)): outputs} if len(case.outputs) == 1 else outputs

    def rpc(self, case: Answer, content: bool) -> dict[str, np.ndarray]:
        request = rpcclient.predict_request(case.feeds, case.signature, content=content)
        request.model_spec.name = case.model
        return self.client.outputs(request)


def rows_of(feeds: Mapping[str, np.ndarray]) -> int:
    (rows,) = {len(array) for array in feeds.values()}
    return rows


def spelled(array: Any) -> Any:
    """An array as Python's json writes it; bytes as b64 objects."""
    if isinstance(array, bytes):
        return {"b64": base64.b64encode(array).decode()}
    if isinstance(array, np.ndarray) and array.dtype == object:
        return spelled(array.item()) if array.ndim == 0 else [spelled(each) for each in array]
    return np.asarray(array).tolist()


def read(name: str, value: Any, like: np.ndarray) -> np.ndarray:
    """What a client makes of a JSON value when it expects an array like that."""
    if like.dtype != object:
        return np.array(value, like.dtype)
    flat = [v["b64"] if name.endswith("_bytes") else v for v in np.ravel(np.array(value, object))]
    decoded = [base64.b64decode(v) if name.endswith("_bytes") else v.encode() for v in flat]
    array = np.empty(len(decoded), object)
    array[:] = decoded
    return array.reshape(like.shape)


def check(case: Answer, found: Mapping[str, Any]) -> None:
    assert set(found) == set(case.outputs)
    for name, expected in case.outputs.items():
        array = found[name] if isinstance(found[name], np.ndarray) else read(name, found[name], expected)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        wide = "float32" if expected.dtype == ml_dtypes.bfloat16 else expected.dtype  # numpy knows no NaN of bfloat16
        np.testing.assert_array_equal(array.astype(wide), expected.astype(wide))


@contextmanager
def served(folder: Path, options: LoadOptions, *sources: Source) -> Iterator[Faces]:
    """Faces over a real dataplane that holds these SavedModels; every request must have let go of them at the end."""
    metrics, registry = Metrics(), Registry(sorted({source.model for source in sources}))
    for source in sources:
        version = registry.add(source.model, source.version, source.folder)
        registry.move(version, Event.LOAD)
        version.loaded = prepare(source, options, metrics)
        registry.move(version, Event.READY)
    plane = Dataplane(registry, Executor(metrics, 2), metrics)
    plane.metrics = metrics
    with rpcclient.face(folder, plane) as (client, _, _):
        yield Faces(App(plane, faceplane.configured(), metrics), client, plane, registry)
    assert [v.users for v in registry.available()] == [0] * len(sources)
    plane.drain(5)


@contextmanager
def around(runner: Any, key: str, folder: Path) -> Iterator[Faces]:
    """Faces over a real dataplane whose model "m" has one signature: what this runner answers, one run at a time."""
    metrics, registry = Metrics(), Registry(["m"])
    version = registry.add("m", 1, folder)
    registry.move(version, Event.LOAD)
    version.loaded = Loaded(None, {key: Lane("m", runner, metrics, parameters=None)}, None, "a test's", {})
    registry.move(version, Event.READY)
    plane = Dataplane(registry, Executor(metrics, 1), metrics)
    plane.metrics = metrics
    with rpcclient.face(folder, plane) as (client, _, _):
        yield Faces(App(plane, faceplane.configured(), metrics), client, plane, registry)

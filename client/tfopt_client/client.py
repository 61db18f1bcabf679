"""The client: what a call says, and how often it is tried. How it travels: rest.py and rpc.py."""

from __future__ import annotations

import random
import ssl
import time
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from tfopt_protos import messages, tensors

from tfopt_client import rest, rpc
from tfopt_client.deadline import Deadline
from tfopt_client.errors import Failure, PredictError
from tfopt_client.retry import Retry

_PREDICTION = "/tensorflow.serving.PredictionService/"
_PROTOBUF = {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}
_JSON = {"content-type": "application/json"}
_PORTS = {"http": 80, "https": 443, "grpc": 8500, "grpcs": 8500}

Array = np.ndarray[Any, Any]
Made = TypeVar("Made")


@dataclass(frozen=True)
class Target:
    """Which servable, and what of it. `version` and `label` exclude each other; neither: the newest version."""

    model: str
    version: int | None = None
    label: str | None = None
    signature: str = ""

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("expected the name of a model, received an empty one")
        if self.version is not None and self.label is not None:
            raise ValueError(f"expected a version or a label, received both: {self.version} and {self.label!r}")

    def path(self) -> str:
        name = urllib.parse.quote(self.model, safe="")
        if self.version is not None:
            return f"/v1/models/{name}/versions/{self.version}"
        return f"/v1/models/{name}" + (f"/labels/{urllib.parse.quote(self.label, safe='')}" if self.label else "")

    def spec(self) -> dict[str, Any]:
        named: dict[str, Any] = {"name": self.model, "signature_name": self.signature}
        if self.version is not None:
            named["version"] = {"value": self.version}
        elif self.label is not None:
            named["version_label"] = self.label
        return named


class Client:
    """One server. Safe for threads; each takes a connection of its own for the time of a call.

    `server`: `grpc://host:port`, `grpcs://`, `http://` or `https://`. REST carries tensors as protobuf, which tfopt
    takes; for TensorFlow Serving itself use gRPC, or `predict_json`. `tls`: in place of the system's certificates.
    """

    def __init__(self, server: str, retry: Retry | None = None, tls: ssl.SSLContext | None = None) -> None:
        url = urllib.parse.urlsplit(server)
        if url.scheme not in _PORTS or not url.hostname or url.path not in ("", "/"):
            raise ValueError(f"expected grpc://HOST:PORT or http://HOST:PORT (or grpcs, https), received {server!r}")
        self.retry = retry or Retry()
        self.is_rpc = url.scheme.startswith("grpc")
        secure = (tls or ssl.create_default_context()) if url.scheme.endswith("s") else None
        port = url.port or _PORTS[url.scheme]
        self._rest = None if self.is_rpc else rest.Transport(url.hostname, port, secure)
        self._rpc = rpc.Transport(url.hostname, port, secure) if self.is_rpc else None
        self._draw, self._sleep = random.random, time.sleep

    def predict(
        self, inputs: Mapping[str, Any], *, model: str, signature: str = "", version: int | None = None,
        label: str | None = None, outputs: Sequence[str] = (), deadline_s: float | None = 60.0,
    ) -> dict[str, Array]:  # fmt: skip
        """The outputs by name, in the graph's dtypes. `inputs`: name to array; dtypes are not converted. `outputs`:
        which ones to compute, all when empty. PredictError says why there are none."""
        target = Target(model, version, label, signature)
        request = messages.PredictRequest(model_spec=target.spec(), output_filter=outputs)
        for name, value in inputs.items():
            tensors.fill(request.inputs[name], np.asarray(value), content=True)
        body = bytes(request.SerializeToString())

        def send(deadline: Deadline) -> bytes:
            if self._rest is not None:
                return self._rest.call("POST", f"{target.path()}:predict", body, _PROTOBUF, deadline).body
            return self._grpc("Predict", body, deadline)

        answer = messages.PredictResponse.FromString(self._tried(send, deadline_s))
        return {name: tensors.to_numpy(proto) for name, proto in answer.outputs.items()}

    def predict_json(self, body: bytes, target: Target, deadline_s: float | None = 60.0) -> bytes:
        """The answer to a REST predict body as it is. ValueError on a gRPC client."""
        transport = self._rest
        if transport is None:
            raise ValueError("a JSON body goes over REST; this client speaks gRPC")
        path = f"{target.path()}:predict"
        return self._tried(lambda d: transport.call("POST", path, body, _JSON, d).body, deadline_s)

    def signature(self, target: Target, deadline_s: float | None = 60.0) -> Any:
        """The tensorflow.SignatureDef of the target (serving_default where it names none)."""
        request = messages.GetModelMetadataRequest(model_spec=target.spec(), metadata_field=["signature_def"])
        body = bytes(request.SerializeToString())
        if self._rest is not None:
            raise ValueError("metadata in protobuf goes over gRPC; this client speaks REST")
        found = self._tried(lambda d: self._grpc("GetModelMetadata", body, d), deadline_s)
        packed = messages.GetModelMetadataResponse.FromString(found).metadata["signature_def"]
        signatures = messages.SignatureDefMap.FromString(packed.value).signature_def
        name = target.signature or "serving_default"
        if name not in signatures:
            raise PredictError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return signatures[name]

    def _grpc(self, method: str, body: bytes, deadline: Deadline) -> bytes:
        assert self._rpc is not None
        return self._rpc.call(_PREDICTION + method, body, deadline, {})

    def _tried(self, send: Callable[[Deadline], Made], deadline_s: float | None) -> Made:
        deadline, made = Deadline(deadline_s), 0
        while True:
            made += 1
            try:
                return send(deadline)
            except Failure as failure:
                wait = self.retry.wait_s(made, failure, deadline.left_s(), self._draw)
                if wait is None:
                    raise PredictError(failure.code, failure.message, made) from failure
            self._sleep(wait)

    def connections_opened(self) -> int:
        """How many connections were made so far: a call reuses one that is free."""
        transport: Any = self._rest or self._rpc
        return int(transport.pool.opened)

    def close(self) -> None:
        for transport in (self._rest, self._rpc):
            if transport is not None:
                transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

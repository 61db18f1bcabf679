"""ModelService's HandleReloadConfigRequest: its messages, and the metrics that a caller may ask for.

Order and texts: model_service_impl.cc. A failure is the call's own status, so the StatusProto inside an answer always
says OK: gRPC sends no message with an error, TensorFlow Serving's neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.dataplane import Dataplane
from tfopt_server.errors import invalid
from tfopt_server.faces import failure
from tfopt_server.metrics import Metrics
from tfopt_server.rpc.methods import Method, Pending
from tfopt_server.rpc.services import MODEL, result_of

_NAME = "HandleReloadConfigRequest"


class Reload:
    def __init__(self, plane: Dataplane, metrics: Metrics) -> None:
        self._plane, self._metrics = plane, metrics

    def methods(self) -> Mapping[bytes, Method]:
        """By path."""
        path = f"/{MODEL}/{_NAME}"
        return {path.encode(): Method(path, self.reload)}

    def reload(self, data: bytes, deadline: float | None) -> Pending:
        request = codec.parse("tensorflow.serving.ReloadConfigRequest", data)
        if request.config.WhichOneof("config") != "model_config_list":
            raise invalid(
                "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
                "supported"
            )
        before = {name: self._metrics.counted(name) for name in request.metric_names}
        return _Reloading(self._plane.reload(request.config), self._metrics, before, deadline)


class _Reloading:
    def __init__(
        self, future: Future[None], metrics: Metrics, before: Mapping[str, float], deadline: float | None
    ) -> None:
        self.future, self._metrics, self._before, self._deadline = future, metrics, before, deadline

    def long(self) -> bool:
        return False

    def answer(self) -> bytes:
        try:
            result_of(self.future, self._deadline)
        except Exception as error:
            refused = failure(error, _NAME)
            raise refused from (None if refused is error else error)
        answer: Any = messages.message("tensorflow.serving.ReloadConfigResponse")()
        answer.status.SetInParent()
        for name, count in self._before.items():
            answer.metric.add(name=name, int64_value_increase=int(self._metrics.counted(name) - count))
        return bytes(answer.SerializeToString())

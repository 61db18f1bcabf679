"""Traces: the spans of a request over both faces, whose children they are, and what a collector is sent."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faceplane
import numpy as np
import pytest
import restclient
import rpcclient
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import StatusCode
from rpcclient import HEALTH, MODEL, PREDICTION, predict_request
from tfopt_protos import messages
from tfopt_server import plane as planes
from tfopt_server.dataplane import Dataplane, Layered
from tfopt_server.executor import Executor
from tfopt_server.http import Request
from tfopt_server.lanes import Lane
from tfopt_server.lifecycle import Event
from tfopt_server.metrics import Metrics
from tfopt_server.registry import Loaded, Registry
from tfopt_server.rest.app import App
from tfopt_server.rest.traced import Traced
from tfopt_server.tracing import Tracing

from tests.server.fakes import POISON, Runner

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = PARENT[:-1] + "0"


class Served:
    """Model m, version 4: serving_default runs on the caller's thread, other on a runner's."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)))
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracing = Tracing(provider)
        self.metrics, registry = Metrics(), Registry(["m"])
        version = registry.add("m", 4, Path("/models/m/4"))
        registry.move(version, Event.LOAD)
        self.other = Runner(1000.0, key="other")
        runners = (Runner(1.0), self.other)
        lanes = {runner.info.key: Lane("m", runner, self.metrics, parameters=None) for runner in runners}
        version.loaded = Loaded(None, lanes, None, "a fake", {})  # type: ignore[arg-type]
        registry.move(version, Event.READY)
        self.plane = Layered(
            registry, Executor(self.metrics, 1), self.metrics, None, [self.tracing.around], tracing=self.tracing
        )
        self.plane.metrics = self.metrics  # type: ignore[attr-defined] # where rpcclient looks
        self.app = Traced(App(self.plane, faceplane.configured(), self.metrics), self.tracing)

    def post(self, body: Any, target: str = "/predict", **headers: str) -> restclient.Answer:
        return restclient.call(self.app, "POST", target, body, headers)

    def spans(self) -> dict[str, Any]:
        """By name, of the one request since the last look; every child lies inside its parent."""
        found = self.exporter.get_finished_spans()
        self.exporter.clear()
        (root,) = [s for s in found if s.kind.name == "SERVER"]
        for span in found:
            assert span.context.trace_id == root.context.trace_id
            if span is not root:
                assert span.parent.span_id == root.context.span_id
                assert root.start_time <= span.start_time + 2_000_000
                assert span.end_time <= root.end_time + 2_000_000
        assert found[-1] is root
        return {("" if s is root else s.name): s for s in found}


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


ROWS = {"instances": [[1, 2], [3, 4]]}
STEPS = ["decode", "queue", "pad", "run", "encode"]


def test_a_rest_request_and_its_steps(served: Served) -> None:
    assert served.post({**ROWS, "signature_name": "other"}, traceparent=PARENT).status == 200
    spans = served.spans()
    assert [name for name in spans if name and name != "split"] == STEPS
    root = spans[""]
    assert format(root.context.trace_id, "032x") == PARENT[3:35]
    assert format(root.parent.span_id, "016x") == PARENT[36:52]
    assert (root.name, dict(root.attributes)) == (
        "POST predict",
        {
            "http.request.method": "POST", "url.path": "/predict", "http.response.status_code": 200,
            "tfopt.model": "m", "tfopt.version": 4, "tfopt.signature": "other",
        },
    )  # fmt: skip
    assert spans["run"].attributes["tfopt.batch"] == 4  # padded to the bucket
    assert spans["queue"].end_time <= spans["run"].start_time < spans["encode"].end_time


def test_a_request_on_the_callers_thread_has_no_empty_steps(served: Served) -> None:
    served.post({"instances": [[1, 2]]})
    assert [name for name in served.spans() if name] == ["decode", "queue", "run", "encode"]


def test_without_a_parent_a_trace_begins(served: Served) -> None:
    for headers in ({}, {"traceparent": "nonsense"}, {"traceparent": "00-" + "0" * 32 + "-" + "0" * 16 + "-01"}):
        served.post(ROWS, **headers)
        assert served.spans()[""].parent is None


def test_what_fails_says_so(served: Served) -> None:
    for body, status in (({"instances": [[POISON, 1]]}, 400), ({"instances": ["a"]}, 400), (b"{", 400)):
        assert served.post(body).status == status
        root = served.spans()[""]
        assert (root.status.status_code, root.status.description) == (StatusCode.ERROR, str(status))


def test_the_clients_wish_and_the_ratio_decide_what_is_kept() -> None:
    served = Served(ratio=0.0)
    for headers, kept in (({}, 0), ({"traceparent": UNSAMPLED}, 0), ({"traceparent": PARENT}, 1)):
        served.post(ROWS, **headers)
        assert sum(s.kind.name == "SERVER" for s in served.exporter.get_finished_spans()) == kept
    served = Served(ratio=1.0)
    served.post(ROWS, traceparent=UNSAMPLED)
    assert served.exporter.get_finished_spans() == ()


def test_pages_are_not_traced(served: Served) -> None:
    for target in ("/openapi.json", "/v1/models/m", "/nothing"):
        restclient.call(served.app, "GET", target)
    assert served.exporter.get_finished_spans() == ()


def test_a_streamed_answer_is_one_request_with_a_run_per_batch(served: Served) -> None:
    assert served.post({"instances": [[i, i] for i in range(20)]}, accept="text/event-stream").status == 200
    names = [s.name for s in served.exporter.get_finished_spans()]
    served.exporter.clear()
    assert (names.count("run"), names.count("encode"), names.count("POST predict")) == (3, 3, 1)


def test_an_explanations_runs_are_not_written_one_by_one(served: Served) -> None:
    answer = served.post({"instances": [[1, 2]], "explanation_spec_override": {"metadata": {"outputs": {"y": {}}}}},
                         "/explain")  # fmt: skip
    assert answer.status == 200, answer.body
    assert list(served.spans()) == [""]


def test_requests_that_overlap_keep_their_own_steps(served: Served) -> None:
    bodies = [json.dumps({"instances": [[i, i]] * (i + 1), "signature_name": "other"}).encode() for i in range(8)]

    async def all_at_once() -> None:
        calls = (restclient.acall(served.app, "POST", "/predict", body, {"x": str(i)}) for i, body in enumerate(bodies))
        assert [a.status for a in await asyncio.gather(*calls)] == [200] * 8

    asyncio.run(all_at_once())
    found = served.exporter.get_finished_spans()
    served.exporter.clear()
    for root in [s for s in found if s.kind.name == "SERVER"]:
        mine = [s.name for s in found if s.parent is not None and s.parent.span_id == root.context.span_id]
        assert {name: mine.count(name) for name in ("decode", "run", "encode")} == {"decode": 1, "run": 1, "encode": 1}


def test_a_client_that_leaves_ends_its_trace(served: Served) -> None:
    engine = served.other.engine
    engine.gate.clear()

    async def leave() -> None:
        request = Request("POST", "/predict", [], json.dumps({**ROWS, "signature_name": "other"}).encode())
        task = asyncio.ensure_future(served.app(request))  # type: ignore[arg-type]
        runs = len(engine.runs)
        while len(engine.runs) == runs:
            await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    engine.gate.set()
    (root,) = [s for s in served.exporter.get_finished_spans() if s.kind.name == "SERVER"]
    served.exporter.clear()
    assert (root.attributes["http.response.status_code"], root.status.status_code) == (499, StatusCode.ERROR)


@pytest.fixture(scope="module")
def rpc(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[rpcclient.Client]:
    with rpcclient.face(tmp_path_factory.mktemp("rpc"), served.plane) as (client, _, _):
        yield client


def call(client: rpcclient.Client, request: Any, **metadata: str) -> bytes:
    method = client.channel.unary_unary(PREDICTION + "Predict")
    found: bytes = method(request.SerializeToString(), timeout=10, metadata=tuple(metadata.items()))
    return found


@pytest.mark.parametrize("signature", ["serving_default", "other"])
def test_a_grpc_call_and_its_steps(served: Served, rpc: rpcclient.Client, signature: str) -> None:
    request = predict_request({"x": np.ones((3, 2), np.float32)}, signature)
    for _ in range(2):  # the second time from what is known of the first
        call(rpc, request, traceparent=PARENT)
        rpcclient.until(lambda: any(s.kind.name == "SERVER" for s in served.exporter.get_finished_spans()))
        spans = served.spans()
        assert [name for name in spans if name and name != "split"] == STEPS
        root = spans[""]
        assert format(root.parent.span_id, "016x") == PARENT[36:52]
        assert (root.name, root.attributes["rpc.grpc.status_code"], root.attributes["tfopt.signature"]) == (
            "tensorflow.serving.PredictionService/Predict", 0, signature,
        )  # fmt: skip


@pytest.mark.parametrize("signature", ["serving_default", "other"])
def test_a_grpc_call_that_fails(served: Served, rpc: rpcclient.Client, signature: str) -> None:
    answer = rpc.predict(predict_request({"x": np.full((1, 2), POISON, np.float32)}, signature))
    assert answer.code.name == "INVALID_ARGUMENT"
    rpcclient.until(lambda: any(s.kind.name == "SERVER" for s in served.exporter.get_finished_spans()))
    root = served.spans()[""]
    assert (root.attributes["rpc.grpc.status_code"], root.status.description) == (3, "INVALID_ARGUMENT")


def test_calls_that_run_no_model_are_not_traced(served: Served, rpc: rpcclient.Client) -> None:
    for method, request in (
        (MODEL + "GetModelStatus", messages.GetModelStatusRequest(model_spec={"name": "m"})),
        (HEALTH + "Check", b""),
    ):
        assert isinstance(rpc.call(method, request), bytes)
    assert served.exporter.get_finished_spans() == ()
    rpc.call(MODEL + "GetModelStatus", messages.GetModelStatusRequest(model_spec={"name": "other"}))
    rpcclient.until(served.exporter.get_finished_spans)
    assert served.spans()[""].status.description == "NOT_FOUND"


class Collector(http.server.BaseHTTPRequestHandler):
    """A stub of an OTLP collector: keeps what it is sent."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.got.append((self.path, ExportTraceServiceRequest.FromString(body)))  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_collector_is_sent_the_spans() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        server.got = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_address[1]}/v1/traces"
        tracing = Tracing.open(endpoint, 1.0)
        note = tracing.begin(PARENT.encode(), b"vendor=1")
        with note:
            tracing.steps(Metrics().steps("m", "s")).decode.observe(0.001)
        tracing.end(note, "POST predict", {"tfopt.model": "m"})
        tracing.close()
        server.shutdown()
        ((path, sent),) = server.got  # type: ignore[attr-defined]
    assert path == "/v1/traces"
    resource = {a.key: a.value.string_value for a in sent.resource_spans[0].resource.attributes}
    assert resource["service.name"] == "tfopt"
    spans = {s.name: s for s in sent.resource_spans[0].scope_spans[0].spans}
    assert set(spans) == {"decode", "POST predict"}
    root = spans["POST predict"]
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (PARENT[3:35], PARENT[36:52])
    assert root.trace_state == "vendor=1"
    assert spans["decode"].parent_span_id == root.span_id
    assert spans["decode"].end_time_unix_nano - spans["decode"].start_time_unix_nano == pytest.approx(1e6, rel=0.01)


def test_a_collector_that_is_away_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tfopt_server.tracing.FLUSH_S", 0.2)
    tracing = Tracing.open(f"http://127.0.0.1:{rpcclient.free_port()}/v1/traces", 1.0)
    tracing.end(tracing.begin(b"", b""), "POST predict", {})
    sent, gate = list[bool](), threading.Event()
    shutdown = tracing._provider.shutdown
    monkeypatch.setattr(tracing._provider, "shutdown", lambda: sent.append(gate.wait(20)))
    tracing.close()
    assert sent == []
    gate.set()
    threading.Thread(target=shutdown, daemon=True).start()


def test_without_the_flag_nothing_of_it_is_there() -> None:
    off = planes.build(faceplane.configured(), Metrics())[0]
    assert (type(off), off.tracing) == (Dataplane, None)
    on = planes.build(faceplane.configured("--otlp_traces_endpoint=http://127.0.0.1:9/v1/traces"), Metrics())[0]
    assert isinstance(on.tracing, Tracing)
    on.drain(1)

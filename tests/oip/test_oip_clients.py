"""Triton's own client against a real server: both transports, binary tensors, strings, the stream, the repository."""

from __future__ import annotations

import queue
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import savedmodels
import tritonclient.grpc as over_grpc
import tritonclient.http as over_http
from process.servers import Server
from process.test_serve import serve
from tfopt_protos import messages
from tritonclient.grpc import service_pb2

pytestmark = [pytest.mark.process, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Any, Any]]:
    """The server, and a client for each transport; two models, of which clients may load and unload each."""
    folder = tmp_path_factory.mktemp("triton")
    config = "".join(
        f'config {{ name: "{name}" base_path: "{savedmodels.path(model).parent}" model_platform: "tensorflow" }}\n'
        for name, model in (("half", "half_plus_two"), ("words", "lookup"))
    )
    (folder / "models.config").write_text(f"model_config_list {{ {config} }}")
    flags = (f"--model_config_file={folder / 'models.config'}", "--enable_model_repository", "--disable_optimizer")
    with serve(folder, *flags) as (server, rpc):
        server.wait_for_health(200, 60)
        yield (
            server,
            over_http.InferenceServerClient(f"127.0.0.1:{server.port}"),
            over_grpc.InferenceServerClient(f"127.0.0.1:{rpc}"),
        )


def asked(module: Any, name: str, array: np.ndarray, datatype: str, **how: Any) -> Any:
    made = module.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, **how)
    return made


def clients(served: tuple[Server, Any, Any]) -> Iterator[tuple[Any, Any]]:
    yield over_http, served[1]
    yield over_grpc, served[2]


def test_life_and_metadata(served: tuple[Server, Any, Any]) -> None:
    for module, client in clients(served):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("half")
        assert not client.is_model_ready("nothing")
        rest = module is over_http
        server = client.get_server_metadata() if rest else client.get_server_metadata(as_json=True)
        model = client.get_model_metadata("half") if rest else client.get_model_metadata("half", as_json=True)
        assert server["name"] == "tfopt"
        assert (model["inputs"][0]["name"], model["inputs"][0]["datatype"]) == ("x", "FP32")


def test_numbers_as_json_and_as_bytes(served: tuple[Server, Any, Any]) -> None:
    x = np.float32([[1], [2], [5]])
    for module, client in clients(served):
        forms: list[dict[str, Any]] = [{"binary_data": True}, {"binary_data": False}] if module is over_http else [{}]
        for how in forms:
            wanted = module.InferRequestedOutput("y", **how)
            result = client.infer("half", [asked(module, "x", x, "FP32", **how)], outputs=[wanted], request_id="a")
            np.testing.assert_array_equal(result.as_numpy("y"), x / 2 + 2)


def test_strings_and_packed_bodies(served: tuple[Server, Any, Any]) -> None:
    words, ids = np.array([b"one", b"\xff"], object), np.int64([1, 2])
    found = []
    for module, client in clients(served):
        inputs = [asked(module, "word", words, "BYTES"), asked(module, "id", ids, "INT64")]
        packed = {"request_compression_algorithm": "gzip"} if module is over_http else {"compression_algorithm": "gzip"}
        result = client.infer("words", inputs, **packed)
        outputs = result.get_response()
        names = [o["name"] for o in outputs["outputs"]] if module is over_http else [o.name for o in outputs.outputs]
        found.append({name: result.as_numpy(name).tolist() for name in names})
    assert found[0] == found[1]
    assert found[0]


def test_errors_reach_the_client_as_texts(served: tuple[Server, Any, Any]) -> None:
    for module, client in clients(served):
        with pytest.raises(Exception, match="expected datatype FP32, received 'INT32'"):
            client.infer("half", [asked(module, "x", np.int32([[1]]), "INT32")])
        with pytest.raises(Exception, match=r"Servable not found for request: Latest\(none\)"):
            client.infer("none", [asked(module, "x", np.float32([[1]]), "FP32")])


def test_a_stream(served: tuple[Server, Any, Any]) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client = served[2]
    client.start_stream(lambda result, error: answers.put(error or result.as_numpy("y").tolist()))
    for value in (1, 2):
        client.async_stream_infer("half", [asked(over_grpc, "x", np.float32([[value]]), "FP32")])
    assert [answers.get(timeout=20) for _ in range(2)] == [[[2.5]], [[3.0]]]
    client.stop_stream()


def test_models_go_and_come_by_name(served: tuple[Server, Any, Any]) -> None:
    server, rest, rpc = served
    rest.unload_model("words")
    assert not rpc.is_model_ready("words")
    states = {m["name"]: m["state"] for m in rest.get_model_repository_index()}
    assert states["half"] == "READY"
    assert states["words"] in {"UNLOADING", "UNAVAILABLE"}
    assert rpc.is_model_ready("half")
    rpc.load_model("words")
    assert rest.is_model_ready("words")
    with pytest.raises(Exception, match="expected a model that was configured once"):
        rest.load_model("nothing")
    assert server.health() == 200


def test_a_plain_client_that_knows_nothing_but_the_protocol(served: tuple[Server, Any, Any]) -> None:
    """curl, with the document of the protocol's own examples."""
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = '{"inputs": [{"name": "x", "shape": [2, 1], "datatype": "FP32", "data": [[1], [2]]}]}'
    url = f"http://127.0.0.1:{served[0].port}/v2/models/half/infer"
    done = subprocess.run(["curl", "-sf", "-d", body, url], capture_output=True, text=True, check=True)
    assert '"outputs":[{"name":"y","datatype":"FP32","shape":[2,1],"data":[2.5,3.0]}]' in done.stdout


def test_the_messages_are_those_that_clients_know() -> None:
    """Names, numbers and types of every field, against the descriptors in Triton's client."""
    ours = messages.pool().FindFileContainingSymbol("inference.ModelInferRequest").message_types_by_name
    theirs = service_pb2.DESCRIPTOR.message_types_by_name
    assert {name: _fields(message) for name, message in ours.items()} == {name: _fields(theirs[name]) for name in ours}


def _fields(message: Any) -> dict[str, Any]:
    own = {field.name: (field.number, field.type) for field in message.fields}
    return own | {nested.name: _fields(nested) for nested in message.nested_types}

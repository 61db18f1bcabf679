"""Server reflection as grpcurl asks for it, over a real client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import rpcclient
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from tfopt_protos import messages
from tfopt_server.errors import Code

VERSIONS = ("v1", "v1alpha")


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rpcclient.Client]:
    with rpcclient.face(tmp_path_factory.mktemp("rpc")) as (client, _, _):
        yield client


def ask(client: rpcclient.Client, version: str, *asked: dict[str, Any]) -> list[Any]:
    """One stream, a question at a time."""
    package = f"grpc.reflection.{version}."
    call = client.channel.stream_stream(
        f"/{package}ServerReflection/ServerReflectionInfo",
        messages.message(package + "ServerReflectionRequest").SerializeToString,
        messages.message(package + "ServerReflectionResponse").FromString,
    )
    request = messages.message(package + "ServerReflectionRequest")
    return list(call(iter([request(**each) for each in asked]), timeout=10))


def pool_of(answer: Any) -> DescriptorPool:
    """The files of an answer, each after those that it needs."""
    sent = answer.file_descriptor_response.file_descriptor_proto
    files = {file.name: file for file in map(descriptor_pb2.FileDescriptorProto.FromString, sent)}
    pool, added = DescriptorPool(), set()

    def add(name: str) -> None:
        if name not in added:
            added.add(name)
            for needed in files[name].dependency:
                add(needed)
            pool.Add(files[name])

    for name in files:
        add(name)
    return pool


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_served_is_listed_and_its_types_can_be_built(client: rpcclient.Client, version: str):
    (listed,) = ask(client, version, {"host": "h", "list_services": "*"})
    assert listed.valid_host == "h"
    names = [service.name for service in listed.list_services_response.service]
    assert names == [
        "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService", "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService",
    ]  # fmt: skip
    for answer in ask(client, version, *({"file_containing_symbol": name} for name in names)):
        service = pool_of(answer).FindServiceByName(answer.original_request.file_containing_symbol)
        assert all(method.input_type.fields is not None for method in service.methods)


def test_other_questions(client: rpcclient.Client):
    by_name, by_method, extensions, none, missing, extension, nothing = ask(
        client, "v1", {"file_by_filename": "tensorflow_serving/apis/predict.proto"},
        {"file_containing_symbol": "tensorflow.serving.PredictionService.Predict"},
        {"all_extension_numbers_of_type": "tensorflow.serving.PredictRequest"},
        {"all_extension_numbers_of_type": "no.Type"}, {"file_by_filename": "no.proto"},
        {"file_containing_extension": {"containing_type": "tensorflow.serving.PredictRequest", "extension_number": 5}},
        {},
    )  # fmt: skip
    first = [
        descriptor_pb2.FileDescriptorProto.FromString(each.file_descriptor_response.file_descriptor_proto[0]).name
        for each in (by_name, by_method)
    ]
    assert first == ["tensorflow_serving/apis/predict.proto", "tensorflow_serving/apis/prediction_service.proto"]
    assert extensions.all_extension_numbers_response.base_type_name == "tensorflow.serving.PredictRequest"
    assert [each.error_response.error_code for each in (none, missing, extension, nothing)] == [
        Code.NOT_FOUND, Code.NOT_FOUND, Code.NOT_FOUND, Code.INVALID_ARGUMENT,
    ]  # fmt: skip

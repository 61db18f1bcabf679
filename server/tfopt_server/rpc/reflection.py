"""gRPC server reflection (v1 and v1alpha): what tools like grpcurl ask to learn the services and their messages.

Source: github.com/grpc/grpc/blob/master/doc/server-reflection.md. Descriptors come from the private pool.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from tfopt_protos import messages

from tfopt_server import predict_message as codec
from tfopt_server.errors import Code
from tfopt_server.rpc.methods import Conversation, Method

VERSIONS = ("v1", "v1alpha")


class Reflection:
    """`services`: full names of what is served besides reflection itself."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = sorted({*services, *(f"grpc.reflection.{version}.ServerReflection" for version in VERSIONS)})

    def methods(self) -> Mapping[bytes, Method]:
        found = {}
        for version in VERSIONS:
            path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            found[path.encode()] = Method(path, streaming=partial(self._info, f"grpc.reflection.{version}."))
        return found

    async def _info(self, package: str, conversation: Conversation) -> AsyncIterator[bytes]:
        async for data in conversation.requests():
            yield self.answer(package, codec.parse(f"{package}ServerReflectionRequest", data))

    def answer(self, package: str, request: Any) -> bytes:
        response = messages.message(f"{package}ServerReflectionResponse")(valid_host=request.host)
        response.original_request.CopyFrom(request)
        asked = request.WhichOneof("message_request")
        try:
            if asked == "list_services":
                for name in self._services:
                    response.list_services_response.service.add(name=name)
            elif asked in _FILES:
                files = _with_imports(_FILES[asked](getattr(request, asked)))
                response.file_descriptor_response.file_descriptor_proto.extend(file.serialized_pb for file in files)
            elif asked == "all_extension_numbers_of_type":
                _extensions(request.all_extension_numbers_of_type, response.all_extension_numbers_response)
            else:
                _refuse(response, Code.INVALID_ARGUMENT, "the request asks for nothing")
        except KeyError:
            _refuse(response, Code.NOT_FOUND, f"not found: {getattr(request, str(asked))}".strip())
        return bytes(response.SerializeToString())


def _refuse(response: Any, code: Code, text: str) -> None:
    response.error_response.error_code = int(code)
    response.error_response.error_message = text


def _by_name(name: str) -> Any:
    return messages.pool().FindFileByName(name)


def _by_symbol(symbol: str) -> Any:
    try:
        return messages.pool().FindFileContainingSymbol(symbol)
    except KeyError:  # protobuf's pool does not find methods by name
        service, _, method = symbol.rpartition(".")
        found: Any = messages.pool().FindServiceByName(service)
        return found.methods_by_name[method].containing_service.file


def _by_extension(extension: Any) -> Any:
    kind = messages.pool().FindMessageTypeByName(extension.containing_type)
    found: Any = messages.pool().FindExtensionByNumber(kind, extension.extension_number)
    return found.file


_FILES: Mapping[str, Callable[[Any], Any]] = {
    "file_by_filename": _by_name,
    "file_containing_symbol": _by_symbol,
    "file_containing_extension": _by_extension,
}


def _extensions(kind: str, into: Any) -> None:
    found = messages.pool().FindAllExtensions(messages.pool().FindMessageTypeByName(kind))
    into.base_type_name = kind
    into.extension_number.extend(sorted(extension.number for extension in found))


def _with_imports(file: Any) -> list[Any]:
    """The file first, then all that it needs, each once."""
    found = {file.name: file}
    for each in (waiting := [file]):
        for imported in each.dependencies:
            if imported.name not in found:
                found[imported.name] = imported
                waiting.append(imported)
    return list(found.values())

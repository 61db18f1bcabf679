"""Writes tfopt_protos/descriptors.binpb: every message type that tfopt speaks, as one FileDescriptorSet.

The types come from the generated modules of the installed tensorflow and tensorflow-serving-api, and from the .proto
files next to the set for what the latter leaves out. Importing those modules at run time would import all of
TensorFlow; the set needs only protobuf. Run by `make protos` after either package changes version.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

HERE = Path(__file__).parent
PACKAGE = "tfopt_protos"

# The roots; what they import follows by itself.
MODULES = (
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.model_management_pb2",
    "tensorflow_serving.apis.model_service_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow_serving.config.model_server_config_pb2",
    "tensorflow_serving.config.platform_config_pb2",
    "tensorflow.compiler.mlir.quantization.tensorflow.quantization_options_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
    "tensorflow.core.protobuf.tensor_bundle_pb2",
    "tensorflow.core.protobuf.trackable_object_graph_pb2",
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / PACKAGE / "descriptors.binpb")
    out: Path = parser.parse_args(argv).out
    out.write_bytes(descriptor_set().SerializeToString(deterministic=True))
    print(f"{out}: {out.stat().st_size} bytes")
    return 0


def descriptor_set() -> FileDescriptorSet:
    """Every file, each after the files that it imports."""
    packaged: dict[str, FileDescriptorProto] = {}
    for name in MODULES:
        for file in _with_imports(importlib.import_module(name).DESCRIPTOR):
            packaged.setdefault(file.name, FileDescriptorProto.FromString(file.serialized_pb))
    files = [*packaged.values(), *_compiled(list(packaged.values()))]
    for proto in files:
        # File options (package names for Java and Go) mean nothing here and change between releases.
        proto.ClearField("options")
    return FileDescriptorSet(file=files)


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for imported in file.dependencies:
        yield from _with_imports(imported)
    yield file


def _compiled(known: list[FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Our own .proto files, compiled against the packaged ones."""
    sources = sorted(str(path.relative_to(HERE)) for path in (HERE / PACKAGE).glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        imports, result = Path(folder, "imports.binpb"), Path(folder, "result.binpb")
        imports.write_bytes(FileDescriptorSet(file=known).SerializeToString())
        # A process of its own: protoc's protobuf and TensorFlow's crash each other in one.
        protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--descriptor_set_in={imports}"]
        subprocess.run([*protoc, f"-I{HERE}", f"--descriptor_set_out={result}", *sources], check=True)
        compiled = FileDescriptorSet.FromString(result.read_bytes())
    for file in compiled.file:
        for message in file.message_type:
            for field in message.field:
                field.ClearField("json_name")  # derived; the packaged files do not carry it either
    return list(compiled.file)


if __name__ == "__main__":
    sys.exit(main())

"""The message classes of TensorFlow, TensorFlow Serving and gRPC health, without importing any of them.

    request = messages.message("tensorflow.serving.PredictRequest").FromString(body)
    config = messages.from_text("tensorflow.serving.ModelServerConfig", text)
    proto = messages.TensorProto()      # short names work as attributes

The classes come from descriptors.binpb (see protos/extract.py) in a descriptor pool of their own. TensorFlow registers
the same names in protobuf's default pool, so both may live in one process in either order. The price: an instance of
one is not an instance of the other; bytes are the border.
"""

from __future__ import annotations

import functools
import threading
from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, text_format
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_FILE = "descriptors.binpb"
_PACKAGES = ("tensorflow.serving", "tensorflow", "google.protobuf")

_lock = threading.Lock()
_pool: DescriptorPool | None = None


def pool() -> DescriptorPool:
    """The private pool, for text_format and json_format (which look up what an Any holds)."""
    global _pool
    if _pool is None:
        with _lock:
            # Two pools would mean two unequal classes per message.
            if _pool is None:
                _pool = _load()
    return _pool


def _load() -> DescriptorPool:
    data = resources.files(__package__).joinpath(_FILE).read_bytes()
    loaded = DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(data).file:
        loaded.Add(file)
    return loaded


@functools.cache
def message(full_name: str) -> Any:
    """The class of a message, e.g. message("tensorflow.SavedModel"). KeyError when there is none of that name."""
    return GetMessageClass(pool().FindMessageTypeByName(full_name))


def from_text(full_name: str, text: str | bytes) -> Any:
    """Parses the text format, expanded Any fields included. google.protobuf.text_format.ParseError names the line."""
    return text_format.Parse(text, message(full_name)(), descriptor_pool=pool())


def to_text(proto: Any) -> str:
    return text_format.MessageToString(proto, descriptor_pool=pool())


def __getattr__(name: str) -> Any:
    for package in _PACKAGES:
        try:
            found = message(f"{package}.{name}")
        except KeyError:
            continue
        globals()[name] = found  # the next access is a plain attribute
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}, and no message is named so")

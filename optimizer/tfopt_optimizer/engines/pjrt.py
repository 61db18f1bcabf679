"""The one file that touches jaxlib's private API: a PJRT client, executables and device buffers, without jax.jit.

Measured on a 2-core AVX-512 machine (small MLP, batch 1, numpy in and out): 15.6 us a call here, 78 us through
`jax.jit(jax.export.Exported.call).compile()`, 165 us through `tf.function(jit_compile=True)`.
Pinned by tests/optimizer/test_pjrt.py; change the jax pin in pyproject.toml only together with it.

The client dispatches synchronously: a call computes on the thread that makes it (XLA's own pool helps with large
operations). Asynchronous dispatch costs 19 us instead of 15.6 for the same call and a thread hop for each large one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer.engines import compilations

LARGE_CONSTANT = 64 << 10  # bytes
_HOISTED = ("f32", "f64", "i32", "i64")
_lock = threading.Lock()
_client: Client | None = None


def client(threads: int) -> Client:
    """This process's client. The first call decides the number of threads: XLA has one pool per process."""
    global _client
    with _lock:
        if _client is None:
            _client = Client(threads)
        return _client


class Client:
    """A PJRT CPU client that keeps 64-bit types as they are."""

    def __init__(self, threads: int) -> None:
        # XLA:CPU sizes its pool from this variable when the client is made, else from the host's schedulable cores,
        # which ignores a container's CPU quota. There is no other knob in jaxlib 0.10.2.
        os.environ["PJRT_NPROC"] = str(threads)
        import jax
        from jax.sharding import SingleDeviceSharding
        from jaxlib import _jax, xla_client

        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        self._jax, self._xla, self._aval = _jax, xla_client, jax.core.ShapedArray
        self._device = jax.devices("cpu")[0]
        self._client = self._device.client
        self._devices = _jax.DeviceList((self._device,))
        self._sharding = SingleDeviceSharding(self._device)

    def compile(self, module: bytes) -> Executable:
        """Compiles serialized StableHLO. Raises jaxlib's JaxRuntimeError with XLA's text."""
        compilations.tell("xla")
        return Executable(self._client.compile_and_load(module, self._devices, self._xla.CompileOptions()))

    def deserialize(self, blob: bytes) -> Executable:
        """Loads what Executable.serialize() gave, on an equal processor with an equal jaxlib only."""
        return Executable(self._client.deserialize_executable(blob, self._devices, self._xla.CompileOptions()))

    def putter(self, shape: tuple[int, ...], dtype: np.dtype) -> Callable[[np.ndarray], Any]:
        """A function that makes a device buffer from a C-contiguous array of exactly this shape and dtype.

        The buffer shares the array's memory where it is aligned to 64 bytes: the array must not change while the
        buffer lives.
        """
        aval, sharding, devices = self._aval(shape, dtype), self._sharding, [self._device]
        device_put, semantics = self._jax.batched_device_put, self._jax.HostBufferSemantics.ZERO_COPY

        def put(array: np.ndarray) -> Any:
            return device_put(aval, sharding, [array], devices, True, False, semantics, True)

        return put

    def put(self, array: np.ndarray) -> Any:
        return self.putter(array.shape, array.dtype)(array)


class Executable:
    """A compiled module for one device."""

    def __init__(self, loaded: Any) -> None:
        self._loaded = loaded
        self.execute: Callable[[Sequence[Any]], Sequence[Any]] = loaded.execute

    def serialize(self) -> bytes:
        blob: bytes = self._loaded.serialize()
        return blob

    def temporary_bytes(self) -> int:
        """Bytes of the temporary buffers of one call. (The size of the code is not known on CPU: it reads 0.)"""
        return int(self._loaded.get_compiled_memory_stats().temp_size_in_bytes)


def results(module: bytes) -> list[str]:
    """The types of what a serialized module gives, as MLIR writes them: ["tensor<4x3xf32>"]. A "?" is a dimension that
    only running decides: TensorFlow lowers such results (Where, Unique), XLA then gives them a wrong shape."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir.dialects import stablehlo

    with mlir.make_ir_context() as context:
        for operation in stablehlo.deserialize_portable_artifact(context, module).body.operations:
            if operation.attributes["sym_name"].value == "main":
                return [str(t) for t in operation.attributes["function_type"].value.results]
    raise ValueError("the module has no main function")


def hoisted(module: bytes, least: int = LARGE_CONSTANT) -> tuple[bytes, list[np.ndarray]]:
    """The module with its large constants as further parameters, behind those it has, and the constants in their order.

    A model whose weights are constants of its graph would hold them in every bucket's module and executable.
    """
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir
    from jaxlib.mlir.dialects import stablehlo

    found: list[np.ndarray] = []
    with mlir.make_ir_context() as context, ir.Location.unknown():
        parsed = stablehlo.deserialize_portable_artifact(context, module)
        main = next(f for f in parsed.body.operations if f.attributes["sym_name"].value == "main")
        body, kind = main.regions[0].blocks[0], ir.FunctionType(main.attributes["function_type"].value)
        inputs, results = list(kind.inputs), list(kind.results)
        for operation in [op.operation for op in body.operations if op.operation.name == "stablehlo.constant"]:
            value, result = operation.attributes["value"], operation.results[0]
            if (
                value.is_splat
                or str(value.type.element_type) not in _HOISTED
                or (array := np.array(value)).nbytes < least
            ):
                continue
            found.append(array)
            inputs.append(result.type)
            result.replace_all_uses_with(body.add_argument(result.type, ir.Location.unknown()))
            operation.erase()
        if not found:
            return module, []
        main.attributes["function_type"] = ir.TypeAttr.get(ir.FunctionType.get(inputs, results))
        if "arg_attrs" in main.attributes:
            attributes = [*main.attributes["arg_attrs"], *[ir.DictAttr.get({})] * len(found)]
            main.attributes["arg_attrs"] = ir.ArrayAttr.get(attributes)
        parsed.operation.verify()
        return bytes(stablehlo.serialize_portable_artifact(parsed, stablehlo.get_current_version())), found


def to_numpy(buffer: Any) -> np.ndarray:
    """The buffer's contents as a read-only array that shares its memory where the device is the host."""
    array: np.ndarray = buffer._single_device_array_to_np_array_did_copy()[0]
    return array


def address(buffer: Any) -> int:
    """Where the buffer's bytes lie; lets a test prove that weights were not copied."""
    return int(buffer.unsafe_buffer_pointer())


def runtime_error() -> type[Exception]:
    from jaxlib import _jax

    error: type[Exception] = _jax.JaxRuntimeError
    return error

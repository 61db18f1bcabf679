"""A PJRT client of the cpu, gpu or tpu, executables and device buffers, without jax.jit.

Where a replica is spread over several devices, its module is partitioned by GSPMD, its inputs and results lie whole on
each, and its weights as sharding.py says.

This and modules.py are the only files that touch jaxlib's private API.

Measured on a 2-core AVX-512 machine (small MLP, batch 1, numpy in and out): 15.6 us a call here, 78 us through
`jax.jit(jax.export.Exported.call).compile()`, 165 us through `tf.function(jit_compile=True)`.
Pinned by tests/optimizer/test_pjrt.py; change the jax pin in pyproject.toml only together with it.

On a CPU the client dispatches synchronously: a call computes on the thread that makes it (XLA's own pool helps with
large operations). Asynchronous dispatch costs 19 us instead of 15.6 for the same call and a thread hop for each large
one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfopt_optimizer import device, sharding
from tfopt_optimizer.device import ON_CPU, Device
from tfopt_optimizer.engines import compilations
from tfopt_optimizer.errors import EXHAUSTED, DeviceMissing, EngineError, OutOfMemory, first_line

PLATFORMS = {device.CPU: "cpu", device.GPU: "cuda", device.TPU: "tpu"}
_AXIS = "part"
_lock = threading.Lock()
_client: Client | None = None


def client(threads: int, wanted: Device = ON_CPU) -> Client:
    """This process's client. The first call decides threads and device: XLA has one pool and one client per process."""
    global _client
    with _lock:
        if _client is None:
            _client = Client(threads, wanted)
        return _client


def devices(wanted: Device) -> list[Any]:
    """The accelerators (or the CPU) that `wanted` names, at most `wanted.count`. DeviceMissing says why there are none.

    The first call decides the platform of this process.
    """
    _share_memory(wanted)
    import jax

    platform = PLATFORMS[wanted.name]
    jax.config.update("jax_platforms", platform)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    if wanted.name == device.CPU and wanted.count > 1:
        jax.config.update("jax_num_cpu_devices", wanted.count)
    try:
        found = list(jax.devices(platform))
    except AssertionError as error:  # how jax says that no driver shows a GPU
        raise DeviceMissing(f"no {wanted.name} is visible") from error
    except RuntimeError as error:
        raise DeviceMissing(first_line(error).removesuffix(_ADVICE)) from error
    return found[: wanted.count] if wanted.count else found


_ADVICE = " (set JAX_PLATFORMS='' to automatically choose an available backend)"


def _share_memory(wanted: Device) -> None:
    """What a GPU's allocator may take; jaxlib has no other knob. What the operator's own variables say stays.

    By itself XLA takes 3/4 of the memory when the client is made: then an optimizer beside a server would have none.
    """
    if wanted.name != device.GPU:
        return
    if wanted.memory_fraction:
        os.environ["XLA_PYTHON_CLIENT_MEM_FRACTION"] = ""  # its old name; both at once are an error
        os.environ["XLA_CLIENT_MEM_FRACTION"] = f"{wanted.memory_fraction:g}"
    if wanted.reserve:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "true"
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


class Client:
    """A PJRT client that keeps 64-bit types as they are. `number` counts the replicas, from 0: each has a device, or as
    many as `wanted.per_replica`."""

    def __init__(self, threads: int, wanted: Device = ON_CPU) -> None:
        # XLA:CPU sizes its pool from this variable when the client is made, else from the host's schedulable cores,
        # which ignores a container's CPU quota. There is no other knob in jaxlib 0.10.2.
        # The parts of one replica wait for each other: on a CPU each needs a thread of the pool.
        os.environ["PJRT_NPROC"] = str(max(threads, wanted.per_replica))
        found, self.parts = devices(wanted), wanted.per_replica
        if len(found) < self.parts:
            raise DeviceMissing(f"{len(found)} of the {self.parts} {wanted.name}s that a replica needs are visible")
        starts = range(0, len(found) - self.parts + 1, self.parts)
        self._groups = [tuple(found[i : i + self.parts]) for i in starts]
        import jax
        from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
        from jaxlib import _jax, xla_client

        self._jax, self._xla, self._aval = _jax, xla_client, jax.core.ShapedArray
        self._client = found[0].client
        self._single, self._named, self._spec = SingleDeviceSharding, NamedSharding, PartitionSpec
        self._meshes = [Mesh(np.array(group), (_AXIS,)) for group in self._groups] if self.parts > 1 else []
        semantics = _jax.HostBufferSemantics
        # A CPU's buffers are the arrays themselves. Elsewhere they are copies, which a call may be given for good.
        self._semantics = semantics.IMMUTABLE_UNTIL_TRANSFER_COMPLETES if wanted.accelerated else semantics.ZERO_COPY

    @property
    def count(self) -> int:
        return len(self._groups)

    def compile(self, module: bytes, number: int = 0) -> Executable:
        """Compiles serialized StableHLO. Raises jaxlib's JaxRuntimeError with XLA's text."""
        compilations.tell("xla")
        return Executable(self._client.compile_and_load(module, *self._on(number)), self.parts)

    def deserialize(self, blob: bytes, number: int = 0) -> Executable:
        """Loads what Executable.serialize() gave, on an equal processor with an equal jaxlib only."""
        return Executable(self._client.deserialize_executable(blob, *self._on(number)), self.parts)

    def _on(self, number: int) -> tuple[Any, Any]:
        group, options = self._groups[number], self._xla.CompileOptions()
        assignment = self._xla.DeviceAssignment.create(np.array([[one.id for one in group]]))
        options.device_assignment = assignment
        if self.parts > 1:
            options.num_partitions = self.parts
            building = options.executable_build_options
            building.num_partitions, building.device_assignment = self.parts, assignment
            building.use_spmd_partitioning, building.use_shardy_partitioner = True, False
        return self._jax.DeviceList(group), options

    def putter(self, shape: tuple[int, ...], dtype: np.dtype, number: int = 0) -> Callable[[np.ndarray], Any]:
        """A function that makes a device buffer from a C-contiguous array of exactly this shape and dtype.

        On a CPU the buffer shares the array's memory where it is aligned to 64 bytes: the array must not change while
        the buffer lives.
        """
        return self._put(shape, dtype, number, None)

    def _put(
        self, shape: tuple[int, ...], dtype: np.dtype, number: int, axis: int | None
    ) -> Callable[[np.ndarray], Any]:
        """`axis`: the one along which the replica's devices have a part each; None: each has all of it."""
        aval, group, parts = self._aval(shape, dtype), list(self._groups[number]), self.parts
        device_put, semantics = self._jax.batched_device_put, self._semantics
        if parts == 1:
            where = self._single(group[0])
            return lambda array: device_put(aval, where, [array], group, True, False, semantics, True)
        names = [_AXIS if i == axis else None for i in range(len(shape))]
        spread = self._named(self._meshes[number], self._spec(*names))

        def put(array: np.ndarray) -> Any:
            pieces = [array] * parts if axis is None else list(map(np.ascontiguousarray, np.split(array, parts, axis)))
            return device_put(aval, spread, pieces, group, True, False, semantics, True)

        return put

    def put(self, array: np.ndarray, number: int = 0) -> Any:
        """A weight, spread over the replica's devices where that saves memory."""
        axis = sharding.axis(array.shape, array.nbytes, self.parts)
        return self._put(array.shape, array.dtype, number, axis)(array)


class Executable:
    """A compiled module for one replica."""

    def __init__(self, loaded: Any, parts: int = 1) -> None:
        self._loaded = loaded
        self.execute: Callable[[Sequence[Any]], Sequence[Any]] = loaded.execute if parts == 1 else self._together

    def _together(self, given: Sequence[Any]) -> Sequence[Any]:
        """On all devices of the replica. Each has the whole result; the first one's is taken."""
        found = self._loaded.execute_sharded(given).disassemble_into_single_device_arrays()
        return [result[0] for result in found]

    def serialize(self) -> bytes:
        blob: bytes = self._loaded.serialize()
        return blob

    def temporary_bytes(self) -> int:
        """Bytes of the temporary buffers of one call. (The size of the code is not known on CPU: it reads 0.)"""
        return int(self._loaded.get_compiled_memory_stats().temp_size_in_bytes)

    def operations(self) -> float:
        """Floating-point operations of one call, as XLA counts them."""
        return float(self._loaded.cost_analysis().get("flops", 0.0))


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


def failure(error: Exception) -> EngineError:
    """What the runtime says, for whoever called: OutOfMemory where that is it."""
    text = str(error)
    if text.startswith(EXHAUSTED):
        return OutOfMemory(text.removeprefix(EXHAUSTED).lstrip(": "))
    return EngineError("INTERNAL", text)

"""Pins the private jaxlib API that engines/pjrt.py stands on. A failure here after an update means: look there."""

from __future__ import annotations

import jaxlib
import numpy as np
import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo
from tfopt_optimizer.engines import modules, pjrt

MODULE = b"""
module @m {
  func.func public @main(%x: tensor<2x3xDTYPE>, %w: tensor<3xDTYPE>) -> (tensor<2x3xDTYPE>, tensor<2x3xDTYPE>) {
    %b = stablehlo.broadcast_in_dim %w, dims = [1] : (tensor<3xDTYPE>) -> tensor<2x3xDTYPE>
    %y = stablehlo.add %x, %b : tensor<2x3xDTYPE>
    return %y, %x : tensor<2x3xDTYPE>, tensor<2x3xDTYPE>
  }
}
"""


@pytest.fixture(scope="module")
def client():
    return pjrt.client(2)


def compiled(client, dtype="f32"):
    return client.compile(MODULE.replace(b"DTYPE", dtype.encode()))


def test_the_version_is_the_one_that_was_tested():
    assert jaxlib.__version__ == "0.10.2"


@pytest.mark.parametrize(
    ("mlir", "numpy"), [("f32", "float32"), ("f64", "float64"), ("i64", "int64"), ("i32", "int32"), ("f16", "float16")]
)
def test_a_module_runs_with_its_dtypes_as_they_are(client, mlir, numpy):
    x, w = np.arange(6).reshape(2, 3).astype(numpy), np.array([10, 20, 30], numpy)
    outputs = compiled(client, mlir).execute([client.putter((2, 3), x.dtype)(x), client.put(w)])
    y, same = (pjrt.to_numpy(o) for o in outputs)
    assert (y.dtype, y.tolist()) == (np.dtype(numpy), (x + w).tolist())
    assert same.tolist() == x.tolist()


DYNAMIC = """
func.func public @main(%x: tensor<4xf32>, %n: tensor<i32>) -> (tensor<?xf32, #stablehlo.bounds<4>>, tensor<4xf32>) {
  %y = stablehlo.set_dimension_size %x, %n, dim = 0
       : (tensor<4xf32>, tensor<i32>) -> tensor<?xf32, #stablehlo.bounds<4>>
  return %y, %x : tensor<?xf32, #stablehlo.bounds<4>>, tensor<4xf32>
}
"""


def test_results_whose_shape_depends_on_values_are_seen():
    with mlir.make_ir_context():
        module = stablehlo.serialize_portable_artifact_str(DYNAMIC, stablehlo.get_current_version())
    assert modules.results(module) == ["tensor<?xf32, #stablehlo.bounds<4>>", "tensor<4xf32>"]


def test_an_executable_survives_serialization(client):
    blob = compiled(client).serialize()
    x, w = np.ones([2, 3], np.float32), np.ones([3], np.float32)
    outputs = client.deserialize(blob).execute([client.put(x), client.put(w)])
    assert pjrt.to_numpy(outputs[0]).tolist() == [[2, 2, 2], [2, 2, 2]]


def test_a_damaged_executable_or_module_is_a_runtime_error(client):
    blob = compiled(client).serialize()
    with pytest.raises(pjrt.runtime_error()):
        client.deserialize(blob[: len(blob) // 2])
    with pytest.raises(pjrt.runtime_error()):
        client.compile(b"ML\xefR nothing that parses")


def test_aligned_host_memory_is_used_without_a_copy(client):
    raw = np.zeros(1 << 16, np.uint8)
    start = -raw.ctypes.data % 64
    aligned = raw[start : start + 4096].view(np.float32)
    aligned.flags.writeable = False
    assert pjrt.address(client.put(aligned)) == aligned.ctypes.data


def test_arrays_that_are_not_contiguous_are_read_right(client):
    x = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2].T
    assert x.shape == (2, 3)
    outputs = compiled(client).execute([client.putter((2, 3), x.dtype)(x), client.put(np.zeros(3, np.float32))])
    assert pjrt.to_numpy(outputs[0]).tolist() == x.tolist()


def test_the_memory_of_a_call_is_known(client):
    assert compiled(client).temporary_bytes() == 0  # an addition needs none


CONSTANTS = """
func.func public @main(%x: tensor<2x3xf32>) -> tensor<2x3xf32> {
  %large = stablehlo.constant dense<[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]> : tensor<2x3xf32>
  %flat = stablehlo.constant dense<0.5> : tensor<2x3xf32>
  %small = stablehlo.constant dense<[1.0, 2.0, 3.0]> : tensor<3xf32>
  %wide = stablehlo.broadcast_in_dim %small, dims = [1] : (tensor<3xf32>) -> tensor<2x3xf32>
  %a = stablehlo.add %x, %large : tensor<2x3xf32>
  %b = stablehlo.add %a, %flat : tensor<2x3xf32>
  %y = stablehlo.add %b, %wide : tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
"""


def test_large_constants_become_parameters(client):
    with mlir.make_ir_context():
        module = stablehlo.serialize_portable_artifact_str(CONSTANTS, stablehlo.get_current_version())
    smaller, (large,) = modules.hoisted(module, least=24)
    assert large.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert modules.hoisted(module) == (module, [])
    x = np.ones([2, 3], np.float32)
    before = client.compile(module).execute([client.put(x)])
    after = client.compile(smaller).execute([client.put(x), client.put(large)])
    assert pjrt.to_numpy(after[0]).tolist() == pjrt.to_numpy(before[0]).tolist() == [[3.5, 5.5, 7.5], [6.5, 8.5, 10.5]]

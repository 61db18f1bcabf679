"""Compiling for a TPU that is not there. What needs libtpu runs where it is installed (make test/libtpu)."""

from __future__ import annotations

import math
import sys

import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir.dialects import stablehlo
from tfopt_optimizer.tpu import ahead, convert, io_programs, options, report, tiles
from tfopt_optimizer.tpu.ahead import AheadUnavailable, Compiled, Program
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.errors import ConversionError
from tfopt_optimizer.tpu.io_shapes import Parcel, Tensor

libtpu = [
    pytest.mark.libtpu,
    pytest.mark.slow,
    pytest.mark.skipif(not ahead.installed(), reason="libtpu is not installed"),
]
TOPOLOGY = "v5e:1x1"
PRODUCT = """
func.func public @main(%x: tensor<ROWSx256xf32>, %w: tensor<256x128xf32>) -> tensor<ROWSx128xf32> {
  %y = stablehlo.dot_general %x, %w, contracting_dims = [1] x [0]
       : (tensor<ROWSx256xf32>, tensor<256x128xf32>) -> tensor<ROWSx128xf32>
  return %y : tensor<ROWSx128xf32>
}
"""


SHAPES = [
    ((8, 10), "float"), ((2, 10), "float"), ((32, 26), "int32"), ((100, 1), "float"), ((512, 10), "float"),
    ((128, 1000), "float"), ((64, 200, 100), "float"), ((8, 10, 10, 10), "float"), ((3, 5, 7, 11), "float"),
    ((8, 16, 16, 3), "float"), ((8, 224, 224, 3), "float"), ((8, 16, 16, 64), "float"), ((8, 512, 4), "float"),
    ((8, 16, 16, 3), "int8"), ((3, 10), "bfloat16"), ((64, 50, 100), "bfloat16"), ((9, 33), "bool"), ((40, 26), "int8"),
]  # fmt: skip


@pytest.fixture
def shaped(tmp_path):
    """shaped(number, shape, dtype): a program that brings rank 1 into that shape."""

    def write(number, shape, dtype):
        return io_programs.program(tmp_path / str(number), Parcel((Tensor(0, "t", dtype, shape),)), 1)

    return write


@pytest.fixture
def product(tmp_path):
    """product(rows, exact): a program that multiplies [rows, 256] by weights."""

    def write(rows, exact=False):
        path = tmp_path / f"{rows}.stablehlo"
        with mlir.make_ir_context():
            text = PRODUCT.replace("ROWS", str(rows))
            path.write_bytes(stablehlo.serialize_portable_artifact_str(text, stablehlo.get_current_version()))
        return Program(f"x {rows}", module=str(path), inputs=1, exact=exact)

    return write


def stand_in(tmp_path, monkeypatch, script):
    """`script` instead of libtpu."""
    (tmp_path / "stand_in.py").write_text(script)
    monkeypatch.setattr(ahead, "installed", lambda: True)
    monkeypatch.setattr(ahead, "CHILD", "stand_in")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))


def test_a_compiler_that_aborts_costs_the_program_and_not_those_after_it(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, """
import json, os, sys
for program in json.load(sys.stdin)["programs"]:
    if program["name"] == "bad":
        os.abort()
    print("noise"), print(json.dumps({"name": program["name"], "code": 7}), flush=True)
""")  # fmt: skip
    made = list(ahead.compile_all([Program("one"), Program("bad"), Program("two")], TOPOLOGY))
    assert [(c.name, c.code, c.error) for c in made] == [
        ("one", 7, ""), ("bad", 0, "the compiler ended with -6"), ("two", 7, "")
    ]  # fmt: skip


def test_one_that_takes_too_long_is_stopped(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "import time; time.sleep(60)")
    assert [c.error for c in ahead.compile_all([Program("one")], TOPOLOGY, 0.3)] == ["not compiled within 0.3 s"]


def test_without_libtpu_it_is_said_how_to_get_it(monkeypatch):
    monkeypatch.setattr(ahead, "installed", lambda: False)
    with pytest.raises(AheadUnavailable, match="libtpu is not installed: pip install libtpu"):
        list(ahead.compile_all([Program("one")], TOPOLOGY))


def test_what_the_report_says():
    made = [
        Compiled("f x 8", 1.5, 4_000_000, 1000, 2_000_000, 99_000, optimal_s=2.5e-5),
        Compiled("g", error="no kernel"),
    ]
    assert ahead.lines(made, "v5e:2x2") == [
        "v5e:2x2: f x 8: fits: 6.1 MB a core (arguments 4.0, temporary 2.0), compiled in 1.5 s, modelled 25 us a call",
        "v5e:2x2: g: no kernel",
    ]


class TestLibtpu:
    pytestmark = libtpu

    def test_sizes_per_batch(self, product):
        small, large = ahead.compile_all([product(8), product(4096)], TOPOLOGY)
        assert (small.error, large.error) == ("", "")
        assert large.arguments - small.arguments >= (4096 - 8) * 256 * 4
        assert large.flops >= 2 * 4096 * 256 * 128
        assert large.optimal_s is None or large.optimal_s > 0

    def test_float32_products_are_another_program_than_the_tpus_own(self, product):
        own, exact = ahead.compile_all([product(4096), product(4096, exact=True)], TOPOLOGY)
        assert own.error == exact.error == ""
        assert own.executable != exact.executable

    def test_what_does_not_fit_is_the_compilers_own_error_and_the_next_one_goes_on(self, product):
        huge, small = ahead.compile_all([product(40_000_000), product(8)], TOPOLOGY)
        assert huge.error.startswith("RESOURCE_EXHAUSTED")
        assert "exceeds available HBM" in huge.error or "hbm" in huge.error.lower()
        assert small.error == ""

    def test_a_topology_that_is_none(self, product):
        with pytest.raises(AheadUnavailable, match="topology 'v9:2x2': "):
            list(ahead.compile_all([product(8)], "v9:2x2"))

    @pytest.mark.tensorflow
    def test_a_conversion_compiles_what_it_placed_in_the_sizes_of_its_batches(self, tpu_model, tmp_path):
        text = (
            'tpu_functions { function_alias: "tpu_func" } batch_options { num_batch_threads: 2 max_batch_size: 8 '
            "batch_timeout_micros: 50000 allowed_batch_sizes: [4, 8] }"
        )
        given = options.parse(text)
        job = ConversionJob(tpu_model("toy"), tmp_path / "out", given, {}, "none", topology=TOPOLOGY)
        done = convert.convert(job)
        (placed,) = done.placed
        assert [(c.name, c.error) for c in done.ahead] == [(f"{placed.name} x {n}", "") for n in (4, 8)]
        assert done.ahead[0].arguments > 800  # the variables are there
        assert sum(line.startswith(f"{TOPOLOGY}: {placed.name} x ") for line in report.lines(done)) == 2

    def test_bytes_in_tiles_and_the_time_to_get_there_are_the_compilers(self, shaped):
        """Sizes to the byte; the time, which only has to say which form is worth it, within a factor of four."""
        programs = [shaped(i, *given) for i, given in enumerate(SHAPES)]
        for (shape, dtype), made in zip(SHAPES, ahead.compile_all(programs, TOPOLOGY), strict=True):
            assert made.error == ""
            assert made.outputs == tiles.padded(shape, dtype), (shape, dtype)
            assert made.arguments == tiles.padded((math.prod(shape),), dtype), (shape, dtype)
            if made.optimal_s is not None and made.optimal_s > 1e-6:
                assert 0.25 < tiles.relayout_s(shape, dtype) / made.optimal_s < 4, (shape, dtype)

    @pytest.mark.tensorflow
    def test_forms_on_the_link_are_weighed_by_the_compiler(self, tpu_model, tmp_path):
        text = 'tpu_functions { function_alias: "tpu_func" } bfloat16_optimization: DISABLED'
        given = options.parse(text)
        done = convert.convert(ConversionJob(tpu_model("features"), tmp_path / "out", given, {}, "none", TOPOLOGY))
        weighed = {(w.tensors, w.direction): w for w in done.io_shapes}
        image = weighed[("image",), "to the TPU"]
        assert (image.applied, image.source, image.bytes_before, image.bytes_after) == (True, TOPOLOGY, 196_608, 24_576)
        assert all(c.error == "" for c in done.ahead)

    @pytest.mark.tensorflow
    def test_a_conversion_that_does_not_fit_is_refused(self, tpu_model, tmp_path):
        text = (
            'tpu_functions { function_alias: "tpu_func" } batch_options { num_batch_threads: 2 '
            "max_batch_size: 400000000 batch_timeout_micros: 50000 allowed_batch_sizes: [400000000] }"
        )
        job = ConversionJob(tpu_model("toy"), tmp_path / "out", options.parse(text), {}, "none", topology=TOPOLOGY)
        with pytest.raises(ConversionError) as caught:
            convert.convert(job)
        assert "does not fit into the TPU's memory; allow smaller batch sizes" in str(caught.value)
        assert list(tmp_path.iterdir()) == []

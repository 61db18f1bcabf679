"""What crosses between host and TPU in another form: which, why, and that no value, shape or caller notices."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tfopt_optimizer.tpu import ahead, convert, files, io_programs, io_shapes, options, parcels, report, tiles, trial
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_optimizer.tpu.io_shapes import FROM_TPU, TO_TPU, Costs, Function, Parcel, Tensor

RNG = np.random.default_rng(0)
BATCHED = (
    "batch_options { num_batch_threads: 1 max_batch_size: 8 batch_timeout_micros: 50000 allowed_batch_sizes: [2, 8] }"
)
BATCHED_ONE = BATCHED[:-1] + 'experimental { function_alias: "tpu_func" } }'
ALIASES = " ".join(f'tpu_functions {{ function_alias: "{name}" }}' for name in ("two_func", "fixed_func"))


def function(arguments, results=(), sizes=(8,), equal_rows=True) -> Function:
    def tensors(shapes):
        return tuple(Tensor(i, f"t{i}", dtype, shape) for i, (dtype, shape) in enumerate(shapes))

    return Function("f", tensors(arguments), tensors(results), sizes, equal_rows)


# --- tiles: numbers of libtpu 0.0.52 for v5e (TestLibtpu compares more) ----------------------------------------------

TILES = [
    ((), "float", 512), ((1,), "float", 512), ((300,), "float", 2048), ((1025,), "float", 8192), ((300,), "int8", 512),
    ((8, 10), "float", 4096), ((1, 10), "float", 512), ((9, 128), "float", 8192), ((100, 1), "float", 512),
    ((8, 16, 16, 3), "float", 196_608), ((8, 224, 224, 3), "float", 5_505_024), ((3, 5, 7, 11), "float", 61_440),
    ((128, 1000), "float", 512_000), ((8, 10), "bfloat16", 2048), ((3, 10), "bfloat16", 1024), ((8, 100), "bool", 1024),
    ((0, 10), "float", 0),
]  # fmt: skip


@pytest.mark.parametrize(("shape", "dtype", "size"), TILES)
def test_bytes_in_tiles(shape, dtype, size) -> None:
    assert tiles.padded(shape, dtype) == size


# --- which form ------------------------------------------------------------------------------------------------------


def test_small_tensors_of_a_batch_are_one_transfer() -> None:
    border, told = io_shapes.choose(function([("int32", (None, 1))] * 26))
    (parcel,) = border.to_tpu
    assert parcel.flat
    assert len(parcel.tensors) == 26
    (weighed,) = told
    assert (weighed.direction, weighed.applied, weighed.bytes_before, weighed.bytes_after) == (
        TO_TPU,
        True,
        26 * 512,
        1024,
    )
    assert weighed.gain_s == pytest.approx(25 * io_shapes.TRANSFER_S, rel=0.05)


def test_rows_that_need_not_be_equal_are_not_packed() -> None:
    border, told = io_shapes.choose(function([("int32", (None, 1))] * 26, equal_rows=False))
    assert not border.changed
    assert len(told) == 26


def test_a_result_whose_size_running_may_decide_stays() -> None:
    """As that of tf.where; where there is a batch op, it is the batch."""
    image = [("float", (None, 16, 16, 3))]
    border, _ = io_shapes.choose(function(image, image, equal_rows=False))
    assert (border.to_tpu[0].flat, border.from_tpu[0].flat) == (True, False)
    border, _ = io_shapes.choose(function(image, image))
    assert (border.to_tpu[0].flat, border.from_tpu[0].flat) == (True, True)


def test_only_equal_types_share_a_transfer_and_large_ones_go_alone() -> None:
    arguments = [("int32", (None, 1)), ("float", (None, 2)), ("int32", (None, 3)), ("int32", (None, 10_000))]
    border, _ = io_shapes.choose(function(arguments))
    assert [[t.index for t in p.tensors] for p in border.to_tpu] == [[0, 2], [1], [3]]


def test_an_image_whose_tiles_are_nearly_full_stays_as_it_is() -> None:
    """224 x 224 x 3 would save 0.7 MB of the link and cost the TPU 0.6 ms, by libtpu's model."""
    border, (large,) = io_shapes.choose(function([("float", (None, 224, 224, 3))]))
    assert not border.changed
    assert large.gain_s < -400e-6
    border, (small,) = io_shapes.choose(function([("float", (None, 16, 16, 3))]))
    assert border.to_tpu[0].flat
    assert small.gain_s > 5e-6


def test_a_form_that_loses_in_one_batch_size_is_not_taken() -> None:
    def weigh(parcel: Parcel, rows: int) -> Costs:
        return Costs(1_000_000, 1000, 200e-6 if rows == 2 else 0.0, "a stand-in")

    border, (weighed,) = io_shapes.choose(function([("float", (None, 7))], sizes=(2, 8)), weigh)
    assert not border.changed
    assert weighed.gain_s > 0
    assert weighed.source == "a stand-in"


ODD = [("float", None), ("float", (None, None, 3)), ("float", (None, 0)), ("float", (None,)), ("string", (None, 3))]


def test_what_has_no_constant_way_back_stays() -> None:
    border, told = io_shapes.choose(function(ODD, ODD))
    assert not border.changed
    assert told == []


def test_the_compilers_numbers_are_used_where_it_has_them(monkeypatch) -> None:
    """Two programs; the second has no modelled time and is weighed by arithmetic."""
    seen = []

    def compile_all(programs, topology):
        seen.extend(programs)
        yield ahead.Compiled("0", arguments=1000, outputs=9000, optimal_s=1e-6)
        yield ahead.Compiled("1", arguments=1000, outputs=9000)

    monkeypatch.setattr(ahead, "compile_all", compile_all)
    two = function([("float", (None, 16, 16, 3)), ("float", (None, 8, 8, 3))])
    weigh = io_programs.compiled([two], "v5e:1x1")
    assert len(seen) == 2
    first, second = (weigh(Parcel((t,)), 8) for t in two.arguments)
    assert first == Costs(9000, 1000, 1e-6, "v5e:1x1")
    assert second.source == io_shapes.ESTIMATED


def test_the_program_that_brings_a_parcel_into_shape() -> None:
    parcel = Parcel(tuple(Tensor(i, "t", "int32", (None, n)) for i, n in enumerate((3, 1))))
    assert (
        io_programs.text(parcel, 8)
        == """\
func.func public @main(%x: tensor<32xi32>) -> (tensor<8x3xi32>, tensor<8x1xi32>) {
  %all = stablehlo.reshape %x : (tensor<32xi32>) -> tensor<8x4xi32>
  %s0 = stablehlo.slice %all [0:8, 0:3] : (tensor<8x4xi32>) -> tensor<8x3xi32>
  %t0 = stablehlo.reshape %s0 : (tensor<8x3xi32>) -> tensor<8x3xi32>
  %s1 = stablehlo.slice %all [0:8, 3:4] : (tensor<8x4xi32>) -> tensor<8x1xi32>
  %t1 = stablehlo.reshape %s1 : (tensor<8x1xi32>) -> tensor<8x1xi32>
  return %t0, %t1 : tensor<8x3xi32>, tensor<8x1xi32>
}
"""
    )


# --- in a model ------------------------------------------------------------------------------------------------------


def calls_of(signature: str, rows: int = 3):
    def numbers(*shape):
        return RNG.standard_normal(shape).astype(np.float32)

    if signature == "two_sizes":
        return {"x": numbers(rows, 40), "y": numbers(rows + 2, 40)}
    if signature == "fixed":
        return {"a": numbers(2, 3), "b": numbers(5), "c": numbers()}
    ids = RNG.integers(-(2**31), 2**31 - 1, (rows, 3)).astype(np.int32)
    return {name: numbers(rows, 1) for name in ("age", "height", "weight")} | {
        "ids": ids, "image": numbers(rows, 16, 16, 3)
    }  # fmt: skip


@pytest.fixture
def all_forms(monkeypatch):
    """A TPU that reshapes for nothing: whatever may be rewritten is."""
    monkeypatch.setattr(tiles, "relayout_s", lambda shape, dtype: 0.0)
    monkeypatch.setattr(io_shapes, "_LEAST_GAIN_S", 0.0)


@pytest.fixture(scope="module")
def converted(tpu_model, tmp_path_factory):
    """converted(state, text) -> the report, and the signatures as this CPU runs them: XLA for the TPU's part."""
    import tensorflow as tf

    folder = tmp_path_factory.mktemp("io")

    def make(state: str, text: str):
        to = folder / f"{state}{len(list(folder.iterdir()))}"
        given = options.parse(f"disable_default_optimizations: true io_shape_optimization: {state} {text}")
        done = convert.convert(ConversionJob(tpu_model("features"), to, given, {}, "none"))
        emulated = files.read(to)
        trial.emulate(emulated.meta_graphs[0], compiled=True, batched=True)
        files.link(to, emulated, to.with_suffix(".emulated"))
        loaded = tf.saved_model.load(str(to.with_suffix(".emulated")))
        return done, loaded

    return make


def operations(folder, part: str) -> list[str]:
    library = files.read(folder).meta_graphs[0].graph_def.library
    return [n.op for f in library.function if f.signature.name.endswith(part) for n in f.node_def]


@pytest.mark.tensorflow
class TestModels:
    def test_every_bit_is_what_it_was(self, converted, tpu_model, all_forms) -> None:
        """In both directions, packed and alone, with and without a batch op, in several numbers of rows, none too."""
        import tensorflow as tf

        batched = f'tpu_functions {{ function_alias: "tpu_func" }} {BATCHED}'
        changed, new = converted("ENABLED", batched)
        _, old = converted("DISABLED", batched)
        applied = {(w.direction, len(w.tensors)) for w in changed.io_shapes if w.applied}
        assert applied == {(TO_TPU, 3), (TO_TPU, 1), (FROM_TPU, 2), (FROM_TPU, 1)}
        stub = operations(Path(changed.written), "_callstub")
        assert {"ConcatV2", "SplitV", "Reshape"} <= set(stub)
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:  # as TensorFlow Serving loads it
            tf.compat.v1.saved_model.load(session, ["serve"], changed.written)
        original = tf.saved_model.load(str(tpu_model("features"))).signatures["serving_default"]
        for rows in (1, 2, 5, 8):
            feeds = {name: tf.constant(value) for name, value in calls_of("serving_default", rows).items()}
            wanted, found = old.signatures["serving_default"](**feeds), new.signatures["serving_default"](**feeds)
            assert set(found) == {"score", "same", "rows", "image"}
            for name, value in found.items():
                assert value.numpy().tobytes() == wanted[name].numpy().tobytes(), name
                assert value.shape == original(**feeds)[name].shape

    def test_functions_without_a_batch_op(self, converted) -> None:
        changed, new = converted("ENABLED", ALIASES)
        _, old = converted("DISABLED", ALIASES)
        packed = [w for w in changed.io_shapes if w.applied]
        assert [(w.tensors, w.direction) for w in packed] == [
            (("a", "b", "c"), TO_TPU),
            (("identity", "identity_1"), FROM_TPU),
        ]
        for key in ("two_sizes", "fixed"):
            feeds = calls_of(key)
            wanted = old.signatures[key](**feeds)
            for name, value in new.signatures[key](**feeds).items():
                assert value.numpy().tobytes() == wanted[name].numpy().tobytes(), name

    def test_it_is_on_by_default_and_told(self, tpu_model, tmp_path) -> None:
        text = f'bfloat16_optimization: DISABLED tpu_functions {{ function_alias: "tpu_func" }} {BATCHED}'
        samples = {"serving_default": [calls_of("serving_default", 2)]}
        job = ConversionJob(tpu_model("features"), tmp_path / "m", options.parse(text), samples, "made up")
        done = convert.convert(job)
        (tried,) = done.tried
        assert {a.max_rel_error for name, a in tried.outputs.items() if name in ("same", "image")} == {0.0}
        told = [line for line in report.lines(done) if line.startswith("io shapes: ")]
        assert any("3 tensors (age, height, weight) in one transfer to the TPU as rank 1" in line for line in told)
        assert any("image to the TPU as rank 1: 197 kB become 24.6 kB in 8 rows" in line for line in told)
        assert report.read(tmp_path / "m").io_shapes == done.io_shapes

    def test_served_without_a_tpu_nothing_is_reshaped(self, tpu_model, tmp_path, all_forms) -> None:
        """Engines of a CPU would have to find out that these undo each other."""
        import tensorflow as tf
        from tfopt_optimizer.tpu import runnable

        text = f"""bfloat16_optimization: DISABLED tpu_functions {{ function_alias: "tpu_func" }}
            tpu_functions {{ function_alias: "fixed_func" }} {BATCHED_ONE}"""
        done = convert.convert(ConversionJob(tpu_model("features"), tmp_path / "m", options.parse(text), {}, "none"))
        assert any(w.applied for w in done.io_shapes)
        folder, _ = runnable.of(tmp_path / "m", tmp_path / "cache")
        text = (folder / files.NAME).read_bytes()
        assert all(word.encode() not in text for word in (parcels.MARK, parcels.TAKE, parcels.GIVE))
        original, served = (tf.saved_model.load(str(p)).signatures for p in (tpu_model("features"), folder))
        for key in ("serving_default", "fixed"):
            feeds = {name: tf.constant(value) for name, value in calls_of(key).items()}
            wanted = original[key](**feeds)
            for name, value in served[key](**feeds).items():
                np.testing.assert_allclose(value.numpy(), wanted[name].numpy(), rtol=1e-5)


def test_nothing_changes_where_nothing_is_gained() -> None:
    one = function([("float", (None, 128))], [("float", (None, 128))])
    border, told = io_shapes.choose(one)
    assert border == io_shapes.plain(one)
    assert [w.applied for w in told] == [False, False]
    assert io_shapes.lines(told) == ["io shapes: 2 of 2 forms weighed would gain nothing: left"]
    assert dataclasses.replace(told[0], direction=FROM_TPU) == told[1]

"""What the server holds: routing, padding, splitting, fall-backs. One xla plan serves all of these tests."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from tfopt_optimizer import plan as plans
from tfopt_optimizer import plan_files
from tfopt_optimizer.engines import artifacts
from tfopt_optimizer.errors import EngineError
from tfopt_optimizer.servable import Servable
from tfopt_optimizer.signature_runner import pad

pytestmark = pytest.mark.tensorflow
X = np.random.default_rng(5).standard_normal((9, 32)).astype(np.float32)


@pytest.fixture(scope="module")
def servable(mlp):
    opened = Servable.open(mlp.model, mlp.folder, mlp.plan)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def runner(servable):
    return servable.signatures["serving_default"]


@pytest.fixture
def plan_copy(mlp, tmp_path):
    return mlp.model, shutil.copytree(mlp.folder, tmp_path / "plan"), mlp.plan


def name_of(runner):
    return runner.info.outputs[0].name


def test_requests_of_the_plans_shapes_have_rows_and_a_group(runner):
    one, three = runner.route({"features": X[:1]}), runner.route({"features": X[:3]})
    assert (one.rows, three.rows, one.reference) == (1, 3, False)
    assert one.group == three.group
    assert one.group is not None


@pytest.mark.parametrize(
    ("feeds", "reason"),
    [
        ({"features": X[:, :5]}, "input 'features' is float32[9, 5], the plan has float32['rows', 32]"),
        ({"features": X.astype(np.float64)}, "input 'features' is float64[9, 32], the plan has float32['rows', 32]"),
        ({"features": X[0]}, "input 'features' is float32[32], the plan has float32['rows', 32]"),
        ({"features": np.float32(1).reshape(())}, "input 'features' is float32[], the plan has float32['rows', 32]"),
        ({"features": X[:0]}, "no rows"),
        ({"other": X}, "input 'features' is missing"),
        ({"features": X, "other": X}, "unknown inputs"),
    ],
)
def test_everything_else_goes_to_plain_tensorflow_for_a_reason(runner, feeds, reason):
    route = runner.route(feeds)
    assert (route.reference, route.rows, route.group, route.reason) == (True, None, None, reason)


def test_the_smallest_bucket_that_holds_the_rows(runner):
    assert [runner.bucket_for(n).batch for n in (1, 2, 4, 5, 100)] == [1, 4, 4, 4, 4]
    bucket = runner.bucket_for(4)
    assert (bucket.engine, bucket.static) == ("xla", True)
    assert bucket.cost_us > 0
    assert [b.batch for b in runner.all_buckets()] == [1, 4]


def test_any_number_of_rows_gives_the_rows_one_by_one(runner):
    name = name_of(runner)
    alone = np.concatenate([runner.run({"features": X[i : i + 1]})[name] for i in range(9)])
    for rows in (1, 3, 4, 9):
        np.testing.assert_allclose(runner.run({"features": X[:rows]})[name], alone[:rows], rtol=1e-5, atol=1e-7)
    assert list(runner.run({"features": X}, [name])) == [name]


def test_padding_repeats_the_first_row():
    strings = np.array([b"a", b"b"], dtype=object)
    padded = pad({"s": strings, "x": X[:2]}, 2, 4)
    assert padded["s"].tolist() == [b"a", b"b", b"a", b"a"]
    assert padded["x"].tolist() == X[[0, 1, 0, 0]].tolist()


def test_arrays_that_are_not_contiguous_are_taken(runner):
    strided = np.asfortranarray(X)[::2]
    expected = runner.run({"features": np.ascontiguousarray(strided)})[name_of(runner)]
    np.testing.assert_array_equal(runner.run({"features": strided})[name_of(runner)], expected)


def test_many_threads_share_a_runner(runner):
    name = name_of(runner)
    expected = runner.run({"features": X})[name]
    wrong = []

    def call(row):
        for _ in range(200):
            found = runner.run({"features": X[row : row + 1]})[name]
            if not np.allclose(found, expected[row : row + 1], rtol=1e-5, atol=1e-7):
                wrong.append(row)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_plain_tensorflow_agrees_and_speaks_its_own_errors(runner, servable):
    reference = runner.run_reference({"features": X})
    np.testing.assert_allclose(
        reference[name_of(runner)], runner.run({"features": X})[name_of(runner)], rtol=1e-4, atol=1e-6
    )
    assert servable.tensorflow_loaded
    with pytest.raises(EngineError) as failed:
        runner.run({"features": X[:, :5]})
    assert failed.value.code == "INVALID_ARGUMENT"
    assert failed.value.message.startswith("Matrix size-incompatible: In[0]: [9,5], In[1]: [32,64]")


def test_an_executable_that_does_not_load_is_compiled_again_and_told(plan_copy):
    model, folder, plan = plan_copy
    (folder / "s0" / "b4" / artifacts.executable("pjrt")).write_bytes(b"of another processor")
    opened = Servable.open(model, folder, plan)
    runner = opened.signatures["serving_default"]
    (note,) = opened.notes  # one, although serving_default and serve both use it
    assert note.startswith("s0/b4: the executable does not load (")
    assert note.endswith("; compiling its module again")
    assert runner.run({"features": X})[name_of(runner)].shape == (9, 10)
    assert runner.bucket_for(4).engine == "xla"
    opened.close()


def test_a_bucket_that_cannot_be_compiled_either_runs_on_plain_tensorflow(plan_copy):
    model, folder, plan = plan_copy
    for file in (artifacts.executable("pjrt"), artifacts.MODULE):
        (folder / "s0" / "b4" / file).write_bytes(b"damaged")
    opened = Servable.open(model, folder, plan)
    runner = opened.signatures["serving_default"]
    bucket = runner.bucket_for(4)
    assert (bucket.engine, bucket.static) == ("tensorflow/function", False)
    assert sum(n.startswith("serving_default x 4: xla cannot be loaded, plain TF runs: ") for n in opened.notes) == 1
    assert runner.run({"features": X})[name_of(runner)].shape == (9, 10)
    opened.close()


def test_weights_are_shared_and_not_copied(mlp, runner):
    """All executables get the same device buffers, and these are the mapped file itself."""
    compiled = [b.run for b in runner.all_buckets()]
    assert [id(w) for w in compiled[0]._replicas[0].weights] == [id(w) for w in compiled[1]._replicas[0].weights]
    with open("/proc/self/maps") as maps:
        mapped = [line.split() for line in maps if str(mlp.folder / "weights.bin") in line]
    spans = [tuple(int(a, 16) for a in words[0].split("-")) for words in mapped]
    addresses = [w.unsafe_buffer_pointer() for w in compiled[0]._replicas[0].weights]
    assert all(any(start <= a < end for start, end in spans) for a in addresses)


def test_without_a_plan_the_model_runs_as_it_is(savedmodel):
    opened = Servable.open(savedmodel("half_plus_two_v1"))
    assert opened.plan.loader == "session"
    assert opened.plan.log == ("the optimizer is switched off",)
    runner = opened.signatures["serving_default"]
    assert (runner.buckets, runner.row_independent, runner.merge) == ((), False, False)
    route = runner.route({"x": np.ones([2, 1], np.float32)})
    assert (route.reference, route.group) == (False, None)
    assert runner.run({"x": np.array([[1.0], [2.0]], np.float32)})["y"].tolist() == [[2.5], [3.0]]
    assert opened.signatures["classify_x_to_y"].info.method_name == "tensorflow/serving/classify"
    opened.close()


def test_defaults_fill_inputs_that_are_left_out(savedmodel):
    opened = Servable.open(savedmodel("defaults"))
    assert opened.signatures["serving_default"].run({"x": np.ones([1, 2], np.float32)})["y"].tolist() == [[10, 10]]
    opened.close()


def test_a_damaged_plan_is_found_before_it_is_opened(plan_copy):
    _, folder, plan = plan_copy
    (folder / "s0" / "b1" / artifacts.MODULE).write_bytes(b"damaged")
    with pytest.raises(plans.PlanError, match=r"s0/b1/module\.stablehlo: damaged"):
        plan_files.verify(plan, folder)

"""The ModelHandler on Apache Beam's DirectRunner: `make test/beam`, in an environment of its own that holds Beam."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

beam = pytest.importorskip("apache_beam", reason="Apache Beam is not installed: make test/beam")

from apache_beam.metrics.metric import MetricsFilter  # noqa: E402
from apache_beam.ml.inference.base import KeyedModelHandler, RunInference  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.testing.util import assert_that, equal_to  # noqa: E402
from tfopt_server.beam import TfoptModelHandler  # noqa: E402
from tfopt_warmup import tfrecord  # noqa: E402

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def options(workers=1, mode="in_memory"):
    return PipelineOptions(
        ["--runner=DirectRunner", f"--direct_num_workers={workers}", f"--direct_running_mode={mode}"]
    )


@pytest.fixture(scope="module")
def model(savedmodel, tmp_path_factory):
    """The lookup model with a plan in it, as it would lie in a bucket."""
    folder = Path(shutil.copytree(savedmodel("lookup").parent, tmp_path_factory.mktemp("models") / "lookup"))
    optimize(folder)
    return folder


def optimize(folder):
    command = [sys.executable, "-m", "tfopt_server", "optimize", str(folder), "--in_place", "--without_tensorflow"]
    quick = ["--engines=litert", "--optimize_budget_s=2", "--allowed_batch_sizes=1,8"]
    done = subprocess.run([*command, *quick], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


FLAGS = ("--allowed_batch_sizes=1,8",)  # the plan's
WORDS = ("red", "green", "other")
INDEX = {"red": 1, "green": 2, "other": 99}


def element(place):
    return {"word": WORDS[place % 3], "id": place % 100}


def counters(result):
    found = result.metrics().query(MetricsFilter().with_namespace("tfopt"))["counters"]
    return {metric.key.metric.name: metric.committed for metric in found}


def sizes(result):
    found = result.metrics().query(MetricsFilter().with_name("inference_request_batch_size"))["distributions"]
    return found[0].committed


def test_every_row_gets_its_own_answer_in_batches_of_the_plans_size(model):
    handler = TfoptModelHandler(str(model), flags=FLAGS)
    with beam.Pipeline(options=options()) as pipeline:
        scored = pipeline | beam.Create([element(i) for i in range(400)]) | RunInference(handler)
        found = scored | beam.Map(
            lambda r: (r.example["word"], r.inference["index"].item(), r.inference["vector"].shape)
        )
        assert_that(found, equal_to([(WORDS[i % 3], INDEX[WORDS[i % 3]], (4,)) for i in range(400)]))
        models = scored | "model" >> beam.Map(lambda r: r.model_id) | beam.Distinct()
        assert_that(models, equal_to([str(model)]), label="models")
    result = pipeline.result
    counted = counters(result)
    assert counted["num_inferences"] == 400
    assert counted["rows_outside_plan"] == counted["elements_refused"] == 0
    assert sizes(result).max == handler.batch_elements_kwargs()["max_batch_size"]
    assert counted["engine_calls"] == sizes(result).count


def test_keys_stay_with_their_rows(model):
    handler = KeyedModelHandler(TfoptModelHandler(str(model), flags=FLAGS, outputs=["index"]))
    with beam.Pipeline(options=options()) as pipeline:
        keyed = [(f"key-{i}", element(i)) for i in range(50)]
        scored = pipeline | beam.Create(keyed) | RunInference(handler)
        found = scored | beam.MapTuple(lambda key, r: (key, {n: a.item() for n, a in r.inference.items()}))
        assert_that(found, equal_to([(f"key-{i}", {"index": INDEX[WORDS[i % 3]]}) for i in range(50)]))


def test_a_refused_row_costs_its_neighbours_nothing(model):
    handler = TfoptModelHandler(str(model), flags=FLAGS, keep_refused=True)
    rows = [element(0), {"word": "red", "id": 1000}, {"word": "red"}, element(1)]
    with beam.Pipeline(options=options()) as pipeline:
        scored = pipeline | beam.Create(rows) | RunInference(handler)
        kinds = scored | beam.Map(
            lambda r: (
                str(r.inference).partition(":")[0]
                if isinstance(r.inference, Exception)
                else r.inference["index"].item()
            )
        )
        assert_that(
            kinds | beam.Map(lambda kind: kind if isinstance(kind, int) else kind.split(" ")[0]),
            equal_to([1, 2, "serving_default", "element"]),
        )
    assert counters(pipeline.result)["elements_refused"] == 2


def test_without_that_its_batch_is_put_aside(model):
    with beam.Pipeline(options=options()) as pipeline:
        rows = pipeline | beam.Create([element(0), {"word": "red"}])
        handler = TfoptModelHandler(str(model), flags=FLAGS)
        _, other = rows | RunInference(handler).with_exception_handling()
        sizes = other.failed_inferences | beam.Map(lambda failed: len(failed[0]))
        assert_that(sizes, equal_to([2]))


def test_processes_share_one_model(model):
    """Two worker processes, and the model in a third: what crosses between them can be pickled."""
    handler = TfoptModelHandler(str(model), flags=FLAGS, large_model=True)
    assert handler.share_model_across_processes()
    with beam.Pipeline(options=options(2, "multi_processing")) as pipeline:
        scored = pipeline | beam.Create([element(i) for i in range(60)]) | beam.Reshuffle() | RunInference(handler)
        found = scored | beam.Map(lambda r: r.inference["index"].item())
        assert_that(found, equal_to([INDEX[WORDS[i % 3]] for i in range(60)]))


def test_only_the_outputs_that_the_arguments_name(model):
    handler = TfoptModelHandler(str(model), flags=FLAGS)
    with beam.Pipeline(options=options()) as pipeline:
        scored = pipeline | beam.Create([element(0)]) | RunInference(handler, inference_args={"outputs": ["name"]})
        assert_that(scored | beam.Map(lambda r: r.inference), equal_to([{"name": b"uno"}]))


def test_batches_prepared_by_the_pipeline_are_taken(model):
    handler = TfoptModelHandler(str(model), flags=FLAGS).with_no_batching()
    with beam.Pipeline(options=options()) as pipeline:
        scored = pipeline | beam.Create([[element(0), element(1)], [element(2)]]) | RunInference(handler)
        assert_that(scored | beam.Map(lambda r: r.inference["index"].item()), equal_to([1, 2, 99]))


def test_mistakes_come_where_the_pipeline_is_built(model):
    handler = TfoptModelHandler(str(model), flags=FLAGS)
    for args in ({"output": ["name"]}, {"outputs": "name"}, {"outputs": []}):
        with pytest.raises(ValueError, match="output"):
            handler.validate_inference_args(args)
    with pytest.raises(ValueError, match="allowed_batch_sizes"):
        TfoptModelHandler(str(model), flags=["--allowed_batch_sizes=x"])
    with pytest.raises(ValueError, match="outputs: expected names of outputs, received 'name'"):
        TfoptModelHandler(str(model), outputs="name")


def test_the_size_of_batches(model, savedmodel, tmp_path):
    own = TfoptModelHandler(str(model), flags=FLAGS)
    assert own.batch_elements_kwargs() in ({"min_batch_size": n, "max_batch_size": n} for n in (1, 8))
    given = TfoptModelHandler(str(model), min_batch_size=3, max_batch_size=5, max_batch_duration_secs=1)
    assert given.batch_elements_kwargs() == {"min_batch_size": 3, "max_batch_size": 5, "max_batch_duration_secs": 1}
    assert TfoptModelHandler(str(tmp_path)).batch_elements_kwargs() == {"max_batch_size": 32}
    assert TfoptModelHandler(str(tmp_path), flags=["--allowed_batch_sizes=4,64"]).batch_elements_kwargs() == {
        "max_batch_size": 64
    }


def test_a_handler_travels_and_follows_a_refreshed_model(model):
    handler = pickle.loads(pickle.dumps(TfoptModelHandler(str(model), flags=FLAGS, large_model=True, model_copies=2)))
    assert (handler.model_copies(), handler.get_metrics_namespace()) == (2, "tfopt")
    handler.update_model_path("gs://bucket/m/2/saved_model.pb")
    handler.update_model_path(None)
    assert handler._model == "gs://bucket/m/2"


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ([np.zeros([2, 3], np.float32), np.float64(1)], 32),
        ([{"a": "four", "b": b"by"}], 6),
        ([[1, [2.0, True]], {"x": {"b64": "abcd"}}], 28),
        ([np.array([b"abc", b"d"], object)], 4),
    ],
)
def test_bytes_are_counted_by_value(model, batch, size):
    assert TfoptModelHandler(str(model)).get_num_bytes(batch) == size


def score(*args):
    command = [sys.executable, str(ROOT / "deploy" / "beam" / "score.py"), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lines(stem):
    return [json.loads(line) for path in sorted(stem.parent.glob(f"{stem.name}-*")) for line in path.open()]


def test_the_example_scores_json_lines(model, tmp_path):
    rows = [{**element(i), "id": i} for i in range(20)] + [{"word": "red", "id": 10**6}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps({"key": i, **row}) + "\n" for i, row in enumerate(rows)))
    done = score(
        f"--model={model}", f"--input={tmp_path}/in.jsonl", f"--output={tmp_path}/out/scored", "--key=key",
        "--flag=--allowed_batch_sizes=1,8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {line["key"]: line for line in lines(tmp_path / "out" / "scored")}
    assert {key: line["outputs"]["index"] for key, line in found.items()} == {
        i: INDEX[row["word"]] for i, row in enumerate(rows[:-1])
    }
    (refused,) = lines(tmp_path / "out" / "scored.refused")
    assert refused["key"] == 20
    assert refused["element"] == rows[-1]
    assert "indices" in refused["error"]


def test_the_example_scores_serialized_examples(savedmodel, tmp_path):
    """A model of strings stands for one that parses tf.Examples: its elements are a file's records."""
    tfrecord.write(tmp_path / "in.tfrecord", [b"Red", b"GREEN", b"\xff"])
    done = score(
        f"--model={savedmodel('strings')}", f"--input={tmp_path}/in.tfrecord", f"--output={tmp_path}/scored",
        "--flag=--disable_optimizer",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = sorted(lines(tmp_path / "scored"), key=lambda line: line["outputs"]["length"])
    assert [line["outputs"]["length"] for line in found] == [1, 3, 5]
    assert [line["outputs"]["lower"] for line in found] == [{"b64": "/w=="}, "red", "green"]

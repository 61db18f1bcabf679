"""Records made up with features that none has, and what the proof and the contest see by them."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from enginecases import save
from paced import PLAIN_US, paced
from serialized import RECORDS, example, parsing
from tfopt_optimizer import buckets, contest, example_rows, examples, independence, testing, verify
from tfopt_optimizer.contest import BucketSpec
from tfopt_optimizer.declared import Declared
from tfopt_optimizer.engines import table
from tfopt_optimizer.example_rows import Search
from tfopt_optimizer.examples import EMPTY, ONE, SEVERAL, Feature
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.independence import Proof
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.plan import SignatureInfo, TensorInfo
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.servable import Servable
from tfopt_optimizer.study import Study

X, SCALE, TAGS = (
    Feature(("context", "x"), "float", 1),
    Feature(("context", "scale"), "float", 1),
    Feature(("context", "tags"), "string"),
)


def parsed(value, kind="Example"):
    from tfopt_protos import messages

    return messages.message(f"tensorflow.{kind}").FromString(value)


@pytest.mark.parametrize(
    ("feature", "how", "turn", "expected"),
    [
        (SCALE, ONE, 0, {"x": [3.0], "scale": [1.0]}),
        (SCALE, ONE, 1, {"x": [3.0], "scale": [-2.0]}),
        (Feature(("context", "ids"), "int64", 2), ONE, 0, {"x": [3.0], "ids": [1, 0]}),
        (Feature(("context", "ids"), "int64", None, 2), ONE, 0, {"x": [3.0], "ids": [1, 0]}),
        (TAGS, ONE, 1, {"x": [3.0], "tags": [b"w"]}),
        (TAGS, SEVERAL, 0, {"x": [3.0], "tags": [b"v", b"w", b"v"]}),
    ],
)
def test_a_feature_is_given_as_the_parser_wants_it(feature, how, turn, expected):
    assert examples.given(example(x=[3.0]), [feature], how, turn, (b"v", b"w")) == example(**expected)


def test_an_empty_feature_is_there_and_holds_nothing():
    features = parsed(examples.given(example(x=[3.0]), [SCALE, TAGS], EMPTY)).features.feature
    assert {n: f.WhichOneof("kind") for n, f in features.items()} == {
        "x": "float_list", "scale": None, "tags": "bytes_list",
    }  # fmt: skip
    steps = Feature(("list", "steps"), "float", 2)
    found = examples.given(example("SequenceExample", n=[1]), [steps], SEVERAL)
    expected = {"steps": [[1.0, -2.0], [-2.0, 0.5], [0.5, 1.0]]}
    assert found == example("SequenceExample", expected, n=[1])


def test_a_feature_that_is_there_can_be_taken_away():
    value = example(x=[3.0], v=[1.0])
    assert examples.changed(value, [("context", "v"), ("context", "w")], examples.MISSING) == example(x=[3.0])
    assert parsed(examples.changed(value, [("context", "v")], EMPTY)).features.feature["v"].HasField("float_list")


def test_only_what_no_record_has_is_given_and_only_what_the_model_takes():
    records = [{"e": np.array([example(x=[1.0])], object)}, {"e": np.array([example(x=[2.0], tags=[b"t"])], object)}]
    declared = Declared((X, SCALE, TAGS))
    assert example_rows.lacking(records, "e", declared) == [SCALE]

    def takes(feeds):
        feature = parsed(feeds["e"][0]).features.feature
        return "scale" not in feature and "x" in feature and len(feature["x"].float_list.value) == 1

    assert [v.of(records[0])["e"][0] for v in example_rows.made_up(Search(takes), records[0], records, declared)] == []
    every = example_rows.made_up(Search(lambda feeds: True), records[0], records, Declared((SCALE, TAGS)))
    found = {v.of(records[0])["e"][0] for v in every}
    assert {example(x=[1.0], scale=[1.0]), b"\n\0", example(x=[1.0, 1.0])} <= found


NAMES = [f"f{number:02}" for number in range(40)]  # every other one has a fixed length


def test_lengths_that_are_declared_are_not_found_out_by_trying():
    """Each half of a group had both kinds in it, down to single ones."""
    declared = Declared(tuple(Feature(("context", n), "float", 1 if i % 2 else None) for i, n in enumerate(NAMES)))
    record, tried = {"e": np.array([example(**{n: [1.0] for n in NAMES})], object)}, []

    def takes(feeds):
        tried.append(feeds)
        found = parsed(feeds["e"][0]).features.feature
        return all(len(found[name].float_list.value) == 1 for name in NAMES[1::2])

    made = [parsed(v.of(record)["e"][0]) for v in example_rows.made_up(Search(takes), record, [record], declared)]
    lengths = [[len(e.features.feature[name].float_list.value) for name in NAMES] for e in made]
    assert lengths == [[0, 1] * 20, [0, 1] * 20, [2, 1] * 20, [0, 1] * 20]
    assert len(tried) <= 44


def test_a_slow_model_is_not_asked_for_ever(monkeypatch):
    record = {"e": np.array([example(x=[1.0])], object)}
    monkeypatch.setattr(example_rows, "SEARCH_S", 0.0)
    search = Search(lambda feeds: pytest.fail("time is over"))
    assert example_rows.made_up(search, record, [record], Declared((X, SCALE))) == []
    # scale as one and as none, x taken away
    assert search.told() == "0 of 3 changes of a feature were tried in 0 s"


@pytest.mark.parametrize(("answers", "tried"), [(0, 0), (3, 1), (5, 4), (8, 5), (16, 14)])
def test_a_search_that_ends_early_tells_how_many_changes_were_tried(monkeypatch, answers, tried):
    """Groups that are refused are halved: a and b are refused together, and taken one at a time."""
    clock = iter([0.0] * (answers + 1) + [9.0] * 100)
    monkeypatch.setattr(example_rows.time, "monotonic", lambda: next(clock))
    absent = [Feature(("context", name), "float", 1) for name in "abcd"]
    record = {"e": np.array([example(x=[1.0])], object)}

    def takes(feeds):
        features = parsed(feeds["e"][0]).features.feature
        return not ("b" in features and len(features) > 2)

    search = Search(takes)
    list(example_rows.beside(search, record, [record], Declared(tuple(absent))))
    assert (search.tried, search.wanted) == (tried, 14)


def test_a_search_that_was_finished_says_nothing():
    record = {"e": np.array([example(x=[1.0])], object)}
    search = Search(lambda feeds: False)
    assert example_rows.made_up(search, record, [record], Declared((X, SCALE, TAGS))) == []
    assert (search.tried, search.told()) == (search.wanted, "")


def test_examples_that_are_empty_in_every_record_are_known_by_what_the_model_declares():
    base = {"e": np.array([b""], object), "text": np.array([b"some words"], object)}
    assert example_rows.inputs([base], Declared((X,))) == ["e"]
    assert example_rows.inputs([base], Declared()) == []


def test_rows_depend_on_a_feature_that_no_record_has():
    def largest(rows):
        return [row["x"][0] * (1 + max(len(r["v"]) for r in rows)) for row in rows]

    rows = buckets.stack([{"examples": np.array([example(x=[1.0]), example(x=[2.0])], object)}], 100)
    prove = functools.partial(independence.prove, parsing(largest, x=1), rows, verify.lossless(1e-4))
    assert prove().independent
    proof = prove(declared=Declared((Feature(("context", "v"), "float"),)))
    assert not proof.independent
    assert proof.reason.startswith("row 0 before others on one side of it: max error")


def test_what_every_record_has_is_also_taken_away():
    def without(rows):
        return [
            row["x"][0] * (1 + min(len(r["v"]) == 0 for r in rows)) * all(len(r["v"]) for r in rows) for row in rows
        ]

    rows = buckets.stack([{"examples": RECORDS}], 100)
    assert not independence.prove(parsing(without, x=1), rows, verify.lossless(1e-4)).independent


def bonus(tf, module, examples):
    spec = {
        "x": tf.io.FixedLenFeature([1], tf.float32),
        "bonus": tf.io.FixedLenFeature([], tf.float32, 0.0),
    }
    found = tf.io.parse_example(examples, spec)
    return {"y": found["x"][:, 0] / 2.0 + 2.0 + found["bonus"]}


INFO = SignatureInfo("s", "predict", (TensorInfo("e", "string", (None,)),), ())


@pytest.mark.parametrize("independent", [True, False])
def test_made_up_records_have_the_shapes_of_the_bucket(independent):
    samples = [{"e": np.array([example(x=[float(n)]) for n in range(3)], object)}, {"e": RECORDS[:1]}]
    give = [
        example_rows.Variation("e", functools.partial(examples.given, features=[SCALE], how=ONE, turn=t))
        for t in (0, 1)
    ]
    spec = BucketSpec(2 if independent else None, {"e": (2 if independent else 3,)}, "s0/b")
    rows = buckets.stack(samples, 100)
    found = Study(
        INFO, State((), ()), Proof(independent, ""), (spec,), "", rows, tuple(samples), variations=tuple(give)
    )
    made = [feeds["e"].tolist() for feeds in found.material(spec).made_up]
    assert made == (
        [[example(x=[0.0], scale=[1.0]), example(x=[1.0], scale=[-2.0])]]
        if independent
        else [[example(x=[float(n)], scale=[scale]) for n in range(3)] for scale in (1.0, -2.0)]
    )


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("recorded", "batches"),
    [([{}, {}, {}], (1, 4)), ([{"bonus": [1.0]}, {}, {}], (4,))],
    ids=["no record has it", "a record has it"],
)
def test_a_candidate_that_misreads_a_feature_that_no_record_has_is_refused(tmp_path, monkeypatch, recorded, batches):
    """Forgetful was chosen here as long as candidates were asked about records alone."""
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    save(tmp_path / "model", bonus, x=([None], "string"))
    rows = [example(x=[float(i)], **more) for i, more in enumerate(recorded)]
    samples = {"serving_default": ({"x": np.array(rows, object)},)}
    flags = OptimizerFlags(allowed_batch_sizes=batches)
    job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    names = ("RightExamples", "Forgetful", "Declining")
    plan = optimize(job, lambda _: None, entrants=[testing.planted(n) for n in names])
    signature = plan.signature("serving_default")
    assert signature.row_independent
    for bucket in signature.buckets:
        found = {c.engine: c for c in bucket.candidates if c.variant == "planted"}
        assert found["rightexamples"].status in ("chosen", "slower")
        assert found["forgetful"].status == "rejected"
        if not recorded[0]:
            why = "Examples with other features than the records': max error "
            assert found["forgetful"].reason.startswith(why)
            assert found["declining"].status in ("chosen", "slower")  # plain TensorFlow answers what it declines
    if not recorded[0]:
        (line,) = (line for line in plan.log if "made-up Examples" in line)
        assert line == "serving_default: candidates are also asked about 2 made-up Examples; no record has bonus"


@pytest.mark.tensorflow
def test_the_log_tells_of_made_up_examples_for_which_there_was_no_time(tmp_path, monkeypatch):
    """It read as if all had been tried."""
    save(tmp_path / "model", bonus, x=([None], "string"))
    samples = {"serving_default": ({"x": np.array([example(x=[float(i)]) for i in range(3)], object)},)}

    def lines(**limits):
        for name, seconds in limits.items():
            monkeypatch.setattr(contest if name == "CHECK_S" else example_rows, name, seconds)
        flags = OptimizerFlags(allowed_batch_sizes=(1,))
        job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, samples, "warmup")
        return [line for line in optimize(job, lambda _: None, entrants=[]).log if "made-up Examples" in line]

    assert lines(CHECK_S=0.0) == [
        "serving_default: candidates are also asked about 2 made-up Examples; no record has bonus",
        "serving_default x 1: made-up Examples: 1 of 2 calls were made of plain TF in 0 s",
    ]
    rows, found = lines(SEARCH_S=0.0)
    assert rows.endswith("; of made-up Examples beside them 0 of 5 changes of a feature were tried in 0 s")
    left = "0 of 3 changes of a feature were tried in 0 s"
    assert found == f"serving_default: looking for made-up Examples that plain TF takes: {left}"


def optional(tf, module, examples):
    """Four numbers, and what few clients send: a bonus, a colour of the table, any number of ids."""
    if not hasattr(module, "weights"):  # it is traced twice
        with tf.init_scope():
            keys, values = tf.constant(["red", "blue", "green"]), tf.range(1, 4, dtype=tf.int64)
            module.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), 0)
            random, wide = (
                np.random.default_rng(0),
                {"colours": (4, 16), "ids": (10, 16), "first": (37, 64), "last": (64, 5)},
            )
            made = {name: random.standard_normal(shape).astype(np.float32) / 4 for name, shape in wide.items()}
            module.weights = {name: tf.Variable(array) for name, array in made.items()}
    weights = module.weights
    fixed = tf.io.FixedLenFeature
    spec = {
        "x": fixed([4], tf.float32), "bonus": fixed([1], tf.float32, [0.0]), "colour": fixed([], tf.string, ""),
        "ids": tf.io.VarLenFeature(tf.int64),
    }  # fmt: skip
    found = tf.io.parse_example(examples, spec)
    ids = tf.sparse.fill_empty_rows(found["ids"], tf.constant(0, tf.int64))[0]
    parts = [
        found["x"], found["bonus"], tf.gather(weights["colours"], module.table.lookup(found["colour"])),
        tf.nn.embedding_lookup_sparse(weights["ids"], ids, None, combiner="mean"),
    ]  # fmt: skip
    return {"y": tf.nn.softmax(tf.nn.relu(tf.concat(parts, 1) @ weights["first"]) @ weights["last"])}


@pytest.mark.tensorflow
def test_requests_with_features_that_no_record_has_stay_in_the_plan(tmp_path, monkeypatch):
    """Where cuts followed the records alone, a request with ids had other shapes than the cut, and left it."""
    monkeypatch.setattr("tfopt_optimizer.measure.ROUNDS", 2)
    save(tmp_path / "model", optional, examples=([None], "string"))

    def asked(*features):
        numbers = np.random.default_rng(9).standard_normal((len(features), 4)).tolist()
        found = [example(x=x, **more) for x, more in zip(numbers, features, strict=True)]
        return {"examples": np.array(found, object)}

    samples = {"serving_default": (asked({}, {}, {}), asked({}))}
    flags = OptimizerFlags(allowed_batch_sizes=(1, 4))
    job = OptimizeJob(tmp_path / "model", tmp_path / "plan", ("serve",), flags, samples, "warmup")
    whole = [e for e in table.entrants(flags)[0] if (e.engine, e.variant) == ("litert", "t1")]
    with paced(lambda label: PLAIN_US / 10 if label == "host+litert/t1" else PLAIN_US):
        plan = optimize(job, lambda _: None, entrants=table.splits(whole))
    signature = plan.signature("serving_default")
    assert [b.engine for b in signature.buckets] == ["host+litert", "host+litert"]
    assert "no record has bonus, colour, ids" in "".join(plan.log)
    servable = Servable.open(tmp_path / "model", tmp_path / "plan", plan)
    runner, left = servable.signatures["serving_default"], []
    every = [{}, {"bonus": [3.0]}, {"colour": [b"green"]}, {"ids": [1, 2, 3]}, {"ids": [7], "colour": [b"red"]}]
    for features in (*([one] for one in every), every[:4], every[1:], every[2:4]):
        feeds = asked(*features)
        found, expected = runner.run(feeds, fell_back=left.append)["y"], runner.run_reference(feeds)["y"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert left == []
    servable.close()

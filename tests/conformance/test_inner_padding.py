"""Requests of other lengths than an inner bucket's, through both faces: what the engine gets and what the client gets.

Each type is filled up at the end with zeros, false or empty strings, in all inputs to one length; requests that merge
are filled up to the same; answers are those of plain TensorFlow (here: the same function) without what answers padding.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import bothfaces
import numpy as np
import pytest
import rpcclient
from bothfaces import Faces, spelled
from tfopt_optimizer.fitting import InnerBuckets
from tfopt_optimizer.plan import Axis, InnerBucket, InnerDimension, InnerPlan, SignatureInfo, SignaturePlan, TensorInfo
from tfopt_optimizer.signature_runner import Bucket, SignatureRunner

TYPES = {"ids": "int64", "weights": "float", "kept": "bool", "words": "string"}
INFO = SignatureInfo(
    "serving_default", "predict",
    tuple(TensorInfo(name, dtype, (None, None), f"{name}:0") for name, dtype in TYPES.items()),
    (
        TensorInfo("total", "float", (None,), "t:0"), TensorInfo("text", "string", (None,), "x:0"),
        TensorInfo("lengths", "int64", (None, None), "l:0"),
    ),
)  # fmt: skip
LENGTHS = (4, 8)
Arrays = dict[str, np.ndarray]


def compute(feeds: Arrays) -> Arrays:
    """The sum of what is kept, the words that are not empty, and the length of each word."""
    words = feeds["words"]
    text = [b"".join(row) for row in words]
    lengths = np.array([[len(word) for word in row] for row in words], np.int64)
    total = (feeds["ids"] * feeds["weights"] * feeds["kept"]).sum(1).astype(np.float32)
    return {"total": total, "text": np.array(text, object), "lengths": lengths.reshape(words.shape)}


class Model:
    """Buckets of 1 and 4 rows by 4 and 8 elements. Notes what every run was given; waits for `gate`."""

    def __init__(self) -> None:
        self.given: list[Arrays] = []
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        dimension = InnerDimension(tuple(Axis(name, 1) for name in TYPES), (Axis("lengths", 1),))
        inner = InnerPlan((dimension,), tuple(InnerBucket((n,), 1) for n in LENGTHS), True, "proven", (1,))
        plan = SignaturePlan(INFO, True, "proven", True, "measured", (), inner=inner)

        def buckets(length: int) -> list[Bucket]:
            shapes = {rows: dict.fromkeys(TYPES, (rows, length)) for rows in (1, 4)}
            return [Bucket(n, "fake", True, 5000.0, self.run, shapes[n], (length,)) for n in (1, 4)]

        runners = {(n,): SignatureRunner(plan, buckets(n), self.refuse) for n in LENGTHS}
        self.runner = runners[8,]
        self.runner.inner = InnerBuckets(inner, runners)

    def run(self, feeds: Arrays, outputs: object = None) -> Arrays:
        self.entered.release()
        assert self.gate.wait(10)
        self.given.append({name: array.copy() for name, array in feeds.items()})
        return compute(feeds)

    def refuse(self, feeds: Arrays, outputs: object = None) -> Arrays:
        raise AssertionError("nothing here is for plain TensorFlow")


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def faces(model, tmp_path) -> Iterator[Faces]:
    with bothfaces.around(model.runner, INFO.key, tmp_path) as found:
        yield found
    model.gate.set()
    found.plane.drain(5)


def request(rows: int, length: int, seed: int = 0) -> Arrays:
    """No value is one that padding has."""
    rng = np.random.default_rng([rows, length, seed])
    return {
        "ids": rng.integers(1, 1 << 40, (rows, length)),
        "weights": rng.uniform(1, 2, (rows, length)).astype(np.float32),
        "kept": np.ones((rows, length), bool),
        "words": np.array([[b"w%d" % rng.integers(1, 99) for _ in range(length)] for _ in range(rows)], object),
    }  # fmt: skip


def instances(faces: Faces, feeds: Arrays) -> Arrays:
    rows = [{name: spelled(array[row]) for name, array in feeds.items()} for row in range(len(feeds["ids"]))]
    answer = faces.rest(json.dumps({"instances": rows}))
    assert answer.status == 200, answer.body
    found = answer.json()["predictions"]
    return typed({name: [row[name] for row in found] for name in ("total", "text", "lengths")})


def inputs(faces: Faces, feeds: Arrays) -> Arrays:
    answer = faces.rest(json.dumps({"inputs": {name: spelled(array) for name, array in feeds.items()}}))
    assert answer.status == 200, answer.body
    return typed(answer.json()["outputs"])


def typed(found: dict[str, list]) -> Arrays:
    text = np.array([each.encode() for each in found["text"]], object)
    return {"total": np.float32(found["total"]), "text": text, "lengths": np.int64(found["lengths"])}


def rpc(faces: Faces, feeds: Arrays) -> Arrays:
    return faces.client.outputs(rpcclient.predict_request(feeds))


def rpc_content(faces: Faces, feeds: Arrays) -> Arrays:
    return faces.client.outputs(rpcclient.predict_request(feeds, content=True))


ASK = [instances, inputs, rpc, rpc_content]


def same(found: Arrays, asked: Arrays) -> None:
    for name, expected in compute(asked).items():
        assert found[name].shape == expected.shape
        np.testing.assert_array_equal(found[name], expected)


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(("shape", "ran"), [((1, 3), (1, 4)), ((2, 1), (4, 4)), ((3, 5), (4, 8)), ((1, 7), (1, 8))])
def test_every_type_is_filled_up_at_its_end(model, faces, ask, shape, ran):
    rows, length = shape
    asked = request(rows, length)
    same(ask(faces, asked), asked)
    (given,) = model.given
    blank = {"ids": 0, "weights": 0.0, "kept": False, "words": b""}
    for name, array in given.items():
        assert (array.shape, array.dtype) == (ran, asked[name].dtype)
        np.testing.assert_array_equal(array[:rows, :length], asked[name])
        assert (array[:, length:] == blank[name]).all()
        assert (array[rows:, :length] == asked[name][0]).all()  # rows are copies of a request's own


@pytest.mark.parametrize("ask", ASK)
def test_what_fits_is_not_touched_and_what_is_at_its_end_already_stays(model, faces, ask):
    asked = request(4, 8)
    asked["kept"][:, 5:], asked["words"][:, 6:] = False, b""
    same(ask(faces, asked), asked)
    (given,) = model.given
    assert all((given[name] == asked[name]).all() for name in TYPES)


def test_requests_of_different_lengths_merge_and_each_gets_its_own_answer(model, faces):
    model.gate.clear()
    lengths = [2, 3, 4, 5, 8, 6, 1, 7]
    asked = [request(1, length, seed) for seed, length in enumerate(lengths)]
    with ThreadPoolExecutor(9) as threads:
        busy = threads.submit(rpc, faces, request(1, 8, 99))
        assert model.entered.acquire(timeout=10)
        waiting = [threads.submit(ASK[n % 4], faces, each) for n, each in enumerate(asked)]
        # Not the lane's users: the request under way counts there twice, waiting for its answer and running.
        rpcclient.until(lambda: faces.plane.metrics.queue_depth.labels().value == len(asked))
        model.gate.set()
        for answer, each in zip(waiting, asked, strict=True):
            same(answer.result(10), each)
        same(busy.result(10), request(1, 8, 99))
    assert sorted(given["ids"].shape for given in model.given[1:]) == [(4, 4), (4, 8)]
    for given in model.given[1:]:
        for row in range(4):  # each row is one request's, in all inputs, and blank behind it
            (whose,) = (each for each in asked if each["ids"][0, 0] == given["ids"][row, 0])
            length = whose["ids"].shape[1]
            for name in TYPES:
                np.testing.assert_array_equal(given[name][row, :length], whose[name][0])
                assert not given[name][row, length:].astype(bool).any()

"""Requests for a signature of fixed length, through both faces: each row runs at the length that it has, and the answer
is that to whole rows."""

from __future__ import annotations

import dataclasses
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import bothfaces
import numpy as np
import pytest
import rpcclient
from bothfaces import Faces, spelled
from tfopt_optimizer.errors import Declined, OutOfMemory
from tfopt_optimizer.plan import Filled, Shortening, SignatureInfo, SignaturePlan, TensorInfo
from tfopt_optimizer.signature_runner import Bucket, shortened_runner
from tfopt_server import samples, warming

SIZE, ODD = 8, 99
INFO = SignatureInfo(
    "serving_default", "predict",
    (TensorInfo("ids", "int64", (None, SIZE), "i:0"), TensorInfo("mask", "int32", (None, SIZE), "m:0")),
    (TensorInfo("total", "int64", (None,), "t:0"),),
)  # fmt: skip
PLAN = Shortening((Filled("ids", 1, 1.0, True), Filled("mask", 1, 0.0, True)), SIZE, (2, 4), "proven")
Arrays = dict[str, np.ndarray]


class Model:
    """The sum of the ids under a mask, in buckets of 1 and 4 rows by 2, 4 and 8 positions. Notes the shape of every
    run; waits for `gate`. `open_`: at 2 and 4 positions one runner takes any number of rows. `packs`: the runner of 4
    whole rows leaves their filling out, in a third of the time."""

    def __init__(self, *, open_: bool = False, packs: bool = False) -> None:
        self.open, self.packs = open_, packs
        self.ran: list[tuple[int, int]] = []
        self.plain: list[tuple[int, int]] = []
        self.room = 100  # rows x places
        self.gate, self.entered = threading.Event(), threading.Semaphore(0)
        self.gate.set()
        plan = SignaturePlan(INFO, True, "proven", True, "measured", (), shortening=PLAN)
        levels = {(n,): [self.bucket(rows, n) for rows in (1, 4)] for n in (2, 4, SIZE)}
        self.runner = shortened_runner(plan, PLAN, levels, self.run_plain)

    def bucket(self, rows: int, length: int) -> Bucket:
        cost_us = 1000.0 * length * (1 if rows == 1 else 3)
        static, shapes = not self.open or length == SIZE, dict.fromkeys(("ids", "mask"), (rows, length))
        if self.packs and rows > 1 and length == SIZE:
            return Bucket(rows, "fake", False, cost_us / 3, self.run, shapes, (length,), positions=16)
        return Bucket(rows, "fake", static, cost_us, self.run, shapes, (length,))

    def run(self, feeds: Arrays, outputs: object = None) -> Arrays:
        self.entered.release()
        assert self.gate.wait(10)
        if (feeds["ids"] == ODD).any():
            raise Declined("INVALID_ARGUMENT", "99 is outside the table")
        if feeds["ids"].size > self.room:
            raise OutOfMemory("Out of memory allocating 17179869184 bytes.")
        self.ran.append(feeds["ids"].shape)
        return {"total": (feeds["ids"] * feeds["mask"]).sum(1)}

    def run_plain(self, feeds: Arrays, outputs: object = None) -> Arrays:
        self.plain.append(feeds["ids"].shape)
        return {"total": (feeds["ids"] * feeds["mask"]).sum(1)}


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def faces(model, tmp_path) -> Iterator[Faces]:
    with bothfaces.around(model.runner, INFO.key, tmp_path) as found:
        yield found
    model.gate.set()
    found.plane.drain(5)


def texts(*lengths: int, seed: int = 0) -> Arrays:
    mask = (np.arange(SIZE)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.random.default_rng([seed, *lengths]).integers(2, 90, mask.shape)
    return {"ids": np.where(mask == 1, ids, 1), "mask": mask}


def instances(faces: Faces, feeds: Arrays) -> list[int]:
    rows = [{name: spelled(array[row]) for name, array in feeds.items()} for row in range(len(feeds["ids"]))]
    answer = faces.rest(json.dumps({"instances": rows}))
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


def inputs(faces: Faces, feeds: Arrays) -> list[int]:
    answer = faces.rest(json.dumps({"inputs": {name: spelled(array) for name, array in feeds.items()}}))
    assert answer.status == 200, answer.body
    return answer.json()["outputs"]


def rpc(faces: Faces, feeds: Arrays) -> list[int]:
    return faces.client.outputs(rpcclient.predict_request(feeds))["total"].tolist()


ASK = [instances, inputs, rpc]


def total(feeds: Arrays) -> list[int]:
    return (feeds["ids"] * feeds["mask"]).sum(1).tolist()


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("lengths", "ran"),
    [
        ([1], [(1, 2)]),
        ([2], [(1, 2)]),
        ([3], [(1, 4)]),
        ([8], [(1, 8)]),
        ([1, 2, 2, 1], [(4, 2)]),
        ([8, 2, 3], [(1, 8), (1, 4), (1, 2)]),
        ([3, 8, 3, 8, 3, 8, 4, 8], [(4, 8), (4, 4)]),
        ([1] * 10, [(4, 2), (4, 2), (1, 2), (1, 2)]),
    ],
)
def test_every_row_runs_at_its_length_and_is_answered_in_its_place(model, faces, ask, lengths, ran):
    feeds = texts(*lengths)
    assert ask(faces, feeds) == total(feeds)
    assert sorted(model.ran) == sorted(ran)
    counted = {dict(key)["length"]: child.value for key, child in lengths_counted(faces)}
    assert sum(counted.values()) == len(lengths)


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("lengths", "ran"),
    [([3, 8, 3, 3], [(1, 8), (3, 4)]), ([1, 1], [(2, 2)]), ([4, 2, 1, 3, 1], [(2, 4), (3, 2)])],
)
def test_nothing_is_filled_up_where_a_runner_takes_any_number_of_rows(tmp_path, ask, lengths, ran):
    model, feeds = Model(open_=True), texts(*lengths)
    with bothfaces.around(model.runner, INFO.key, tmp_path) as faces:
        assert ask(faces, feeds) == total(feeds)
        faces.plane.drain(5)
    assert model.ran == ran


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("lengths", "ran", "counted"),
    [
        ([3, 8, 2, 5], [(4, SIZE)], {"8": 4}),
        ([1, 1, 8, 3, 2], [(3, SIZE), (2, SIZE)], {"8": 5}),
        ([3], [(1, 4)], {"4": 1}),  # a row alone has a model of its own
    ],
)
def test_rows_of_all_lengths_run_together_where_a_runner_leaves_filling_out(tmp_path, ask, lengths, ran, counted):
    model, feeds = Model(packs=True), texts(*lengths)
    with bothfaces.around(model.runner, INFO.key, tmp_path) as faces:
        assert ask(faces, feeds) == total(feeds)
        found = {dict(key)["length"]: child.value for key, child in lengths_counted(faces)}
        faces.plane.drain(5)
    assert model.ran == ran
    assert found == counted  # in steps of eight


def test_a_runner_that_leaves_filling_out_is_warmed_for_what_rows_may_have():
    model = Model(packs=True)
    seen = []
    run = model.runner.shortened.runners[SIZE].bucket_for(4).run
    model.runner.shortened.runners[SIZE]._set(
        [
            dataclasses.replace(b, run=lambda feeds, outputs=None: (seen.append(feeds["mask"].sum(1)), run(feeds))[1])
            if b.positions
            else b
            for b in model.runner.shortened.runners[SIZE].all_buckets()
        ]
    )
    servable = SimpleNamespace(signatures={INFO.key: model.runner})
    material = samples.Material({INFO.key: [texts(8, 2, 3, 4)]}, "warmup", ())
    warming.every_bucket(servable, material, pytest.fail, pytest.fail)
    assert [found.tolist() for found in seen] == [[8, 2, 3, 4], [8, 2, 3, 4], [8, 2, 3], [8, 2]]


def test_every_number_of_rows_is_warmed_where_a_runner_takes_any():
    for model, rows in ((Model(), (1, 4)), (Model(open_=True), (1, 2, 3, 4))):
        servable = SimpleNamespace(signatures={INFO.key: model.runner})
        material = samples.Material({INFO.key: [texts(1, 2, 3, 4)]}, "warmup", ())
        assert warming.every_bucket(servable, material, pytest.fail, pytest.fail) == 6
        assert sorted(model.ran) == sorted([*((n, length) for length in (2, 4) for n in rows), (1, SIZE), (4, SIZE)])


@pytest.mark.parametrize("who", ["tensorflow/function", "each"])
def test_fewer_rows_are_not_warmed_where_that_makes_nothing(who):
    """Plain TensorFlow takes any rows as they are; who runs rows one by one has made all there is with the first."""
    model, ran = Model(open_=True), []

    class Rows:
        def __call__(self, feeds: Arrays, outputs: object = None) -> Arrays:
            ran.append(len(feeds["ids"]))
            return model.run(feeds, outputs)

    rows = Rows()
    if who == "each":
        rows.each = rows.__call__
    bucket = dataclasses.replace(model.bucket(4, 2), run=rows, engine="fake" if who == "each" else who)
    plan = SignaturePlan(INFO, True, "proven", True, "measured", (), shortening=PLAN)
    rows.streams = 2
    runner = shortened_runner(plan, PLAN, {(2,): [bucket], (SIZE,): [model.bucket(1, SIZE)]}, model.run_plain)
    material = samples.Material({INFO.key: [texts(1, 2, 1, 2)]}, "warmup", ())
    warming.every_bucket(SimpleNamespace(signatures={INFO.key: runner}), material, pytest.fail, pytest.fail)
    assert ran == [4]


def lengths_counted(faces: Faces) -> list:
    counter = faces.plane.metrics.shortened_rows
    return [
        (zip(("model", "signature", "length"), key, strict=True), child) for key, child in counter.children().items()
    ]


@pytest.mark.parametrize("ask", ASK)
def test_a_row_that_says_something_behind_its_mask_or_nothing_at_all_runs_whole(model, faces, ask):
    feeds = texts(2, 2, 2)
    feeds["ids"][0, 7] = 5
    feeds["mask"][1] = 0
    assert ask(faces, feeds) == total(feeds)
    assert sorted(model.ran) == [(1, 2), (1, 8), (1, 8)]


@pytest.mark.parametrize("ask", ASK)
def test_what_an_engine_declines_is_answered_by_plain_tensorflow_as_it_came(model, faces, ask):
    feeds = texts(2, 7)
    feeds["ids"][0, 0] = ODD
    assert ask(faces, feeds) == total(feeds)
    assert model.plain == [(2, 8)]
    assert sum(child.value for child in faces.plane.metrics.fallbacks.children().values()) == 1


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("room", "left"),
    [
        (16, ([(4, 4)], "1 x 2, 4 x 2, 1 x 4, 4 x 4, 1 x 8, 4 x 8")),
        (15, ([(1, 4)] * 4, "1 x 2, 4 x 2, 1 x 4, 1 x 8, 4 x 8")),
        (3, ([], "1 x 2, 4 x 2, 1 x 4, 4 x 8")),  # the last of a length are plain TensorFlow's now
    ],
)
def test_a_bucket_without_memory_is_dropped_and_the_others_take_its_rows(model, faces, ask, room, left):
    feeds = texts(4, 3, 3, 4)
    model.room = room
    assert ask(faces, feeds) == total(feeds)
    model.room = 100
    del model.ran[:], model.plain[:]
    assert ask(faces, feeds) == total(feeds)
    assert (model.ran, model.runner.shortened.left()) == left
    assert {length for _, length in model.plain} == (set() if model.ran else {SIZE})


def test_warming_drops_what_has_no_memory(model):
    servable, dropped = SimpleNamespace(signatures={INFO.key: model.runner}), []
    material = samples.Material({INFO.key: [texts(1, 2, 3, 4)]}, "warmup", ())
    model.room = 12
    warming.every_bucket(servable, material, pytest.fail, lambda *each: dropped.append(each[:2]))
    feeds = texts(*[4] * 5, *[8] * 5)
    assert model.runner.run(feeds)["total"].tolist() == total(feeds)
    assert dropped == [(INFO.key, "4")] * 2
    assert {(1, 4), (1, 8)} == {shape for shape in model.ran if shape[1] > 2}


def test_another_length_than_the_signatures_is_plain_tensorflows_to_answer(model, faces):
    """Which refuses it as it did before; here it does not, and is seen to get it."""
    short = {name: array[:, :5] for name, array in texts(5).items()}
    assert rpc(faces, short) == total(short)
    assert (model.ran, model.plain) == ([], [(1, 5)])


def test_requests_of_different_lengths_merge(model, faces):
    asked = [texts(length, seed=seed) for seed, length in enumerate((2, 8, 1, 3))]
    model.gate.clear()
    with ThreadPoolExecutor(5) as threads:
        busy = threads.submit(rpc, faces, texts(7))
        assert model.entered.acquire(timeout=10)
        waiting = [threads.submit(ASK[n % 3], faces, each) for n, each in enumerate(asked)]
        lane = faces.registry.available()[0].loaded.lanes[INFO.key]
        end = time.monotonic() + 10
        while faces.plane.metrics.queue_depth.labels().value < 4 and time.monotonic() < end:
            time.sleep(0.001)
        model.gate.set()
        for answer, each in zip(waiting, asked, strict=True):
            assert answer.result(10) == total(each)
        assert busy.result(10) == total(texts(7))
    assert sorted(model.ran) == [(1, 2), (1, 2), (1, 4), (1, 8), (1, 8)]
    assert (lane.batch_requests.count, lane.batch_requests.sum) == (2, 5)

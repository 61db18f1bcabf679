"""Text models put together at random: where the proof lets lengths be opened, requests like no record are answered as
plain TensorFlow answers them."""

from __future__ import annotations

import numpy as np
import pytest
from openedgraphs import SIZE, WORDS, Opened
from textpieces import Answers, Layers, Words
from tfopt_optimizer import rewriting, shortening, verify
from tfopt_optimizer.buckets import Rows
from tfopt_optimizer.engines import openvino_packed
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.independence import Refused
from tfopt_optimizer.plan import Shortening, SignatureInfo, TensorInfo

pytestmark = pytest.mark.tensorflow

REQUESTS, BATCHES = 200, 12
NAMES = ("ids", "mask", "segments")
INFO = SignatureInfo("s", "", tuple(TensorInfo(name, "int32", (None, SIZE), name) for name in NAMES), ())
ALIKE = verify.lossless(1e-4)


def methods(kind):
    return sorted(name for name in vars(kind) if not name.startswith("_"))


def put_together(seed, count):
    def serve(ids, mask, segments):
        random = np.random.default_rng(seed)
        x = getattr(Words([seed, 0], ids, mask, segments), str(random.choice(methods(Words))))()
        for number in range(count):
            x = getattr(Layers([seed, 1, number], ids, mask, segments), str(random.choice(methods(Layers))))(x)
        answers = Answers([seed, 2], ids, mask, segments)
        found = [getattr(answers, str(random.choice(methods(Answers))))(x) for _ in range(random.integers(1, 3))]
        y = answers.tf.concat(found, 1)
        given = [answers.tf.matmul(y, answers.weight(y.shape[1], 3))]
        if random.random() < 0.3:
            given = [answers.either(given[0], answers.tf.argmax(given[0], 1)), found[0]]
        return [answers.tf.identity(each) for each in given]

    return serve


def recorded(seed):
    """Records as a service has them: some have no second segment, now and then one has no token, or a hole."""
    random = np.random.default_rng([seed, 7])
    count = int(random.integers(3, 20))
    feeds = texts(random, random.integers(1, SIZE + 1 if random.random() < 0.7 else SIZE // 2, count))
    if random.random() < 0.3:
        for name in random.choice(["mask", "ids"], random.integers(1, 3)):
            feeds[str(name)][random.integers(count)] = 0
    if random.random() < 0.3:
        feeds["mask"][random.integers(count), :2] = 0
    if random.random() < 0.5:
        feeds["segments"][random.random(count) < 0.6] = 0
    return Rows(feeds, count, count, 0)


def texts(random, lengths):
    mask = (np.arange(SIZE)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = random.integers(1, WORDS, mask.shape).astype(np.int32) * mask
    return {"ids": ids, "mask": mask, "segments": random.integers(0, 2, mask.shape).astype(np.int32) * mask}


def requested(seed):
    """Requests that no record is like."""
    random = np.random.default_rng([seed, 8])
    feeds = texts(random, random.integers(0, SIZE + 1, REQUESTS))
    for row, kind in enumerate(random.integers(0, 10, REQUESTS)):
        end = int(feeds["mask"][row].sum())
        if kind == 0 and end > 2:
            feeds["mask"][row, random.integers(0, end, end // 2)] = 0
        elif kind == 1:
            feeds[str(random.choice(NAMES))][row] = 0
        elif kind == 2:
            feeds["ids"][row, random.integers(0, SIZE, 2)] = random.integers(1, WORDS, 2)
        elif kind == 3:
            feeds["ids"][row, :end] = 0
        elif kind == 4:
            feeds["ids"][row, :end] *= -1
        elif kind == 5:
            feeds["mask"][row, end // 2 :] = 0
        elif kind == 6:
            for name in NAMES:
                feeds[name][row] = feeds[name][row, ::-1]
    return feeds


def calling(opened, graph):
    """A graph as the proof calls it; the packed one is told its positions by their own names."""
    import tensorflow as tf

    with tf.Graph().as_default() as again:
        tf.graph_util.import_graph_def(graph, name="")
    session = tf.compat.v1.Session(graph=again)
    inputs = dict(zip(NAMES, opened.inputs, strict=True))
    there = {node.name for node in graph.node}

    def run(feeds):
        given = {inputs.get(name, f"{name}:0"): array for name, array in feeds.items()}
        given = {name: array for name, array in given.items() if name.partition(":")[0] in there}
        try:
            found = session.run(opened.outputs, given)
        except tf.errors.InvalidArgumentError as error:
            raise Refused(error.message) from error
        return {str(number): array for number, array in enumerate(found)}

    return session, run


def of_random_pieces(seed):
    serve = put_together(seed, 1 + seed % 5)
    try:
        return Opened(serve, slices=bool(seed % 2), inputs=len(NAMES))
    except AssertionError:  # no slice that could go before anything
        return Opened(serve, inputs=len(NAMES))


def shortened(seed):
    """Whether it was, and whether products left filling out; AssertionError names a request that is answered
    otherwise."""
    records = recorded(seed)
    lengths = shortening.find(INFO, records)
    if not isinstance(lengths, Shortening) or not lengths.lengths:
        return False, False
    try:
        opened = of_random_pieces(seed)
    except NotLowerable:
        return False, False
    (one, whole), (other, run) = calling(opened, opened.whole), calling(opened, opened.graph)
    packed, run_packed = calling(opened, opened.packed)
    with one, other, packed:
        for way in rewriting.needs(lengths, records):
            if not rewriting.prove(run, whole, way, records, ALIKE)[1]:
                feeds = requested(seed)
                expected = compare(run, whole, way, feeds)
                if opened.products:
                    compare_packed(run_packed, expected, way, feeds)
                return True, bool(opened.products)
    return False, False


def compare(run, whole, lengths, feeds):
    """The answers of plain TensorFlow, by row; none to those that it refuses."""
    there, answers = shortening.lengths(lengths, feeds), {}
    for row, length in enumerate(there.tolist()):
        one = {name: array[row : row + 1] for name, array in feeds.items()}
        try:
            expected = answers[row] = whole(one)
        except Refused:
            continue
        size = min(SIZE, length + row % 4)
        reason = verify.check(expected, run(shortening.cut(lengths, one, size)), ALIKE).reason
        assert not reason, f"at {size} of {SIZE}: {reason}: {one}"
    return answers


def compare_packed(run, expected, lengths, feeds):
    """Rows of all lengths in one batch; of one length alone; the longest alone; those without a token."""
    random = np.random.default_rng(len(expected))
    answered = np.array(sorted(expected))
    there = shortening.lengths(lengths, feeds)[answered]
    batches = [random.choice(answered, int(random.integers(1, 9))) for _ in range(BATCHES)]
    batches += [answered[there == n][:3] for n in {*random.choice(there, 3).tolist(), SIZE, 1}]
    batches += [answered[[there.argmax(), there.argmin()]]]
    for rows in filter(len, batches):
        several = {name: array[rows] for name, array in feeds.items()}
        found = run(openvino_packed.packed(lengths, several))
        for place, row in enumerate(rows.tolist()):
            own = {name: array[place : place + 1] for name, array in found.items()}
            reason = verify.check(expected[row], own, ALIKE).reason
            assert not reason, f"row {place} of {shortening.lengths(lengths, several)}: {reason}: {several}"


def proven(seeds):
    """How many were shortened, and how many packed."""
    return np.sum([shortened(seed) for seed in seeds], axis=0).tolist()


def test_what_was_proven_holds():
    shorter, packed = proven(range(40))
    assert shorter > 2
    assert packed > 2


@pytest.mark.slow
def test_what_was_proven_holds_of_many():
    shorter, packed = proven(range(40, 1000))
    assert shorter > 80
    assert packed > 60

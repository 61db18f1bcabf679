"""What the engines' tests share: feeds for any test model, plain TensorFlow's answers, a prepared runner."""

from __future__ import annotations

import functools
import sys
import threading
import time
from pathlib import Path

import numpy as np
import savedmodels
from tfopt_optimizer import saved_model, verify
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NeedsConversion
from tfopt_protos import dtypes

WORDS = (b"red", b"nope", b"", b"blu\0e")
INNER = 5  # for unknown dimensions behind the first


def place(name, plan_dir, threads=2):
    return Place(savedmodels.path(name), Path(plan_dir), ("serve",), threads, threads)


@functools.cache
def _signatures(name):
    return {s.key: s for s in saved_model.read_signatures(savedmodels.path(name))}


def target(name, key, variant, batch):
    info = _signatures(name)[key]
    shapes = {t.name: tuple(_size(d, batch, i) for i, d in enumerate(t.shape)) for t in info.inputs}
    return Target(info, variant, shapes, f"s0/b{batch}")


def _size(dimension, batch, place_):
    if dimension is not None:
        return dimension
    return batch if place_ == 0 else INNER


def feeds(wanted, seed=0):
    """Feeds of a target's shapes; integers are small and not negative."""
    rng = np.random.default_rng(seed)

    def values(tensor):
        dtype, shape = dtypes.to_numpy(tensor.dtype), wanted.shapes[tensor.name]
        if tensor.dtype == "string":
            picked = [WORDS[i] for i in rng.integers(0, len(WORDS), int(np.prod(shape)))]
            return np.array(picked, dtype=object).reshape(shape)
        if dtype.kind in "iub":
            return rng.integers(0, 2 if dtype.kind == "b" else 9, shape).astype(dtype)
        return rng.standard_normal(shape).astype(dtype)

    return {t.name: values(t) for t in wanted.signature.inputs}


@functools.cache
def _model(name):
    return tensorflow_engine.open_model(place(name, "unused"), tensorflow_engine.FUNCTION)


def plain(name, wanted, given):
    """Plain TensorFlow's answer, in this process."""
    return _model(name).runner(wanted.signature)(given)


def agree(expected, found):
    verdict = verify.check(expected, found, verify.lossless(1e-5))
    assert verdict.reason == ""


def save(folder, compute, keys=("serving_default",), **inputs):
    """Saves a model of one signature, outputs = compute(tf, module, *inputs). Inputs by name: (shape, dtype). `keys`:
    its names."""
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype, name=name) for name, (shape, dtype) in inputs.items()]
    module = tf.Module()

    @tf.function(input_signature=specs, autograph=False)
    def serve(*tensors):
        return compute(tf, module, *tensors)

    tf.saved_model.save(module, str(folder), signatures=dict.fromkeys(keys, serve))


class Prepared:
    """An engine's worker and its converter, here instead of in processes of their own."""

    def __init__(self, name, plan_dir, worker, converter):
        self.name, self.place = name, place(name, plan_dir)
        self.worker, self._converter_type, self._converter = worker, converter, None
        self.converted = 0
        worker.open(self.place)

    def runner(self, wanted):
        try:
            self.prepared = self.worker.prepare(wanted)
        except NeedsConversion:
            if self._converter is None:
                self._converter = self._converter_type()
                self._converter.open(self.place)
            self._converter.prepare(wanted)
            self.converted += 1
            self.prepared = self.worker.prepare(wanted)
        return self.worker.runner(wanted)

    def check(self, wanted, seed=0):
        """Runs and compares; returns the runner."""
        given, runner = feeds(wanted, seed), self.runner(wanted)
        agree(plain(self.name, wanted, given), runner(given))
        return runner


def opened(worker, folder, compute, **inputs):
    """A worker for a model of one signature, and the signature. Two threads."""
    save(folder / "model", compute, **inputs)
    worker.open(Place(folder / "model", folder / "plan", ("serve",), 2, 2))
    (info,) = saved_model.read_signatures(folder / "model")
    return worker, info


def bucket(worker, info, variant, **shapes):
    """The runner for inputs of these shapes, which begin with as many rows, and its target."""
    rows = next(iter(shapes.values()))[0]
    wanted = Target(info, variant, shapes, f"s0/b{rows}", rows)
    worker.prepare(wanted)
    return worker.runner(wanted), wanted


def hammer(calls, seconds=0.5):
    """Every call in a thread of its own, again and again; calls raise what they do not like."""
    wrong, end = [], time.monotonic() + seconds

    def repeat(call):
        try:
            while time.monotonic() < end and not wrong:
                call()
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=repeat, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if wrong:
        raise wrong[0]


def steps_of_another_thread(call, calls=20):
    """How often another Python thread gets ahead during some calls. It cannot unless they let go of the GIL."""
    steps, stop, before = 0, threading.Event(), sys.getswitchinterval()

    def count():
        nonlocal steps
        while not stop.is_set():
            steps += 1
            time.sleep(0)

    thread = threading.Thread(target=count)
    sys.setswitchinterval(60)  # nobody is made to let go of the GIL
    try:
        thread.start()
        time.sleep(0.01)
        started = steps
        for _ in range(calls):
            call()
        return steps - started
    finally:
        stop.set()
        sys.setswitchinterval(before)
        thread.join()

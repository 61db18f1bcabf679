"""Models that are made in a test, saved, opened by TensorFlow and by a split worker, and compared."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer import saved_model
from tfopt_optimizer.engines import calibration, split, split_convert
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Target
from tfopt_optimizer.errors import NeedsConversion

WORDS = np.array([b"red", b"blue", b"", b"\xff", b"red"], object)
KEYS = [b"red", b"blue", b"\xff"]


def table(tf, keys=KEYS, default=3):
    values = tf.range(len(keys), dtype=tf.int64)
    return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant(keys), values), default)


def weights(tf, *shape):
    return tf.Variable(np.random.default_rng(3).standard_normal(shape).astype(np.float32))


class Model:
    """A model saved by `serve`, opened by TensorFlow and by a split worker."""

    def __init__(self, tf, folder, module, serve, *specs):
        model = folder / "model"
        function = tf.function(serve, input_signature=list(specs), autograph=False)
        tf.saved_model.save(module, str(model), signatures={"serving_default": function})
        self.open(model, folder / "plan")

    def open(self, model, plan, key="serving_default"):
        plan.mkdir()
        self.place = Place(model, plan, ("serve",), 2, 2)
        (self.info,) = (s for s in saved_model.read_signatures(model) if s.key == key)
        self.samples, self.independent = True, True
        self.plain = tensorflow_engine.open_any(self.place).runner(self.info)
        self.worker, self.converter = split.Worker(), split_convert.Converter()
        self.worker.open(self.place)
        self.converter.open(self.place)
        return self

    def runner(self, feeds, engine="xla", variant="pjrt"):
        rows = len(next(iter(feeds.values()))) if self.independent else None
        if self.samples and not (self.place.plan_dir / "s0").exists():
            calibration.write_samples(self.place.plan_dir / "s0", [feeds])
        shapes = {n: a.shape for n, a in feeds.items()}
        folder = "s0/" + "_".join(str(n) for shape in shapes.values() for n in shape)
        target = Target(self.info, variant, shapes, folder, rows, f"host+{engine}")
        for _ in range(3):
            try:
                self.prepared = self.worker.prepare(target)
                return self.worker.runner(target)
            except NeedsConversion:
                self.converter.prepare(target)
        raise AssertionError("it asks again and again")

    def check(self, feeds, **engine):
        runner = self.runner(feeds, **engine)
        found, expected = runner(feeds), self.plain(feeds)
        assert set(found) == set(expected)
        for name, array in expected.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            if array.dtype == object:
                np.testing.assert_array_equal(found[name], array)
            else:
                np.testing.assert_allclose(found[name], array, rtol=1e-5, atol=1e-6)
        return runner

    def segments(self):
        return split.shown(self.place.plan_dir, "s0")


def words(tf, name="word"):
    return tf.TensorSpec([None], tf.string, name=name)


def tf1_loop(tf, to):
    """Saves text string [n] -> y [n, 4]: hashed words through a while loop of Enter, Merge, Switch and Exit."""
    v1 = tf.compat.v1
    v1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            text, dense = v1.placeholder(tf.string, [None]), v1.get_variable("dense", [4, 4], use_resource=False)
            x = tf.one_hot(v1.strings.to_hash_bucket_fast(text, 4), 4)
            _, y = v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(y @ dense)), (0, x))
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, str(to), {"text": text}, {"y": y})
    finally:
        v1.enable_control_flow_v2()

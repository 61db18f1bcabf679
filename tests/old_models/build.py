"""Writes the SavedModels of older TensorFlow releases beside this file, with the answers that those releases gave.

    python -m venv old && old/bin/pip install tensorflow-cpu==2.12.1
    old/bin/python tests/old_models/build.py tests/old_models/2.12

They are committed because these releases do not install beside the current one. 2.12 is the oldest that Python 3.11
runs, and one of the last with Estimators. Its TF1 half writes what TF1 wrote: reference variables, control flow of
Switch and Merge, legacy init ops, stripped default attributes and the graph version of its time.
"""

from __future__ import annotations

import base64
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
RNG = np.random.default_rng(12)
EXAMPLES = [{"age": [31.0], "city": [b"oslo"]}, {"age": [64.0], "city": [b"lima"]}]
OLD_GRAPH = 24  # the producer's graph version that TF1's releases of 2017 wrote


def example(features: dict[str, list]) -> bytes:
    made = tf.train.Example()
    for name, values in features.items():
        target = made.features.feature[name]
        (target.bytes_list if isinstance(values[0], bytes) else target.float_list).value.extend(values)
    return made.SerializeToString()


SERIALIZED = np.array([example(e) for e in EXAMPLES], object)


def tf1_reference_variables(to: Path) -> None:
    """x float [n, 3] -> y [n, 2]: reference variables, a while loop of Enter and Exit, a cond of Switch and Merge."""
    v1.disable_control_flow_v2()
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 3], "x")
        w = v1.get_variable("w", initializer=RNG.normal(size=[3, 2]).astype(np.float32), use_resource=False)
        b = v1.get_variable("b", initializer=np.float32([0.5, -0.5]), use_resource=False)
        y = tf.matmul(x, w) + b
        _, y = v1.while_loop(lambda i, _: i < 3, lambda i, t: (i + 1, t * 0.5 + 1.0), [tf.constant(0), y])
        y = v1.cond(w[0, 0] > -9.0, lambda: tf.nn.relu(y), lambda: -y, name="sign")
        session.run(v1.global_variables_initializer())
        _save_v1(session, to, {"serving_default": v1.saved_model.predict_signature_def({"x": x}, {"y": y})})


def tf1_tables(to: Path) -> None:
    """tf.Example -> classify: a vocabulary file and a table, initialized by the legacy init op."""
    to.parent.mkdir(parents=True, exist_ok=True)
    words = to.parent / "cities.txt"
    words.write_text("oslo\nlima\nrome\n")
    with tf.Graph().as_default(), v1.Session() as session:
        examples = v1.placeholder(tf.string, [None], "examples")
        spec = {"age": v1.FixedLenFeature([1], tf.float32), "city": v1.FixedLenFeature([], tf.string)}
        parsed = v1.parse_example(examples, spec)
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.TextFileInitializer(
                str(words), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64,
                tf.lookup.TextFileIndex.LINE_NUMBER,
            ),
            num_oov_buckets=1,
        )  # fmt: skip
        emb = v1.get_variable("emb", initializer=RNG.normal(size=[4, 2]).astype(np.float32), use_resource=False)
        logits = tf.gather(emb, table.lookup(parsed["city"])) * (parsed["age"] / 50.0)
        scores = tf.nn.softmax(logits)
        labels = tf.constant([["no", "yes"]])
        classes = tf.tile(labels, [tf.shape(scores)[0], 1])
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        signature = v1.saved_model.classification_signature_def(examples, classes, scores)
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, tf.constant(str(words)))
        _save_v1(session, to, {"serving_default": signature}, tables=True)
    words.unlink()


def _save_v1(session: object, to: Path, signatures: dict, tables: bool = False) -> None:
    builder = v1.saved_model.Builder(str(to))
    more = {"legacy_init_op": v1.tables_initializer()} if tables else {}
    if tables:
        more["assets_collection"] = v1.get_collection(v1.GraphKeys.ASSET_FILEPATHS)
    builder.add_meta_graph_and_variables(
        session, [v1.saved_model.tag_constants.SERVING], signatures, strip_default_attrs=True, **more
    )
    for graph in builder._saved_model.meta_graphs:
        graph.graph_def.versions.producer = OLD_GRAPH
    builder.save()


def estimator_dnn(to: Path) -> None:
    """An Estimator's own export: predict, classification and serving_default on tf.Example."""
    age = tf.feature_column.numeric_column("age")
    city = tf.feature_column.categorical_column_with_vocabulary_list("city", ["oslo", "lima", "rome"])
    columns = [age, tf.feature_column.indicator_column(city)]
    # By name it is looked up in a way that Python 3.11 does not have any more.
    optimizer = tf.keras.optimizers.legacy.Adagrad(0.05)
    config = tf.estimator.RunConfig(tf_random_seed=3)
    estimator = tf.estimator.DNNClassifier([4], columns, optimizer=optimizer, config=config)

    def train() -> tf.data.Dataset:
        features = {"age": [[31.0], [64.0]], "city": [[b"oslo"], [b"lima"]]}
        return tf.data.Dataset.from_tensor_slices((features, [0, 1])).repeat(4).batch(2)

    estimator.train(train, steps=4)
    receiver = tf.estimator.export.build_parsing_serving_input_receiver_fn(
        tf.feature_column.make_parse_example_spec(columns)
    )
    shutil.move(estimator.export_saved_model(str(to.parent / "part"), receiver).decode(), to)
    shutil.rmtree(to.parent / "part")


def keras_with_optimizer(to: Path) -> None:
    """Keras 2, trained with Adam and saved whole: optimizer slots, metrics, keras_metadata.pb."""
    tf.keras.utils.set_random_seed(4)
    x = tf.keras.Input([4], name="x")
    hidden = tf.keras.layers.BatchNormalization()(tf.keras.layers.Dense(6, activation="relu")(x))
    model = tf.keras.Model(x, tf.keras.layers.Dense(2, activation="softmax", name="scores")(hidden))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(RNG.normal(size=[16, 4]), RNG.integers(0, 2, 16), epochs=2, verbose=0)
    model.save(to, save_format="tf")


def keras_text(to: Path) -> None:
    """Keras 2 preprocessing inside the model: TextVectorization on strings, an Embedding, a mean of unmasked words."""
    tf.keras.utils.set_random_seed(5)
    text = tf.keras.Input([1], dtype=tf.string, name="text")
    vectors = tf.keras.layers.TextVectorization(max_tokens=12, output_sequence_length=5)
    vectors.adapt(["the cat sat", "the dog ran far"])
    tokens = vectors(text)
    words = tf.keras.layers.Embedding(12, 4, mask_zero=True)(tokens)
    found = tf.keras.layers.GlobalAveragePooling1D()(words)
    tf.keras.Model(text, tf.keras.layers.Dense(1, name="score")(found)).save(to, save_format="tf")


X3, X4 = RNG.normal(size=[3, 3]).astype(np.float32), RNG.normal(size=[3, 4]).astype(np.float32)
TEXTS = np.array([[b"The cat, sat!"], [b"a dog RAN"]], object)
MODELS = {
    tf1_reference_variables: {"serving_default": {"x": X3}},
    tf1_tables: {"serving_default": {"inputs": SERIALIZED}},
    estimator_dnn: {
        "serving_default": {"inputs": SERIALIZED},
        "predict": {"examples": SERIALIZED},
    },
    keras_with_optimizer: {"serving_default": {"x": X4}},
    keras_text: {"serving_default": {"text": TEXTS}},
}


def answers(folder: Path, calls: dict[str, dict[str, np.ndarray]]) -> list[dict]:
    """What this release itself answers, by the TF1 loader, as TensorFlow Serving runs models."""
    found = []
    with tf.Graph().as_default(), v1.Session() as session:
        graph = v1.saved_model.load(session, ["serve"], str(folder))
        for key, feeds in calls.items():
            signature = graph.signature_def[key]
            wanted = {name: info.name for name, info in signature.outputs.items()}
            outputs = session.run(wanted, {signature.inputs[n].name: array for n, array in feeds.items()})
            found.append({"signature": key, "inputs": _json(feeds), "outputs": _json(outputs)})
    return found


def _json(arrays: dict[str, np.ndarray]) -> dict:
    return {name: {"dtype": _kind(a), "values": _values(np.asarray(a))} for name, a in arrays.items()}


def _kind(array: np.ndarray) -> str:
    return "bytes" if np.asarray(array).dtype == object else str(np.asarray(array).dtype)


def _values(array: np.ndarray) -> list:
    if array.dtype != object:
        return array.tolist()
    flat = [base64.b64encode(value).decode() for value in array.ravel()]
    return np.array(flat, object).reshape(array.shape).tolist()


def main(out: Path) -> None:
    for build, calls in MODELS.items():
        folder = out / build.__name__ / "1"
        shutil.rmtree(folder.parent, ignore_errors=True)
        build(folder)
        (folder.parent / "answers.json").write_text(json.dumps(answers(folder, calls)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Models with strings and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from builders.registry import Builders, normal, save, seeded

builder = BUILDERS = Builders()


@builder
def tabular(to: Path) -> None:
    """Strings color (table in the graph) and city (vocabulary file), numbers age and income [n, 2] -> scores [n, 3]."""
    import tensorflow as tf

    rng, module = seeded(), tf.Module()
    vocabulary = to.parent / "cities.txt"
    vocabulary.parent.mkdir(parents=True, exist_ok=True)
    vocabulary.write_text("paris\nlima\noslo\nquito\n")
    colors = tf.lookup.KeyValueTensorInitializer(["red", "green", "blue"], tf.range(3, dtype=tf.int64))
    cities = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.colors = tf.lookup.StaticHashTable(colors, 3)
    module.cities = tf.lookup.StaticHashTable(cities, 4)
    module.embed_color = tf.Variable(normal(rng, 4, 8))
    module.embed_city = tf.Variable(normal(rng, 5, 8))
    module.hidden = tf.Variable(normal(rng, 19, 32))
    module.out = tf.Variable(normal(rng, 32, 3))

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="color"),
            tf.TensorSpec([None], tf.string, name="city"),
            tf.TensorSpec([None], tf.float32, name="age"),
            tf.TensorSpec([None, 2], tf.float32, name="income"),
        ]
    )
    def serve(color: Any, city: Any, age: Any, income: Any) -> Any:
        parts = [
            tf.gather(module.embed_color, module.colors.lookup(tf.strings.lower(color))),
            tf.gather(module.embed_city, module.cities.lookup(city)),
            age[:, None] / 50.0,
            income,
        ]
        hidden = tf.nn.relu(tf.concat(parts, 1) @ module.hidden)
        return {"scores": tf.nn.softmax(hidden @ module.out)}

    save(module, to, serving_default=serve)
    vocabulary.unlink()


@builder
def strings(to: Path) -> None:
    """text string [n] -> lower string [n], lower_bytes string [n], length int32 [n]."""
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def serve(text: Any) -> Any:
        lower = tf.strings.lower(text)
        return {"lower": lower, "lower_bytes": tf.identity(lower), "length": tf.strings.length(text)}

    save(tf.Module(), to, serving_default=serve)


@builder
def lookup(to: Path) -> None:
    """word string [n], id int64 [n] -> vector float [n, 4], index int64 [n], name string [n]; tables and gathers only.

    Words red, green, b"blu\\0e" and "" are 1 to 4, others 99; index 1 to 3 are named; id must be below 100.
    """
    import tensorflow as tf

    module = tf.Module()
    words = tf.lookup.KeyValueTensorInitializer(["red", "green", b"blu\0e", ""], tf.constant([1, 2, 3, 4], tf.int64))
    names = tf.lookup.KeyValueTensorInitializer(tf.constant([1, 2, 3], tf.int64), ["uno", "dos", "tres"])
    module.words, module.names = tf.lookup.StaticHashTable(words, 99), tf.lookup.StaticHashTable(names, "?")
    module.vectors = tf.Variable(normal(seeded(), 100, 4))

    @tf.function(
        input_signature=[tf.TensorSpec([None], tf.string, name="word"), tf.TensorSpec([None], tf.int64, name="id")]
    )
    def serve(word: Any, id: Any) -> Any:
        index = module.words.lookup(word)
        vector = tf.gather(module.vectors, index) + tf.gather(module.vectors, id)
        return {"vector": vector, "index": index, "name": module.names.lookup(index)}

    save(module, to, serving_default=serve)

"""The SavedModels of the conformance table (served_cases.py): one signature per thing that a request can meet.

Each docstring says the inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from builders.registry import Builders

builder = BUILDERS = Builders()
ECHOES = (
    "float32", "float64", "int32", "int16", "int8", "uint8", "uint16", "int64", "uint32", "uint64", "bool", "string",
    "float16", "bfloat16", "complex64", "complex128",
)  # fmt: skip


@builder
def forms(to: Path) -> None:
    """echo_DTYPE of any rank for ECHOES, and signatures for shapes, names, outputs and refusals of the graph."""
    import tensorflow as tf

    def sign(function: Callable[..., Any], **specs: tuple[Any, str]) -> Any:
        made = [tf.TensorSpec(shape, getattr(tf, dtype), name=name) for name, (shape, dtype) in specs.items()]
        return tf.function(function, input_signature=made).get_concrete_function()

    n = ([None], "float32")
    signatures = {f"echo_{each}": sign(lambda x: {"y": tf.identity(x)}, x=(None, each)) for each in ECHOES}
    signatures |= {
        "serving_default": sign(lambda x: {"y": x * 0.5 + 2.0}, x=(None, "float32")),
        "declared": sign(lambda x: {"y": x * 2.0}, x=([None, 3], "float32")),
        "matmul": sign(lambda x: {"y": x @ [[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]}, x=([None, 3], "float32")),
        "two": sign(lambda a, b: {"sum": a * 2.0, "text": b + "!"}, a=n, b=([None], "string")),
        "many": sign(
            lambda f, i, flag, s: {"f": f, "i": i + 1, "flag": tf.logical_not(flag), "s": s},
            f=n,
            i=([None, 2], "int64"),
            flag=([None], "bool"),
            s=([None], "string"),
        ),
        "image": sign(lambda s: {"image_bytes": tf.identity(s)}, s=([None], "string")),
        "images": sign(lambda s: {"image_bytes": tf.identity(s), "n": tf.strings.length(s)}, s=([None], "string")),
        "scaled": sign(lambda x, factor: {"y": x * factor}, x=n, factor=([], "float32")),
        "total": sign(lambda x: {"y": tf.reduce_sum(x)}, x=n),
        "uneven": sign(lambda x: {"y": tf.identity(x), "z": x[:1]}, x=n),
        "doubled": sign(lambda x: {"y": tf.concat([x, x], 0)}, x=n),
        "nothing": sign(lambda: {"y": tf.constant([7.0])}),
        "to_half": sign(lambda x: {"y": tf.cast(x, tf.float16)}, x=n),
        "nan": sign(lambda x: {"y": x / (x - x)}, x=n),
        "pick": sign(lambda i: {"y": tf.gather([10.0, 20.0, 30.0], i)}, i=([None], "int32")),
        "divide": sign(lambda i: {"y": 6 // i}, i=([None], "int32")),
        "number": sign(lambda s: {"y": tf.strings.to_number(s)}, s=([None], "string")),
        "length": sign(lambda tokens: {"y": tf.reduce_sum(tokens, 1)}, tokens=([None, None], "int32")),
    }
    tf.saved_model.save(tf.Module(), str(to), signatures=signatures)


@builder
def planned(to: Path) -> None:
    """What a plan treats differently: rows that may be merged (serving_default, pair), and batches that may be neither
    padded nor merged (centered, total, scalar)."""
    import tensorflow as tf

    module = tf.Module()
    module.weights = tf.Variable([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]])

    def sign(function: Callable[..., Any], **shapes: list[int | None]) -> Any:
        made = [tf.TensorSpec(shape, tf.float32, name=name) for name, shape in shapes.items()]
        return tf.function(function, input_signature=made).get_concrete_function()

    signatures = {
        "serving_default": sign(lambda x: {"y": x @ module.weights}, x=[None, 3]),
        "pair": sign(lambda a, b: {"p": a @ module.weights, "q": b * 2.0}, a=[None, 3], b=[None]),
        "centered": sign(lambda x: {"y": x - tf.reduce_mean(x, 0, keepdims=True)}, x=[None, 3]),
        "total": sign(lambda x: {"y": tf.reduce_sum(x @ module.weights)}, x=[None, 3]),
        "scalar": sign(lambda x: {"y": x * 2.0}, x=[]),
    }
    tf.saved_model.save(module, str(to), signatures=signatures)


@builder
def outside(to: Path) -> None:
    """What depends on more than the request: the content of a file (serving_default, lines), a random number (sampled).
    `plain` does not."""
    import tensorflow as tf

    def sign(function: Callable[..., Any], dtype: Any, name: str) -> Any:
        return tf.function(function, input_signature=[tf.TensorSpec([None], dtype, name=name)]).get_concrete_function()

    def lines(path: Any) -> Any:
        return {"n": tf.data.TextLineDataset(path).reduce(tf.constant(0, tf.int64), lambda n, _: n + 1)}

    def sampled(x: Any) -> Any:
        drawn = tf.random.log_uniform_candidate_sampler([[0]], 1, 1, unique=False, range_max=1000)
        return {"y": x + tf.cast(drawn.sampled_candidates, tf.float32)}

    signatures = {
        "serving_default": sign(lambda path: {"y": tf.map_fn(tf.io.read_file, path)}, tf.string, "path"),
        "lines": sign(lines, tf.string, "path"),
        "sampled": sign(sampled, tf.float32, "x"),
        "plain": sign(lambda x: {"y": x * 2.0}, tf.float32, "x"),
    }
    tf.saved_model.save(tf.Module(), str(to), signatures=signatures)


@builder
def examples(to: Path) -> None:
    """Classify and regress signatures that parse tf.Examples: x (float, required), w (string, "?"), n (two int64, 1 and
    2), v (any number of floats)."""
    examples_plus(to, 0.0)


@builder
def examples_next(to: Path) -> None:
    """The same with 100 added to every number: another version."""
    examples_plus(to, 100.0)


def examples_plus(to: Path, offset: float) -> None:
    import tensorflow as tf

    features = {
        "x": tf.io.FixedLenFeature([1], tf.float32),
        "w": tf.io.FixedLenFeature([], tf.string, "?"),
        "n": tf.io.FixedLenFeature([2], tf.int64, [1, 2]),
        "v": tf.io.VarLenFeature(tf.float32),
    }

    def sign(outputs: Callable[[Any], dict[str, Any]], wanted: str, name: str = "inputs") -> Any:
        def run(**fed: Any) -> dict[str, Any]:
            return outputs(tf.io.parse_example(fed[name], {key: features[key] for key in wanted}))

        return tf.function(run).get_concrete_function(**{name: tf.TensorSpec([None], tf.string, name=name)})

    def value(f: Any) -> Any:
        return f["x"] + offset

    def names(f: Any) -> Any:
        return tf.stack([f["w"] + "-low", f["w"] + "-high"], 1)

    signatures = {
        "serving_default": sign(lambda f: {"outputs": value(f)[:, 0]}, "x"),
        "column": sign(lambda f: {"outputs": value(f)}, "x"),
        "whole": sign(lambda f: {"outputs": tf.cast(tf.reduce_sum(f["n"], 1), tf.float32) + offset}, "n"),
        "any": sign(lambda f: {"outputs": tf.sparse.reduce_sum(f["v"], 1) + offset}, "v"),
        "length": sign(lambda f: {"outputs": tf.cast(tf.strings.length(f["w"]), tf.float32) + offset}, "w"),
        "both": sign(lambda f: {"classes": names(f), "scores": tf.concat([value(f), value(f) * 2.0], 1)}, "xw"),
        "labels": sign(lambda f: {"classes": tf.as_string(f["n"])}, "n"),
        "one_label": sign(lambda f: {"classes": f["w"][:, None]}, "w"),
        "scores": sign(lambda f: {"scores": tf.concat([value(f), -value(f), value(f) / 0.0], 1)}, "x"),
        "constant": sign(lambda f: {"classes": tf.constant(["a", "b"]), "scores": value(f)}, "x"),
        "numbered": sign(lambda f: {"classes": f["n"], "scores": tf.cast(f["n"], tf.float32)}, "n"),
        "wide_scores": sign(lambda f: {"classes": names(f), "scores": value(f)}, "xw"),
        "double_scores": sign(lambda f: {"scores": tf.cast(value(f), tf.float64)}, "x"),
        "first_scores": sign(lambda f: {"scores": value(f)[:1]}, "x"),
        "wide": sign(lambda f: {"outputs": tf.concat([value(f), value(f)], 1)}, "x"),
        "double": sign(lambda f: {"outputs": tf.cast(value(f)[:, 0], tf.float64)}, "x"),
        "total": sign(lambda f: {"outputs": tf.reduce_sum(value(f))}, "x"),
        "first": sign(lambda f: {"outputs": value(f)[:1, 0]}, "x"),
        "misnamed": sign(lambda f: {"outputs": value(f)[:, 0]}, "x", "examples"),
        "misnamed_outputs": sign(lambda f: {"y": value(f)[:, 0]}, "x"),
        "floats": tf.function(lambda inputs: {"outputs": inputs + offset}).get_concrete_function(
            tf.TensorSpec([None], tf.float32, name="inputs")
        ),
    }
    tf.saved_model.save(tf.Module(), str(to), signatures=signatures)

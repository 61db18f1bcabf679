"""Every kind of model, placed by the converter and by name, with all that may be added to it, and then served."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.tpu import convert, options
from tfopt_optimizer.tpu.convert import ConversionJob
from tfopt_server.metrics import Metrics
from tfopt_server.preparing import LoadOptions, Source, prepare
from tfopt_warmup import records

pytestmark = [pytest.mark.tensorflow, pytest.mark.slow]

RNG = np.random.default_rng(0)
IMAGES = {"image": RNG.standard_normal((8, 16, 16, 3)).astype(np.float32)}
IDS = {"ids": RNG.integers(0, 100, (8, 8)).astype(np.int32)}
NUMBERS = {"x": RNG.standard_normal((8, 10)).astype(np.float32)}
TEXT = {"text": np.array([b"1,2,3", b"4,5"], object)}
X = {"x": RNG.standard_normal((8, 4)).astype(np.float32)}
WORDS = {"words": RNG.choice([b"a", b"b", b"c", b"A", b"B", b"x"], (8, 4)).astype(object)}

BATCHING = (
    "batch_options { num_batch_threads: 2 max_batch_size: 8 batch_timeout_micros: 1000 allowed_batch_sizes: [4, 8] }"
)


@dataclasses.dataclass(frozen=True)
class Kind:
    """`named`: the options that place it by name, "" where only the converter can. `others`: records of signatures that
    made-up values would not do for."""

    model: str
    feeds: dict
    named: str
    signature: str = "serving_default"
    others: dict = dataclasses.field(default_factory=dict)


ALIAS = 'tpu_functions { function_alias: "tpu_func" }'
# Keras writes two signatures; a variable is bfloat16 only where both are on the TPU.
SIGNATURE = 'tpu_functions { signature_name: "serving_default" } tpu_functions { signature_name: "serve" }'
KINDS = {
    "tf.Module": Kind("toy", NUMBERS, ALIAS, "raw", {"serving_default": TEXT}),
    "Keras functional, saved": Kind("cnn", IMAGES, ALIAS),
    "Keras functional, exported": Kind("cnn_exported", IMAGES, SIGNATURE),
    "Keras subclassed, saved": Kind("subclassed", IDS, ALIAS),
    "Keras subclassed, exported": Kind("subclassed_exported", IDS, SIGNATURE),
    "transformer, saved": Kind("transformer", IDS, ALIAS),
    "transformer, exported": Kind("transformer_exported", IDS, SIGNATURE),
    "strings, table, embedding, label": Kind("labels", WORDS, 'tpu_functions { function_alias: "dense_func" }'),
    "a string operation in its middle": Kind(
        "middle", X, 'tpu_functions { function_alias: "before" } tpu_functions { function_alias: "after" }'
    ),
    "and one in its only function": Kind("stringy", X, ""),
}
PLACES = [(name, named) for name, kind in KINDS.items() for named in (False, True) if kind.named or not named]


@pytest.fixture
def through(tpu_model, tmp_path):
    """through(kind, options) -> the report, and the answers of the original and of the served model."""

    def convert_and_serve(kind: Kind, text: str, exact: bool = True):
        folder = tmp_path / "1"
        job = ConversionJob(
            tpu_model(kind.model), folder, options.parse(text), {kind.signature: [kind.feeds]}, "made up"
        )
        report = convert.convert(job)
        halves = [{k: v[i : i + 4] for k, v in kind.feeds.items()} for i in (0, 4)]
        logs = [records.predict_log("m", kind.signature, half) for half in halves]
        logs += [records.predict_log("m", key, feeds) for key, feeds in kind.others.items()]
        records.write(records.path_in(folder), logs)
        flags = OptimizerFlags(allow_precompilation=True, engines=("xla",), optimize_budget_s=2.0)
        model = prepare(Source("m", 1, folder), LoadOptions(flags, tmp_path / "plans"), Metrics())
        found = model.servable.signatures[kind.signature].run(kind.feeds)
        return report, original(tpu_model(kind.model), kind), found, model

    return convert_and_serve


def original(folder, kind: Kind):
    import tensorflow as tf

    feeds = {
        name: tf.constant(value.tolist() if value.dtype == object else value) for name, value in kind.feeds.items()
    }
    return {name: t.numpy() for name, t in tf.saved_model.load(str(folder)).signatures[kind.signature](**feeds).items()}


def off(wanted, found) -> float:
    """The largest error of any output, of its largest value; what is no number must be equal."""
    assert set(wanted) == set(found)
    worst = 0.0
    for name, value in wanted.items():
        if value.dtype.kind != "f":
            np.testing.assert_array_equal(found[name], value)
            continue
        worst = max(worst, float(np.abs(found[name] - value).max() / np.abs(value).max()))
    return worst


@pytest.mark.parametrize(("name", "named"), PLACES)
def test_placed(through, name, named) -> None:
    kind = KINDS[name]
    report, wanted, found, model = through(kind, "disable_default_optimizations: true " + kind.named * named)
    assert report.placed
    (tried,) = report.tried
    assert tried.agreement.max_rel_error < 1e-5
    assert off(wanted, found) < 1e-4
    model.servable.close()


@pytest.mark.parametrize(("name", "named"), PLACES)
def test_in_bfloat16_and_batched(through, name, named) -> None:
    kind = KINDS[name]
    report, wanted, found, model = through(kind, f"{kind.named * named} io_shape_optimization: DISABLED {BATCHING}")
    assert {f.name for f in report.bfloat16} == {p.name for p in report.placed} == {b.name for b in report.batched}
    assert report.bfloat16_variables.changed > 0
    (tried,) = report.tried
    assert 1e-5 < tried.agreement.max_rel_error < 2e-2
    assert 1e-5 < off(wanted, found) < 2e-2
    assert model.servable.signatures[kind.signature].buckets == (4, 8)
    model.servable.close()


def quantization(method: str, key: str) -> str:
    return (
        f"external_feature_configs {{ quantization_options {{ quantization_method {{ preset_method: {method} }} "
        f'op_set: XLA min_num_elements_for_weights: 16 signature_keys: "{key}" }} }}'
    )


METHODS = {
    "METHOD_STATIC_RANGE_INT8": 0.3,
    "METHOD_DYNAMIC_RANGE_INT8": 0.1,
    "METHOD_STATIC_RANGE_WEIGHT_ONLY_INT8": 0.1,
}


LARGER = ("Keras functional, saved", "transformer, saved", "transformer, exported")
OTHERS = ("strings, table, embedding, label", "a string operation in its middle")
CASES = [(n, m) for n in LARGER for m in METHODS] + [(n, "METHOD_DYNAMIC_RANGE_INT8") for n in OTHERS]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_quantized(through, name, method) -> None:
    kind = KINDS[name]
    text = "disable_default_optimizations: true " + quantization(method, kind.signature)
    report, wanted, found, model = through(kind, text)
    assert report.quantized.method == method
    assert report.placed
    assert 1e-5 < off(wanted, found) < METHODS[method]
    model.servable.close()

"""Checks of the warmup file: there, readable, short enough, and about this model."""

from __future__ import annotations

from collections.abc import Iterator

from tfopt_optimizer.doctor.findings import HERE, SERVING, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient

FILE = "assets.extra/tf_serving_warmup_requests"


def missing(model: Patient) -> Iterator[Found]:
    if model.warmup is None:
        yield warning(f"there is no {FILE}: optimizations are checked and measured on made-up inputs")
        return
    recorded = {signature for signature, _ in model.warmup.runs}
    without = [s.key for s in model.signatures if s.key not in recorded]
    if model.warmup.runs and without:
        yield info("signatures without a warmup record", without)


def valid(model: Patient) -> Iterator[Found]:
    if model.warmup is None:
        return
    if model.warmup.problem:
        yield error("the warmup file fails the load", [model.warmup.problem])
    elif not model.warmup.runs:
        yield warning("the warmup file holds no request")
    known = {s.key: s for s in model.signatures}
    wrong = []
    for key, names in sorted(set(model.warmup.runs), key=lambda run: (run[0], sorted(run[1]))):
        signature = known.get(key)
        if signature is None:
            wrong.append(f"signature {key!r}; the model has {', '.join(known) or 'none'}")
            continue
        inputs = {t.name for t in signature.inputs}
        lacking = inputs - names - set(signature.defaults)
        if names - inputs or lacking:
            wrong.append(f"{key}: inputs {sorted(names)}; the signature has {sorted(inputs)}")
    if wrong:
        yield error("warmup requests that this model cannot answer", wrong)


CHECKS = (
    Check(
        "warmup",
        "Write real requests as PredictionLog messages into that TFRecord file (tfopt warmup synthesize makes a first "
        "one): the proof that an optimization is right and faster stands on them.",
        f"{SERVING}; {HERE}",
        missing,
    ),
    Check(
        "warmup-valid",
        "Write the file again for this version of the model; TensorFlow Serving takes at most 1000 records and fails "
        "the load on the first bad one.",
        SERVING,
        valid,
    ),
)

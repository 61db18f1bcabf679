"""The ModelHandler: what Apache Beam's RunInference asks of a framework, answered by scorer.py.

    scored = rows | RunInference(TfoptModelHandler("gs://bucket/model", flags=["--allow_precompilation"]))
    scored | beam.Map(lambda result: result.inference["probabilities"])

Beam loads one model a process and shares it among the process's threads; with `large_model` one a machine, or
`model_copies` of them. RunInference's own metrics stand under `tfopt`, beside `engine_calls`, `rows_outside_plan` and
`elements_refused`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from apache_beam.metrics import Metrics
from apache_beam.ml.inference.base import ModelHandler, PredictionResult
from tfopt_optimizer.flags import DEFAULT_BUCKETS

from tfopt_server.beam import batches, carried_plans
from tfopt_server.beam.scorer import Scorer, parse

log = logging.getLogger(__name__)

DEFAULT_SIGNATURE = "serving_default"
OUTPUTS = "outputs"  # the only inference argument


class TfoptModelHandler(ModelHandler):  # type: ignore[misc]
    """Elements are rows (elements.py); a PredictionResult's `inference` maps outputs to numpy arrays of one row.

    `model`: a SavedModel or a folder of versions whose newest is taken, here or at gs://, s3:// or az://. `flags`:
    those of `tfopt serve`. `signature`, `outputs`: which, and only these outputs. `keep_refused`: an element that
    cannot be scored gets the error as its `inference` and costs nobody else; without, it fails its batch. The rest are
    Beam's own: batches are as large as the plans in the model find cheapest unless `min_batch_size` or
    `max_batch_size` says otherwise.

    ValueError for flags that are none. The plan is best made beforehand (`tfopt optimize MODEL --in_place`); where none
    fits, every worker makes its own, or refuses without TensorFlow.
    """

    def __init__(
        self,
        model: str,
        *,
        flags: Sequence[str] = (),
        signature: str = DEFAULT_SIGNATURE,
        outputs: Sequence[str] | None = None,
        keep_refused: bool = False,
        min_batch_size: int | None = None,
        max_batch_size: int | None = None,
        max_batch_duration_secs: int | None = None,
        max_batch_weight: int | None = None,
        element_size_fn: Callable[[Any], int] | None = None,
        batch_length_fn: Callable[[Any], int] | None = None,
        batch_bucket_boundaries: list[int] | None = None,
        large_model: bool = False,
        model_copies: int | None = None,
        env_vars: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            min_batch_size=min_batch_size,
            max_batch_size=max_batch_size,
            max_batch_duration_secs=max_batch_duration_secs,
            max_batch_weight=max_batch_weight,
            element_size_fn=element_size_fn,
            batch_length_fn=batch_length_fn,
            batch_bucket_boundaries=batch_bucket_boundaries,
            large_model=large_model,
            model_copies=model_copies,
            env_vars=dict(env_vars or {}),
        )
        _named(OUTPUTS, outputs)
        self._model, self._flags, self._signature = model, tuple(flags), signature
        self._outputs = tuple(outputs) if outputs is not None else None
        self._keep_refused = keep_refused
        self._sizes_given = min_batch_size is not None or max_batch_size is not None
        self._allowed = parse(model, self._flags).allowed_batch_sizes

    def load_model(self) -> Scorer:
        """Called by Beam, once a process. ScoringError says why the model cannot be loaded."""
        return Scorer.load(self._model, self._flags, self._signature)

    def run_inference(
        self, batch: Sequence[Any], model: Scorer, inference_args: Mapping[str, Any] | None = None
    ) -> Iterable[PredictionResult]:
        """One result per element. Without `keep_refused` ElementError and ScoringError fail the batch, which
        RunInference's with_exception_handling() puts aside."""
        outputs = (inference_args or {}).get(OUTPUTS, self._outputs)
        scored = model.score(batch, outputs, keep=self._keep_refused)
        refused = sum(isinstance(answer, Exception) for answer in scored.answers)
        counts = {"engine_calls": scored.calls, "rows_outside_plan": scored.outside, "elements_refused": refused}
        for name, count in counts.items():
            Metrics.counter(self.get_metrics_namespace(), name).inc(count)
        return [
            PredictionResult(element, answer, self._model)
            for element, answer in zip(batch, scored.answers, strict=True)
        ]

    def validate_inference_args(self, inference_args: Mapping[str, Any] | None) -> None:
        """ValueError for any but `outputs`."""
        given = dict(inference_args or {})
        _named(OUTPUTS, given.pop(OUTPUTS, None))
        if given:
            raise ValueError(f"inference_args: expected none but {OUTPUTS!r}, received {sorted(given)}")

    def batch_elements_kwargs(self) -> Mapping[str, Any]:
        """Batches of the size that the model's plans find cheapest, read where the pipeline is built."""
        given = dict(super().batch_elements_kwargs())
        if self._sizes_given:
            return given
        found = (plan.signature(self._signature) for plan in carried_plans.read(self._model))
        size = batches.best(signature for signature in found if signature is not None)
        if size is None:
            size = max(self._allowed or DEFAULT_BUCKETS)
            log.info("no plan in %s: batches of up to %d elements", self._model, size)
            return {"max_batch_size": size, **given}
        return {"min_batch_size": size, "max_batch_size": size, **given}

    def update_model_path(self, model_path: str | None = None) -> None:
        """Beam's model refresh: another model with the same signature. WatchFilePattern names files: a model's is its
        saved_model.pb."""
        if model_path:
            self._model = model_path.removesuffix("/saved_model.pb")

    def get_num_bytes(self, batch: Sequence[Any]) -> int:
        return sum(_bytes(value) for element in batch for value in _values(element))

    def get_metrics_namespace(self) -> str:
        return "tfopt"


def _named(what: str, names: Any) -> None:
    """ValueError where `names` is not None and no sequence of names."""
    if names is not None and (isinstance(names, str) or not names or not all(isinstance(n, str) for n in names)):
        raise ValueError(f"{what}: expected names of outputs, received {names!r}")


def _values(element: Any) -> Iterable[Any]:
    return element.values() if isinstance(element, Mapping) else (element,)


def _bytes(value: Any) -> int:
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        return value.nbytes
    if isinstance(value, bytes | str):
        return len(value)
    if isinstance(value, Mapping | list | np.ndarray):
        return sum(map(_bytes, value.values() if isinstance(value, Mapping) else value))
    return 8

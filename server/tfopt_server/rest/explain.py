"""POST ...:explain : predictions, and what each input has to do with them, in Vertex AI's schema.

    {"instances": [{"age": 50}], "explanation_spec_override": {"parameters": {"topK": 1}}}
    {"explanations": [{"attributions": [{"baselineOutputValue": 0.1, "instanceOutputValue": 0.7, "featureAttributions":
     {"age": 0.6}, "outputName": "risk", ...}]}], "predictions": [0.7]}

Fields: Attribution in aiplatform v1 explanation.proto. One explanation runs at a time in a process, on a thread, and
others wait for it; its batches go through the queue of all requests (explaining.py).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from tfopt_server import explaining
from tfopt_server.dataplane import Dataplane, ModelSpec
from tfopt_server.errors import RETRY_AFTER_S, Code, ServingError, invalid
from tfopt_server.explaining import Explained, Job, Picked, Run
from tfopt_server.http import Request, Response
from tfopt_server.registry import Handle
from tfopt_server.rest import codec, explanation_spec, features
from tfopt_server.rest.codec import Layout
from tfopt_server.rest.explanation_spec import Spec
from tfopt_server.rest.features import Feature, Target
from tfopt_server.rows import Arrays

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo

METADATA_FILE = "explanation_metadata.json"
MOST_WAITING = 32
MOST_VALUES = 10_000_000  # explained outputs of all rows: 80 MB
_OVERRIDES = ("explanation_spec_override", "explanationSpecOverride")


class ExplanationSpecError(ValueError):
    """A bad --explanation_spec_file; the text is for the operator."""


def read_file(path: Path | None) -> Spec:
    """The spec of --explanation_spec_file."""
    if path is None:
        return Spec()
    try:
        return explanation_spec.read(orjson.loads(path.read_bytes()), "--explanation_spec_file")
    except (OSError, ValueError, ServingError) as error:
        raise ExplanationSpecError(f"{path}: {error}") from error


class Explain:
    """`most_rows`: that one request may run."""

    def __init__(self, plane: Dataplane, timeout_s: float, spec_file: Path | None, most_rows: int) -> None:
        self._plane, self._timeout_s, self._most_rows = plane, timeout_s, most_rows
        self._from_file = spec_file is not None
        self._spec = read_file(spec_file)
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def answer(self, spec: ModelSpec, in_parameters: bool, request: Request) -> Response:
        request.model, request.entrypoint = spec.name, "explain"
        if self._waiting >= MOST_WAITING:
            text = f"{MOST_WAITING} explanations wait already; try again later"
            raise ServingError(Code.RESOURCE_EXHAUSTED, text, RETRY_AFTER_S)
        deadline = time.monotonic() + self._timeout_s
        left = threading.Event()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                async with self._turn:
                    return await asyncio.to_thread(self._explained, spec, in_parameters, request, deadline, left)
        except TimeoutError as error:
            raise ServingError(Code.DEADLINE_EXCEEDED, "Explaining timed out") from error
        finally:
            left.set()  # a thread whose answer nobody waits for any more stops after its batch
            self._waiting -= 1

    def _explained(
        self, spec: ModelSpec, in_parameters: bool, request: Request, deadline: float, left: threading.Event
    ) -> Response:
        asked = codec.Request.read(request.body, in_parameters)
        with self._plane.resolve(spec) as handle:
            signature = self._plane.signature(handle, asked.signature)
            if signature is None:
                raise invalid(f'Serving signature name: "{asked.signature}" not found in signature def')
            if "instances" not in asked.document:
                raise invalid("explain takes rows: expected 'instances', received " + shown_keys(asked.document))
            feeds, _ = codec.feeds(asked, signature)
            wanted = self._spec_for(handle, asked.document)
            run = Run(self._plane, handle, signature.key, deadline, left.is_set)
            return Response(self._document(run, feeds, wanted, signature, frozenset(asked.parameters or ())))

    def _spec_for(self, handle: Handle, document: Mapping[str, Any]) -> Spec:
        found = self._spec
        if not self._from_file:
            path = handle.folder / METADATA_FILE
            if path.is_file():
                try:
                    found = explanation_spec.read_metadata(orjson.loads(path.read_bytes()), METADATA_FILE)
                except (ValueError, ServingError) as error:
                    raise ServingError(Code.FAILED_PRECONDITION, f"The model's {METADATA_FILE}: {error}") from error
        for key in _OVERRIDES:
            if key in document:
                found = explanation_spec.read(document[key], key, found, override=True)
        return found

    def _document(
        self, run: Run, feeds: Arrays, spec: Spec, signature: SignatureInfo, parameters: frozenset[str]
    ) -> bytes:
        found = features.features(spec, signature, feeds, parameters)
        target = features.target(spec, signature)
        job = features.job(found, feeds, spec.paths)
        self._affordable(job)
        predicted = explaining.predictions(run, job)
        picked = features.picked(spec, target, predicted, job.rows)
        if explaining.cost(job) * picked.indices.shape[1] > MOST_VALUES:
            raise invalid(f"topK: {picked.indices.shape[1]} elements of the output in so many rows are too many")
        explained = explaining.explain(run, job, predicted, picked)
        # Instance by instance: who writes JSON holds Python's lock meanwhile, and predicts would wait for it. NaN and
        # Infinity as everywhere: bare tokens.
        written = ",".join(
            json.dumps(
                {"attributions": _attributions(i, found, target, picked, explained, predicted)},
                separators=(",", ":"), ensure_ascii=False,
            )
            for i in range(job.rows)
        )  # fmt: skip
        explanations = b'{"explanations":[' + written.encode("utf-8", "surrogateescape")
        return explanations + b"]," + codec.answer(predicted, Layout.ROWS)[1:]

    def _affordable(self, job: Job) -> None:
        cost = explaining.cost(job)
        if cost > self._most_rows:
            raise invalid(
                f"{job.players.number} features, {job.paths} paths, {job.starts} baselines and {job.rows} instances "
                f"mean {cost} rows to run, and --max_explain_rows allows {self._most_rows}: send fewer instances, "
                "lower pathCount, or give inputs a groupName"
            )


def _attributions(  # noqa: PLR0917 - one caller
    i: int, found: Sequence[Feature], target: Target, picked: Picked, explained: Explained, predicted: Arrays
) -> list[dict[str, Any]]:
    """One per explained element of the output, the largest first where the largest were asked for."""
    values, errors = explained.attributions[i]
    shape = predicted[picked.output].shape[1:]
    written = []
    for j, index in enumerate(picked.indices[i]):
        one: dict[str, Any] = {
            "baselineOutputValue": float(explained.baseline[i, j]),
            "instanceOutputValue": float(explained.instance[i, j]),
            "featureAttributions": {feature.key: feature.written(values[:, j]) for feature in found},
            "outputName": target.key,
        }
        if shape:
            place = tuple(int(p) for p in np.unravel_index(int(index), shape))
            one["outputIndex"] = list(place)
            if name := target.display_name(place, i, predicted):
                one["outputDisplayName"] = name
        if errors is not None:
            one["approximationError"] = float(errors[j])
        written.append(one)
    return written


def shown_keys(document: Mapping[str, Any]) -> str:
    return explanation_spec.shown(", ".join(document) or "an empty object")

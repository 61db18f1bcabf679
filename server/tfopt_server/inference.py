"""Classify and regress on the dataplane, as TensorFlow Serving's classifier.cc and regressor.cc define them.

    ask = Ask("classify_x_to_y", CLASSIFY)
    check(ask, plane, handle)                                  the signature's form
    result = start(plane, handle, ask, examples, deadline)     runs it on serialized tf.Examples
    read(ask, result.outputs, len(examples))                   Classified or Regressed

Written once for both faces, which only read and write their messages. Every refusal is INVALID_ARGUMENT with TensorFlow
Serving's text. A method is a convention about names: one input `inputs`, outputs `classes` and `scores`, or `outputs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from tfopt_protos import dtypes, messages

from tfopt_server.dataplane import DEFAULT_SIGNATURE, Dataplane
from tfopt_server.errors import invalid
from tfopt_server.registry import Handle
from tfopt_server.rows import Arrays
from tfopt_server.tasks import Result

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo

Array = npt.NDArray[Any]
Method = Literal["classify", "regress"]
CLASSIFY: Method = "classify"
REGRESS: Method = "regress"
# As a SignatureDef and an InferenceTask name them.
METHOD_NAMES: dict[str, Method] = {f"tensorflow/serving/{method}": method for method in (CLASSIFY, REGRESS)}
APIS = {CLASSIFY: "Classify", REGRESS: "Regress"}  # in TensorFlow Serving's metrics

INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"
_NOUNS = {CLASSIFY: "classification", REGRESS: "regression"}


class Ask(NamedTuple):
    """What is asked of which signature; `key` is never empty."""

    key: str
    method: Method

    @classmethod
    def of(cls, signature_name: str, method: Method) -> Ask:
        return cls(signature_name or DEFAULT_SIGNATURE, method)


class Classified(NamedTuple):
    """Per example its classes, both [examples, classes]: labels (bytes) and scores (float32). One may be missing."""

    labels: Array | None
    scores: Array | None

    @property
    def shape(self) -> tuple[int, int]:
        found = self.labels if self.labels is not None else self.scores
        assert found is not None
        return found.shape[0], found.shape[1]


class Regressed(NamedTuple):
    """A float32 per example, [examples]."""

    values: Array


Answer = Classified | Regressed


def check(
    ask: Ask, plane: Dataplane, handle: Handle, *, by_name: bool = False,
    unknown: str = "No signature was found with the name: ",
) -> None:  # fmt: skip
    """Whether the signature has the form that the method needs. `by_name`: its method_name must say so as well."""
    info = plane.signature(handle, ask.key)
    if info is None:
        raise invalid(f"{unknown}{ask.key}")
    if by_name and METHOD_NAMES.get(info.method_name) != ask.method:
        raise invalid(
            f"Expected {_NOUNS[ask.method]} signature method_name to be tensorflow/serving/{ask.method}. "
            f"Was: {info.method_name}"
        )
    if len(info.inputs) != 1:
        raise invalid("Expected one input Tensor.")
    problem = (_no_classifier if ask.method == CLASSIFY else _no_regressor)(info)
    if problem.endswith(": "):
        problem += messages.to_text(plane.metadata(handle)[ask.key])
    if problem:
        raise invalid(problem)


def _no_classifier(info: SignatureInfo) -> str:
    """What is wrong, "" when nothing is; a text that ends in ": " goes on with the SignatureDef."""
    names = {o.name for o in info.outputs}
    if len(names) not in (1, 2):
        return f"Expected one or two output Tensors, found {len(names)}"
    if info.inputs[0].name != INPUTS:
        return "No classification inputs found in SignatureDef: "
    if not names & {CLASSES, SCORES}:
        return (
            f'Expected classification signature outputs to contain at least one of "{CLASSES}" or "{SCORES}". '
            "Signature was: "
        )
    return ""


def _no_regressor(info: SignatureInfo) -> str:
    if len(info.outputs) != 1:
        return "Expected one output Tensor."
    if info.inputs[0].name != INPUTS:
        return "No regression inputs found in SignatureDef: "
    return "" if info.outputs[0].name == OUTPUTS else "No regression outputs found in SignatureDef: "


def start(  # noqa: PLR0917 - as Dataplane.start
    plane: Dataplane,
    handle: Handle,
    ask: Ask,
    examples: Array,
    deadline: float | None,
    face: str,
    *,
    api: str | None = None,
) -> Result | Future[Result]:
    """Runs a signature that `check` has passed on [examples] of serialized tf.Examples. As Dataplane.start."""
    info = plane.signature(handle, ask.key)
    assert info is not None
    declared = info.inputs[0].dtype
    if declared != "string":
        raise invalid(f"Expects arg[0] to be {declared} but string is provided")
    known = {o.name for o in info.outputs}
    wanted = [name for name in (CLASSES, SCORES, OUTPUTS) if name in known]
    return plane.start(
        handle, ask.key, {INPUTS: examples}, wanted, deadline=deadline, face=face, api=api or APIS[ask.method]
    )


def read(ask: Ask, outputs: Arrays | Mapping[str, Array], count: int) -> Answer:
    """What the outputs say about `count` examples, with the checks of the two PostProcess...Result."""
    if ask.method == REGRESS:
        return Regressed(_regression(outputs[OUTPUTS], count))
    labels, scores = outputs.get(CLASSES), outputs.get(SCORES)
    if labels is not None:
        _matrix(labels, CLASSES, "string", count)
    if scores is not None:
        _matrix(scores, SCORES, "float", count)
    if labels is not None and scores is not None and labels.shape[1] != scores.shape[1]:
        raise invalid(
            f"Tensors class and score should match in dim_size(1). Got {labels.shape[1]} vs. {scores.shape[1]}"
        )
    return Classified(labels, scores)


def _matrix(array: Array, name: str, dtype: str, count: int) -> None:
    if array.ndim != 2:
        raise invalid(f"Expected Tensor shape: [batch_size num_classes] but got {_shape(array)}")
    if dtypes.from_numpy(array.dtype) != dtype:
        raise invalid(f"Expected {name} Tensor of DT_{dtype.upper()}. Got: {_dtype(array)}")
    if len(array) != count:
        raise invalid(f"Expected {name} output batch size of {count}. Got: {len(array)}")


def _regression(array: Array, count: int) -> Array:
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):
        raise invalid(
            f"Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got {_shape(array)}"
        )
    if len(array) != count:
        raise invalid(f"Input batch size did not match output batch size: {count} vs. {len(array)}")
    if array.dtype != np.float32:
        raise invalid(f"Expected output Tensor of DT_FLOAT.  Got: {_dtype(array)}")
    return array.reshape(count)


def _shape(array: Array) -> str:
    return "[" + ",".join(map(str, array.shape)) + "]"


def _dtype(array: Array) -> str:
    return f"DT_{dtypes.from_numpy(array.dtype).upper()}"

"""What an explanation is of, and from where it is measured: Vertex AI's ExplanationSpec as JSON. Pure.

    read({"parameters": {"sampledShapleyAttribution": {"pathCount": 10}, "topK": 1},
          "metadata": {"inputs": {"age": {"inputBaselines": [40]}}, "outputs": {"risk": {}}}}, "the request")

Names in camelCase or snake_case, as Vertex AI's own files have them. Three places may say it, each more than the last:
`explanation_metadata.json` beside the model (an ExplanationMetadata), --explanation_spec_file, and a request's
`explanation_spec_override`. Fields: aiplatform v1 explanation.proto and explanation_metadata.proto.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tfopt_server.errors import ServingError, invalid

DEFAULT_PATHS = 10
MOST_PATHS = 50  # Vertex AI's limit
# Encodings whose features are the input's own elements; the others need a second, encoded tensor and its gradients.
_ENCODINGS = ("", "ENCODING_UNSPECIFIED", "IDENTITY", "BAG_OF_FEATURES")


@dataclasses.dataclass(frozen=True)
class Input:
    """`tensor` is the signature's input or its tensor, "" when the key is the input's name. `baselines` are JSON values
    of one row each; () means zeros and empty strings."""

    tensor: str = ""
    baselines: tuple[Any, ...] = ()
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Output:
    """`names`: display names of the output's elements, nested as its rows; `names_from`: an output that holds them."""

    tensor: str = ""
    names: Any = None
    names_from: str = ""


@dataclasses.dataclass(frozen=True)
class Spec:
    """`inputs` empty: every input of the signature is a feature by its own name. `outputs` empty: the signature's only
    numeric one. `top` -1: all elements; `indices` (one each, or a list per dimension) instead of the largest `top`."""

    paths: int = DEFAULT_PATHS
    top: int = 1
    indices: tuple[Any, ...] = ()
    inputs: Mapping[str, Input] = dataclasses.field(default_factory=dict)
    outputs: Mapping[str, Output] = dataclasses.field(default_factory=dict)
    # By key, of a request: they replace the baselines of what is a feature anyway.
    overrides: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)


def read(document: Any, where: str, base: Spec | None = None, override: bool = False) -> Spec:
    """An ExplanationSpec over `base`. `override`: inputs only name other baselines. INVALID_ARGUMENT names the field
    after `where`."""
    spec = base or Spec()
    whole = _object(document, where)
    parameters, metadata = _get(whole, "parameters"), _get(whole, "metadata")
    if parameters is not None:
        spec = _parameters(_object(parameters, f"{where}: parameters"), f"{where}: parameters", spec)
    if metadata is not None:
        spec = read_metadata(metadata, f"{where}: metadata", spec, override)
    return spec


def read_metadata(document: Any, where: str, base: Spec | None = None, override: bool = False) -> Spec:
    """An ExplanationMetadata: inputs and outputs by key."""
    spec = base or Spec()
    metadata = _object(document, where)
    inputs, outputs = _get(metadata, "inputs"), _get(metadata, "outputs")
    if inputs is not None:
        found = {k: _input(v, f"{where}: inputs: {k}") for k, v in _object(inputs, f"{where}: inputs").items()}
        if override:
            overrides = {**spec.overrides, **{k: each.baselines for k, each in found.items()}}
            spec = dataclasses.replace(spec, overrides=overrides)
        else:
            spec = dataclasses.replace(spec, inputs=found)
    if outputs is not None:
        named = {k: _output(v, f"{where}: outputs: {k}") for k, v in _object(outputs, f"{where}: outputs").items()}
        if len(named) > 1:
            raise _wrong(f"{where}: outputs", "one output", ", ".join(named))
        spec = dataclasses.replace(spec, outputs=named)
    return spec


def _parameters(parameters: Mapping[str, Any], where: str, spec: Spec) -> Spec:
    for other in ("integratedGradientsAttribution", "xraiAttribution", "examples"):
        if _get(parameters, other) is not None:
            raise _wrong(where, "sampledShapleyAttribution", other)
    shapley = _get(parameters, "sampledShapleyAttribution")
    if shapley is not None:
        at = f"{where}: sampledShapleyAttribution"
        paths = _get(_object(shapley, at), "pathCount")
        spec = dataclasses.replace(spec, paths=_whole(paths, f"{at}: pathCount", 1, MOST_PATHS))
    top, indices = _get(parameters, "topK"), _get(parameters, "outputIndices")
    if top is not None:
        top = _whole(top, f"{where}: topK", -1, 2**31 - 1)
        spec = dataclasses.replace(spec, top=top or 1)
    if indices is not None:
        if type(indices) is not list:
            raise _wrong(f"{where}: outputIndices", "a list", indices)
        spec = dataclasses.replace(spec, indices=tuple(indices))
    return spec


def _input(value: Any, where: str) -> Input:
    fields = _object(value, where)
    encoding = _get(fields, "encoding") or ""
    if str(encoding).upper() not in _ENCODINGS:
        raise _wrong(f"{where}: encoding", "IDENTITY or BAG_OF_FEATURES", encoding)
    baselines = _get(fields, "inputBaselines")
    if baselines is not None and type(baselines) is not list:
        raise _wrong(f"{where}: inputBaselines", "a list, with an entry per baseline", baselines)
    group = _get(fields, "groupName")
    return Input(_text(fields, "inputTensorName", where), tuple(baselines or ()), str(group or ""))


def _output(value: Any, where: str) -> Output:
    fields = _object(value, where)
    names = _get(fields, "indexDisplayNameMapping")
    return Output(_text(fields, "outputTensorName", where), names, _text(fields, "displayNameMappingKey", where))


def _get(fields: Mapping[str, Any], name: str) -> Any:
    """A field by its camelCase name, or the same in snake_case."""
    snake = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
    return fields.get(name, fields.get(snake))


def _object(value: Any, where: str) -> Mapping[str, Any]:
    if type(value) is not dict:
        raise _wrong(where, "an object", value)
    return value


def _text(fields: Mapping[str, Any], name: str, where: str) -> str:
    value = _get(fields, name)
    if value is not None and type(value) is not str:
        raise _wrong(f"{where}: {name}", "a string", value)
    return value or ""


def _whole(value: Any, where: str, least: int, most: int) -> int:
    if type(value) is not int or not least <= value <= most:
        raise _wrong(where, f"a whole number from {least} to {most}", value)
    return value


def _wrong(where: str, expected: str, received: Any) -> ServingError:
    return invalid(f"{where}: expected {expected}, received {shown(received)}")


def shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 100 else text[:100] + "..."


def names(several: Sequence[str]) -> str:
    return ", ".join(several) or "none"

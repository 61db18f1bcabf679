"""Why a document does not fit a signature: TensorFlow Serving's texts, found in its own order of checks.

Slow and exact (one Python step per value); it runs only after the fast readers of `values.py` gave up. Source:
util/json_tensor.cc (FillTensorMapFromInstancesList, FillTensorMapFromInputsMap, AddInstanceItem, FillTensorProto).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfopt_server.errors import Code, ServingError, invalid
from tfopt_server.rest.text import kind, quoted
from tfopt_server.rest.values import MAX_RANK, READABLE, from_base64_object, is_base64_object

Dtypes = Mapping[str, str]  # input name -> TensorFlow dtype name

_INT32 = (-(2**31), 2**31 - 1)
_RANGES = {
    "int32": _INT32, "int16": _INT32, "int8": _INT32, "uint8": _INT32,
    "int64": (-(2**63), 2**63 - 1), "uint32": (0, 2**32 - 1), "uint64": (0, 2**64 - 1),
}  # fmt: skip


def explain_rows(instances: list[Any], inputs: Dtypes) -> ServingError:
    """The error for an `instances` list that the fast readers refused."""
    seen: dict[str, tuple[list[int], int]] = {}
    objects = is_row_object(instances[0])
    for i, element in enumerate(instances):
        problem = (_row_object if objects else _row_value)(i, element, inputs, seen)
        if problem is not None:
            return problem
    return _too_deep(inputs, seen)


def explain_column(value: Any, name: str, inputs: Dtypes) -> ServingError:
    """The error for one value of `inputs` that the fast readers refused."""
    try:
        shape, _ = _fill(value, inputs[name])
    except ServingError as error:
        return error
    return _too_deep(inputs, {name: (shape, 0)})


def is_row_object(value: Any) -> bool:
    """Whether an instance names its inputs (a b64 object is a value)."""
    return type(value) is dict and not is_base64_object(value)


def _row_object(i: int, element: Any, inputs: Dtypes, seen: dict[str, tuple[list[int], int]]) -> ServingError | None:
    if not is_row_object(element):
        return invalid(f"Expecting object but got list at item {i} of input list")
    for name, value in element.items():
        problem = _item(value, name, inputs, seen)
        if problem is not None:
            return _wrapped(f"{i} key: {name}", problem)
    if set(element) != set(inputs):
        wanted = ",".join(sorted(inputs))
        return invalid(
            f"Failed to process element: {i} of 'instances' list. JSON object: {quoted(element)} keys must be equal to:"
            f" {wanted}"
        )
    return None


def _row_value(i: int, element: Any, inputs: Dtypes, seen: dict[str, tuple[list[int], int]]) -> ServingError | None:
    if is_row_object(element):
        return invalid(f"Expecting value/list but got object at item {i} of input list")
    problem = _item(element, next(iter(inputs)), inputs, seen)
    return None if problem is None else _wrapped(str(i), problem)


def _wrapped(where: str, problem: ServingError) -> ServingError:
    return invalid(
        f"Failed to process element: {where} of 'instances' list. Error: {problem.code.name}: {problem.message}"
    )


def _item(value: Any, name: str, inputs: Dtypes, seen: dict[str, tuple[list[int], int]]) -> ServingError | None:
    """Checks one input of one instance, and that it has the size and shape of the first instance's."""
    if name not in inputs:
        return invalid(f"JSON object: does not have named input: {name}")
    try:
        shape, size = _fill(value, inputs[name])
    except ServingError as error:
        return error
    first_shape, first_size = seen.setdefault(name, (shape, size))
    if size != first_size:
        return invalid(f"Expecting tensor size: {first_size} but got: {size}")
    if shape != first_shape:
        return invalid(f"Expecting shape {_shown(first_shape)} but got: {_shown(shape)}")
    return None


def _fill(value: Any, dtype: str) -> tuple[list[int], int]:
    """(shape, number of values) of one tensor; raises ServingError for the first value, depth first, that is wrong."""
    shape = _dense_shape(value)
    count = 0
    stack: list[Iterator[Any]] = [iter((value,))]
    while stack:
        level = len(stack) - 1
        item = next(stack[-1], _END)
        if item is _END:
            stack.pop()
        elif type(item) is list:
            _check_list(item, level, shape)
            stack.append(iter(item))
        else:
            if level != len(shape):
                raise invalid(
                    f"JSON Value: {quoted(item)} found at incorrect level: {level + 1} in the JSON DOM. "
                    f"Expected at level: {len(shape)}"
                )
            _check_value(item, dtype)
            count += 1
    return shape, count


_END = object()


def _dense_shape(value: Any) -> list[int]:
    """The shape that the first elements suggest."""
    shape: list[int] = []
    while type(value) is list:
        shape.append(len(value))
        if not value:
            break
        value = value[0]
    return shape


def _check_list(item: list[Any], level: int, shape: list[int]) -> None:
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(item) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(item)} at level: {level} expected size: {shape[level]}"
        )


def _check_value(value: Any, dtype: str) -> None:
    if type(value) is dict:
        if dtype != "string":
            raise _type_error(value, dtype)
        if not is_base64_object(value):
            raise invalid(f"JSON Value: {quoted(value)} not formatted correctly for base64 data")
        if from_base64_object(value) is None:
            raise invalid("Unable to base64 decode")
    elif dtype not in READABLE:
        raise ServingError(Code.UNIMPLEMENTED, f"Conversion of JSON Value: {quoted(value)} to type: {dtype}")
    elif not _FITS[dtype](value):
        raise _type_error(value, dtype)


def _within(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_FITS: dict[str, Callable[[Any], bool]] = {
    "float": lambda value: type(value) in (int, float),
    "double": lambda value: type(value) in (int, float),
    "bool": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str,
    **{dtype: _within(*limits) for dtype, limits in _RANGES.items()},
}


def _type_error(value: Any, dtype: str) -> ServingError:
    return invalid(f"JSON Value: {quoted(value)} Type: {kind(value)} is not of expected type: {dtype}")


def _too_deep(inputs: Dtypes, seen: Mapping[str, tuple[list[int], int]]) -> ServingError:
    """Every value fits: then it is the rank that numpy cannot hold, which TensorFlow calls a parsing error too."""
    name = next((n for n, (shape, _) in seen.items() if len(shape) >= MAX_RANK), next(iter(inputs)))
    return invalid(f"tensor parsing error: {name}")


def _shown(shape: list[int]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"

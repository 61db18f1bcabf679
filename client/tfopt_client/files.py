"""Requests and answers in files: JSON bodies, JSON lines, .npy and .npz.

feeds = read_arrays(Path("x.npz"), names)        # {"x": array, ...}
feeds = arrays({"instances": [[1.0], [2.0]]}, signature_def)
"""

from __future__ import annotations

import base64
import io
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from tfopt_protos import dtypes

Array = np.ndarray[Any, Any]
ARRAYS = (".npy", ".npz")


class FileError(ValueError):
    """A file that is no request, or an answer that a file cannot hold; the text names the file or the field."""


def read_arrays(path: Path, names: Sequence[str]) -> dict[str, Array]:
    """The inputs in an .npz file by their names, or the one of an .npy file for the one input in `names`."""
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.ndarray):
            with found:
                return {name: _strings(_member(path, name, found[name])) for name in found.files}
    except FileError:
        raise
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:  # of members when they are read
        raise FileError(f"{path}: {error}") from error
    if len(names) != 1:
        raise FileError(f"{path}: an .npy file holds one input, expected {sorted(names)}; use .npz or --input_name")
    return {names[0]: _strings(found)}


def _member(path: Path, name: str, value: Any) -> Array:
    """numpy gives what is no array in an archive as bytes."""
    if not isinstance(value, np.ndarray):
        raise FileError(f"{path}: {name!r} is no .npy file")
    return value


def _strings(array: Array) -> Array:
    """numpy's texts and bytes of fixed length as what a string tensor holds."""
    if array.dtype.kind not in "SU":
        return array
    made = np.empty(array.size, object)
    made[:] = [v.encode() if isinstance(v, str) else v for v in array.ravel().tolist()]
    return made.reshape(array.shape)


def write_arrays(path: Path, outputs: Mapping[str, Array]) -> None:
    """An .npz file with every output, or an .npy file with the only one. Strings become numpy's bytes, and what numpy's
    files have no name for (bfloat16, float8, int4) the float32 of the same value."""
    plain: dict[str, Any] = {name: _storable(path, name, array) for name, array in outputs.items()}
    if path.suffix == ".npy":
        if len(plain) != 1:
            raise FileError(f"{path}: an .npy file holds one output, received {sorted(plain)}; use .npz or --outputs")
        np.save(path, next(iter(plain.values())), allow_pickle=False)
        return
    data = io.BytesIO()
    np.savez(data, **plain)
    path.write_bytes(data.getvalue())


def _storable(path: Path, name: str, array: Array) -> Array:
    if array.dtype.kind == "V":
        return array.astype(np.float32)
    if array.dtype != object:
        return array
    if any(value.endswith(b"\0") for value in array.ravel()):
        raise FileError(f"{path}: output {name!r} has strings that end with a zero byte, which numpy drops; use .json")
    return array.astype("S") if array.size else array.astype("S1")


def as_json(outputs: Mapping[str, Array]) -> bytes:
    """`{"outputs": {name: lists}}`; bytes that are no UTF-8, and those of names ending in _bytes, as b64 objects.
    What is not finite is null, as in every JSON."""
    return orjson.dumps({"outputs": listed(outputs)})


def listed(outputs: Mapping[str, Array]) -> dict[str, Any]:
    """The outputs as JSON has them, by name."""
    return {name: _listed(array, name.endswith("_bytes")) for name, array in outputs.items()}


def _listed(array: Array, binary: bool) -> Any:
    if array.dtype != object:
        return array.astype("float32").tolist() if array.dtype.kind == "V" else array.tolist()
    if array.ndim:
        return [_listed(np.asarray(each, object), binary) for each in array]
    value = array.item()
    try:
        return {"b64": base64.b64encode(value).decode()} if binary else value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def arrays(document: Any, signature: Any) -> dict[str, Array]:
    """The tensors of a REST predict body, in the dtypes of the tensorflow.SignatureDef. FileError names the field."""
    wanted = {name: dtypes.name(info.dtype) for name, info in signature.inputs.items()}
    if not isinstance(document, dict) or ("instances" in document) == ("inputs" in document):
        raise FileError("expected an object with either 'instances' or 'inputs'")
    content = document["instances"] if "instances" in document else document["inputs"]
    if "instances" in document:
        content = _columns(content)
    if not isinstance(content, dict) or set(content) == {"b64"}:
        if len(wanted) != 1:
            raise FileError(f"expected a value for each input of {sorted(wanted)}, received a plain one")
        content = {next(iter(wanted)): content}
    unknown = sorted(set(content) - set(wanted))
    if unknown:
        raise FileError(f"expected inputs of {sorted(wanted)}, received {unknown[0]!r}")
    return {name: _array(name, value, wanted[name]) for name, value in content.items()}


def _columns(instances: Any) -> Any:
    if not isinstance(instances, list) or not instances:
        raise FileError("expected 'instances' to be a list of at least one")
    rows = [isinstance(each, dict) and set(each) != {"b64"} for each in instances]
    if not any(rows):
        return instances
    if not all(rows) or any(set(each) != set(instances[0]) for each in instances):
        raise FileError("expected every instance to be an object with the same names")
    return {name: [each[name] for each in instances] for name in instances[0]}


def _array(name: str, value: Any, dtype: str) -> Array:
    try:
        if dtype != "string":
            return np.array(value, dtypes.to_numpy(dtype))
        shape = _shape(value)
        flat: list[bytes] = []
        _flatten(value, flat)
        made = np.empty(len(flat), object)
        made[:] = flat
        return made.reshape(shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise FileError(f"input {name!r} is no tensor of {dtype}: {error}") from error


def _shape(value: Any) -> tuple[int, ...]:
    if not isinstance(value, list):
        return ()
    return (len(value), *(_shape(value[0]) if value else ()))


def _flatten(value: Any, into: list[bytes]) -> None:
    if isinstance(value, list):
        for each in value:
            _flatten(each, into)
    elif isinstance(value, dict) and set(value) == {"b64"}:
        into.append(base64.b64decode(value["b64"], validate=True))
    elif isinstance(value, str):
        into.append(value.encode())
    else:
        raise TypeError(f"expected a string or a b64 object, received {value!r}"[:120])

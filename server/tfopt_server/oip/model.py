"""Models as the Open Inference Protocol sees them: a name, perhaps a version, and one list of inputs and outputs.

A SavedModel has several signatures, the protocol one: `serving_default`, else the only one there is. A request asks for
another by its parameter `signature_name`. A version is a number, or one of our labels.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from importlib import metadata as packages
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tfopt_protos import tensors

from tfopt_server.dataplane import DEFAULT_SIGNATURE, Dataplane, ModelSpec
from tfopt_server.errors import Code, ServingError, invalid, not_found
from tfopt_server.lifecycle import State
from tfopt_server.oip import datatypes
from tfopt_server.registry import Handle

if TYPE_CHECKING:
    from tfopt_optimizer.plan import SignatureInfo, TensorInfo

Array = npt.NDArray[Any]

PLATFORM = "tensorflow_savedmodel"
EXTENSIONS = ("binary_tensor_data", "model_repository")
SIGNATURE = "signature_name"
# Parameters of extensions that are not served: to ignore them would change what the client asked for.
_REFUSED = {
    "sequence_id": "sequences", "sequence_start": "sequences", "sequence_end": "sequences",
    "shared_memory_region": "shared memory", "shared_memory_offset": "shared memory",
    "shared_memory_byte_size": "shared memory", "classification": "classification",
}  # fmt: skip
_STATES = {
    State.START: "LOADING", State.LOADING: "LOADING", State.AVAILABLE: "READY", State.UNLOADING: "UNLOADING",
    State.END: "UNAVAILABLE",
}  # fmt: skip
_INT64_MAX = 2**63 - 1


class Tensor(NamedTuple):
    """A line of a model's metadata; -1 in `shape` for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Metadata(NamedTuple):
    name: str
    versions: tuple[str, ...]
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]


class Indexed(NamedTuple):
    name: str
    version: str
    state: str
    reason: str


def server_version() -> str:
    """Ours, "0" where the code runs without having been installed."""
    try:
        return packages.version("tfopt")
    except packages.PackageNotFoundError:
        return "0"


def spec(name: str, version: str) -> ModelSpec:
    """`version` "": the newest that serves; digits: that number; else a label."""
    if not version:
        return ModelSpec(name)
    if version.isascii() and version.isdigit():
        if int(version) > _INT64_MAX:
            raise invalid(f"version: expected a number up to {_INT64_MAX} or a label, received {version[:40]!r}")
        return ModelSpec(name, version=int(version))
    return ModelSpec(name, label=version)


def signature(plane: Dataplane, handle: Handle, parameters: Mapping[str, Any]) -> tuple[str, SignatureInfo]:
    """The key and the signature that a request's parameters ask for."""
    wanted = parameters.get(SIGNATURE, "")
    if type(wanted) is not str:
        raise invalid(f"parameters.{SIGNATURE}: expected a string, received {wanted!r}")
    key = wanted or default_key(plane.metadata(handle))
    found = plane.signature(handle, key)
    if found is None:
        known = ", ".join(sorted(plane.metadata(handle)))
        raise invalid(f"parameters.{SIGNATURE}: expected one of {known}; received {key!r}")
    return key, found


def default_key(signatures: Collection[str]) -> str:
    if DEFAULT_SIGNATURE in signatures or len(signatures) != 1:
        return DEFAULT_SIGNATURE
    return next(iter(signatures))


def refuse_extensions(parameters: Mapping[str, Any], where: str) -> None:
    """UNIMPLEMENTED for what a client must not believe to be served. Zeros and "" are how clients leave it out."""
    for name, value in parameters.items():
        extension = _REFUSED.get(name)
        if extension is not None and value:
            raise ServingError(
                Code.UNIMPLEMENTED, f"{where}.parameters.{name}: the extension for {extension} is not served"
            )


def completed(feeds: dict[str, Array], signature: SignatureInfo, defaults: Mapping[str, Any]) -> dict[str, Array]:
    """`feeds` in the signature's order, with defaults for what was left out. INVALID_ARGUMENT for other names."""
    known = {i.name: i for i in signature.inputs}
    if unknown := [name for name in feeds if name not in known]:
        raise invalid(f"inputs: expected {_listed(known)}; received {_listed(unknown)}, which signature "
                      f"{signature.key} lacks")  # fmt: skip
    missing = [name for name in known if name not in feeds and name not in signature.defaults]
    if missing:
        raise invalid(f"inputs: expected {_listed(known)}; missing: {_listed(missing)}")
    return {n: feeds[n] if n in feeds else np.asarray(tensors.to_numpy(defaults[n])) for n in known}


def input_of(signature: SignatureInfo, name: Any) -> TensorInfo:
    for each in signature.inputs:
        if each.name == name:
            return each
    raise invalid(f"inputs: expected {_listed([i.name for i in signature.inputs])}; received {name!r}, which signature "
                  f"{signature.key} lacks")  # fmt: skip


def outputs(names: Sequence[str], signature: SignatureInfo) -> tuple[str, ...] | None:
    """The outputs to run; None for all of them, where a request names none."""
    known = [o.name for o in signature.outputs]
    for i, name in enumerate(names):
        if name not in known:
            raise invalid(f"outputs: expected some of {_listed(known)}; received {name!r}")
        if name in names[:i]:
            raise invalid(f"outputs: expected each name once; received {name!r} again")
    return tuple(names) or None


def metadata(plane: Dataplane, asked: ModelSpec) -> Metadata:
    with plane.resolve(asked) as handle:
        key = default_key(plane.metadata(handle))
        found = plane.signature(handle, key)
        if found is None:
            known = ", ".join(sorted(plane.metadata(handle)))
            raise not_found(
                f"model {asked.name} has no signature {DEFAULT_SIGNATURE} to describe; requests name one of: {known} "
                f"(parameters.{SIGNATURE})"
            )
    versions = sorted(v.version for v in plane.status(asked.name) if v.state is State.AVAILABLE)
    return Metadata(
        asked.name,
        tuple(map(str, versions)),
        tuple(map(_tensor, found.inputs)),
        tuple(map(_tensor, found.outputs)),
    )


def _tensor(info: TensorInfo) -> Tensor:
    """A shape of unknown rank is [-1], which is the nearest that the protocol can say."""
    shape = (-1,) if info.shape is None else tuple(-1 if size is None else size for size in info.shape)
    return Tensor(info.name, datatypes.name(info.dtype), shape)


def is_ready(plane: Dataplane, asked: ModelSpec) -> bool:
    try:
        plane.resolve(asked).release()
    except ServingError:
        return False
    return True


def index(plane: Dataplane, ready: bool) -> list[Indexed]:
    """Every version of every model that is configured; with `ready` only those that serve."""
    found: list[Indexed] = []
    for name in plane.names():
        try:
            statuses = plane.status(name)
        except ServingError:
            statuses = ()
            if not ready:
                found.append(Indexed(name, "", "UNAVAILABLE", "no version was found"))
        found += [Indexed(name, str(s.version), _STATES[s.state], s.message) for s in statuses]
    return [each for each in found if each.state == "READY"] if ready else found


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"

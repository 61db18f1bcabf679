"""TensorFlow Serving's --model_config_file: which models to serve, which of their versions, under which labels.

    model_config_list { config { name: "m" base_path: "/models/m" model_platform: "tensorflow"
                                 model_version_policy { latest { num_versions: 2 } }
                                 version_labels { key: "stable" value: 1 } } }

Read when the server starts, and again where that was asked for (reloading.py).
Rules and texts: server_core.cc and model_server_config.proto.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tfopt_server import uris
from tfopt_server.lifecycle import All, Latest, Policy, Specific
from tfopt_server.loading import ModelConfig
from tfopt_server.uris import Uri

log = logging.getLogger(__name__)

PLATFORM = "tensorflow"
_TYPE_TENSORFLOW = 1  # ModelType, which model_platform replaced


class ModelConfigError(ValueError):
    """A file that cannot be served. `problems` holds one text for the operator per thing that is wrong."""

    def __init__(self, where: str, problems: Sequence[str]) -> None:
        super().__init__(f"{where}: " + "; ".join(problems))
        self.problems = tuple(problems)


@dataclass(frozen=True)
class Models:
    """`labels`: version by label, by model."""

    configs: tuple[ModelConfig, ...]
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


def read(path: Path, labels_ahead: bool = False) -> Models:
    """Reads a text file. `labels_ahead`: labels may point at versions that are not available yet
    (--allow_version_labels_for_unavailable_models), as all are when the server starts.

    ModelConfigError names the file and everything that is wrong with it.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelConfigError(str(path), [f"cannot be read: {error}"]) from error
    return parse(text, str(path), labels_ahead)


def parse(text: str, where: str = "model config", labels_ahead: bool = False) -> Models:
    """As `read`, from protobuf text."""
    from google.protobuf import text_format
    from tfopt_protos import messages

    try:
        proto = messages.from_text("tensorflow.serving.ModelServerConfig", text)
    except text_format.ParseError as error:
        raise ModelConfigError(where, [f"not a ModelServerConfig text: {error}"]) from error
    return from_proto(proto, where, labels_ahead)


def from_bytes(data: bytes) -> Models:
    """A serialized ModelServerConfig that `from_proto` has taken before."""
    from tfopt_protos import messages

    proto = messages.message("tensorflow.serving.ModelServerConfig").FromString(data)
    return from_proto(proto, "config", labels_ahead=True)


def from_proto(proto: Any, where: str, labels_ahead: bool) -> Models:
    """As `read`, from the message."""
    if proto.WhichOneof("config") != "model_config_list":
        found = proto.WhichOneof("config") or "nothing"
        raise ModelConfigError(where, [f"expected a model_config_list, received {found}"])
    listed = proto.model_config_list.config
    problems = _twice([each.name for each in listed])
    problems += [problem for each in listed for problem in _problems(each, labels_ahead)]
    if problems:
        raise ModelConfigError(where, problems)
    for each in listed:
        if each.HasField("logging_config"):
            log.info("model %s: logging_config has no effect here: requests are not logged to files", each.name)
    labels = {each.name: dict(each.version_labels) for each in listed if each.version_labels}
    return Models(tuple(_config(each) for each in listed), labels)


def to_proto(models: Models) -> Any:
    """A ModelServerConfig message that `from_proto` reads as these models."""
    from tfopt_protos import messages

    proto = messages.message("tensorflow.serving.ModelServerConfig")()
    proto.model_config_list.SetInParent()
    for config in models.configs:
        each = proto.model_config_list.config.add(
            name=config.name, base_path=str(config.base_path), model_platform=PLATFORM
        )
        each.version_labels.update(models.labels.get(config.name, {}))
        policy = each.model_version_policy
        if isinstance(config.policy, All):
            policy.all.SetInParent()
        elif isinstance(config.policy, Specific):
            policy.specific.versions.extend(sorted(config.policy.versions))
        else:
            policy.latest.num_versions = config.policy.number
    return proto


def _config(proto: Any) -> ModelConfig:
    return ModelConfig(proto.name, base_path_of(proto.base_path), _policy(proto.model_version_policy))


def base_path_of(path: str) -> Path | Uri:
    """The place of a model. ValueError for a URI that names none."""
    return uris.parse(path) if uris.is_uri(path) else Path(path.removeprefix("file://"))


def _policy(proto: Any) -> Policy:
    kind = proto.WhichOneof("policy_choice")
    if kind == "all":
        return All()
    if kind == "specific":
        return Specific(frozenset(proto.specific.versions))
    return Latest(proto.latest.num_versions or 1)


def _twice(names: Sequence[str]) -> list[str]:
    seen = dict.fromkeys(name for i, name in enumerate(names) if name in names[:i])
    return [f"Illegal to list model {name} multiple times in config list" for name in seen]


def _problems(proto: Any, labels_ahead: bool) -> list[str]:
    name, path = proto.name, proto.base_path.removeprefix("file://")
    found = []
    if not name or "/" in name:
        found.append(f"expected a name without slashes, received {name!r}")
    if uris.is_uri(path):
        try:
            uris.parse(path)
        except ValueError as error:
            found.append(f"model {name}: {error}")
    elif not Path(path).is_absolute():
        found.append(f"Expected model {name} to have an absolute path or URI; got base_path()={proto.base_path}")
    if proto.model_platform and proto.model_type:
        found.append(f"model {name}: expected model_platform or model_type, received both")
    elif proto.model_platform not in ("", PLATFORM):
        found.append(f"Model {name} requests unsupported platform {proto.model_platform}")
    elif not proto.model_platform and proto.model_type != _TYPE_TENSORFLOW:
        found.append(f'model {name}: expected model_platform: "{PLATFORM}", received nothing')
    specific = proto.model_version_policy
    if specific.WhichOneof("policy_choice") == "specific" and not specific.specific.versions:
        found.append(f"model {name}: expected versions in the specific policy, received none")
    if not labels_ahead:
        found += [
            f"Request to assign label to version {version} of model {name}, which is not currently available for "
            f"inference; expected --allow_version_labels_for_unavailable_models for label {label!r}"
            for label, version in sorted(proto.version_labels.items())
        ]
    return found

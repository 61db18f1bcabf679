"""Checks of versions: was the model written by a TensorFlow that this one can read."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tfopt_optimizer.doctor.findings import SERVING, TENSORFLOW, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient

_OLD = 2  # major version before which graphs need the TF1 loader


def skew(model: Patient) -> Iterator[Found]:
    versions = model.graph.meta_graph.graph_def.versions
    own, here = str(model.meta.tensorflow_version), model.registry
    if versions.min_consumer > here.graph_def_version:
        yield error(
            f"the graph asks for a runtime of GraphDef version {versions.min_consumer} or newer, this one has "
            f"{here.graph_def_version}"
        )
    theirs, ours = _number(own), _number(here.version)
    if theirs and ours and theirs > ours:
        yield warning(f"written by TensorFlow {own}, served by {here.version}: newer operations may be missing")
    elif theirs and theirs[0] < _OLD:
        yield info(f"written by TensorFlow {own}")


def _number(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def several_graphs(model: Patient) -> Iterator[Found]:
    if len(model.tag_sets) > 1:
        yield info("several graphs in one SavedModel", ["{" + ", ".join(sorted(s)) + "}" for s in model.tag_sets])


CHECKS = (
    Check(
        "version-skew",
        "Export with the TensorFlow version that serves, or an older one of the same major version.",
        TENSORFLOW,
        skew,
    ),
    Check(
        "several-graphs",
        "Nothing must be done; --saved_model_tags chooses between them, and each one makes the file longer.",
        SERVING,
        several_graphs,
    ),
)

"""What the doctor says: findings with evidence and a remedy, and the checks that make them."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable

from tfopt_optimizer.doctor.patient import Patient

# Where a rule comes from.
VERTEX = "Vertex AI, exporting models for online prediction"
SERVING = "TensorFlow Serving"
TENSORFLOW = "TensorFlow, SavedModel"
HERE = "tfopt"


class Severity(enum.StrEnum):
    """ERROR: it cannot serve, or not as its clients expect. WARNING: it serves, at a cost. INFO: good to know."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


@dataclasses.dataclass(frozen=True)
class Found:
    """What a check saw in one model. `evidence` names the tensors, nodes, files; all of them."""

    severity: Severity
    finding: str
    evidence: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Check:
    """`name` is its handle in reports and docs/doctor.md; `remedy` says what to do, `source` whose rule it is."""

    name: str
    remedy: str
    source: str
    run: Callable[[Patient], Iterable[Found]]


@dataclasses.dataclass(frozen=True)
class Finding:
    check: str
    severity: Severity
    finding: str
    evidence: tuple[str, ...]
    remedy: str
    source: str


def error(finding: str, evidence: Iterable[str] = ()) -> Found:
    return Found(Severity.ERROR, finding, tuple(evidence))


def warning(finding: str, evidence: Iterable[str] = ()) -> Found:
    return Found(Severity.WARNING, finding, tuple(evidence))


def info(finding: str, evidence: Iterable[str] = ()) -> Found:
    return Found(Severity.INFO, finding, tuple(evidence))

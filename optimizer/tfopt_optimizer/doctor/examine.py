"""Runs every check on one SavedModel: `for finding in examine(read(folder)): ...`. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Sequence

from tfopt_optimizer.doctor import files, operations, signatures, training, variables, versions, warmup
from tfopt_optimizer.doctor.findings import Check, Finding, Severity
from tfopt_optimizer.doctor.patient import Patient

CHECKS: tuple[Check, ...] = (
    *signatures.CHECKS,
    *files.CHECKS,
    *training.CHECKS,
    *operations.CHECKS,
    *variables.CHECKS,
    *versions.CHECKS,
    *warmup.CHECKS,
)
_ORDER = tuple(Severity)


def examine(model: Patient, checks: Sequence[Check] = CHECKS) -> tuple[Finding, ...]:
    """What the checks found: errors first, then warnings, then the rest, each in the order of the checks."""
    found = [
        Finding(check.name, one.severity, one.finding, one.evidence, check.remedy, check.source)
        for check in checks
        for one in check.run(model)
    ]
    return tuple(sorted(found, key=lambda f: _ORDER.index(f.severity)))


def exit_status(findings: Sequence[Finding], strict: bool) -> int:
    """0: nothing that must be mended; 1: errors, or with `strict` warnings."""
    bad = (Severity.ERROR, Severity.WARNING) if strict else (Severity.ERROR,)
    return int(any(f.severity in bad for f in findings))

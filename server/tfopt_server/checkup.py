"""The doctor on one version: what the optimizer knows of SavedModels, and the warmup package of records."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfopt_optimizer.doctor.findings import Finding
    from tfopt_optimizer.doctor.patient import Warmup

log = logging.getLogger(__name__)

TIMEOUT_S = 120.0  # it takes a second; a disk that answers slower than this is not worth waiting for
_NAMED = 3  # pieces of evidence in a line of the log


def examine(folder: Path, tags: Sequence[str]) -> tuple[Finding, ...]:
    """All findings, the worst first. SavedModelError or OSError when the folder cannot be read."""
    from tfopt_optimizer.doctor import examine as doctor
    from tfopt_optimizer.doctor import patient

    return doctor.examine(patient.read(folder, tags, _warmup(folder)))


def _warmup(folder: Path) -> Warmup | None:
    from tfopt_optimizer.doctor.patient import Warmup
    from tfopt_warmup import records

    path = records.path_in(folder)
    if not path.exists():
        return None
    runs: list[tuple[str, frozenset[str]]] = []
    count, problem = 0, ""
    try:
        for record in records.read(path):
            count += 1
            runs += [(run.signature, frozenset(run.feeds)) for run in record.runs]
    except records.WarmupError as error:
        problem = str(error)
    return Warmup(count, problem, tuple(runs))


def claim(run_dir: Path | None, folder: Path) -> bool:
    """Whether this worker, of those that share `run_dir`, is the one to examine the folder as it is now."""
    if run_dir is None:
        return True
    try:
        stamps = [path.stat().st_mtime_ns for path in sorted(folder.glob("saved_model.pb*"))]
        mark = hashlib.sha256(f"{folder} {stamps}".encode()).hexdigest()[:16]
        (run_dir / f"doctor-{mark}").touch(exist_ok=False)
    except FileExistsError:
        return False
    except OSError:
        return True  # a line twice is better than none
    return True


def log_in_background(folder: Path, tags: Sequence[str], extra: Mapping[str, Any]) -> threading.Thread:
    """Errors and warnings as lines of the log, some time later: a process of its own looks, so no request waits.

    Whatever goes wrong there is a line at most; the model serves already.
    """
    thread = threading.Thread(target=_log, args=(folder, tuple(tags), dict(extra)), name="tfopt-doctor", daemon=True)
    thread.start()
    return thread


def _log(folder: Path, tags: Sequence[str], extra: Mapping[str, Any]) -> None:
    polite = ["nice", "-n", "19"] if shutil.which("nice") else []  # the first requests are coming
    command = [
        *polite,
        sys.executable,
        "-m",
        "tfopt_server",
        "doctor",
        str(folder),
        "--json",
        f"--saved_model_tags={','.join(tags)}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, timeout=TIMEOUT_S, check=False, stdin=subprocess.DEVNULL)
        findings = json.loads(done.stdout)["findings"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        log.info("the doctor could not look at %s: %s", folder, error, extra=dict(extra))
        return
    for finding in findings:
        if finding["severity"] != "info":
            level = logging.WARNING if finding["severity"] == "error" else logging.INFO
            log.log(level, "doctor: %s", line(finding), extra=dict(extra))


def line(finding: Mapping[str, Any]) -> str:
    """One finding as one line: `warning size: the model is 620 MB, more than 500 MB (a; b; c and 2 more)`."""
    evidence = list(finding["evidence"])
    named = "; ".join(evidence[:_NAMED]) + (f" and {len(evidence) - _NAMED} more" if len(evidence) > _NAMED else "")
    return f"{finding['severity']} {finding['check']}: {finding['finding']}" + (f" ({named})" if named else "")

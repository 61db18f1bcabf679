"""Whether a plan that was made elsewhere may run here: what its engines need, against what is installed. Pure.

A plan that lies in a cache is asked for by its whole fingerprint; one that travels with a model, or that was made in a
build stage of an image, is for fewer things than were there when it was made. Its winners' engines count in their
exact versions, because it was on them that it was found right; TensorFlow only where it is one of them; Python, numpy
and the losers not at all. Compiled and tuned code needs the instruction sets that it was made with.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.likely import HOST
from tfopt_optimizer.plan import BucketPlan, Fingerprint, Plan, SignaturePlan, runs_tensorflow

TENSORFLOW = "tensorflow"
# Distributions that hold the same package: whichever is installed, its version counts.
_SAME = {TENSORFLOW: ("tensorflow-cpu", "tensorflow")}
_NEEDED = {
    "litert": "ai-edge-litert",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "tensorflow": TENSORFLOW,
    "xla": "jaxlib",
}
_INSIDE_TENSORFLOW = ("xla", "jit")
# How hard and how widely was searched changes how good a plan is, not what it is valid for. The wider ones bind only
# a server that says them itself.
_EFFORT = ("optimize_budget_s", "candidate_timeout_s")
_WIDTH = ("engines", "without_tensorflow")
# How many threads the candidates were measured with is like the processor: another plan may be better, none is wrong.
_THREADS = ("intra_op_threads", "inter_op_threads")


def needs(plan: Plan) -> tuple[str, ...]:
    """The packages that the chosen runners load, sorted; "tfopt" where its own code computes part of the answer."""
    return tuple(sorted({name for s in plan.signatures for b in s.buckets for name in _needs(b, s)}))


def _needs(bucket: BucketPlan, signature: SignaturePlan) -> set[str]:
    inner = bucket.engine.removeprefix(HOST)
    found = {TENSORFLOW} if runs_tensorflow(signature, bucket) else set()
    if (inner, bucket.variant) != _INSIDE_TENSORFLOW:
        found.add(_NEEDED.get(inner, inner))
    return found | ({"tfopt"} if inner != bucket.engine else set())


def version(package: str, versions: Mapping[str, str]) -> str:
    """Of a package in a fingerprint's versions, "" when it was not installed."""
    return next((versions[name] for name in _SAME.get(package, (package,)) if name in versions), "")


def unfit(plan: Plan, here: Fingerprint, *, replaceable: bool) -> list[str]:
    """Why the plan cannot be used here, [] when it can.

    `here` is the fingerprint that a plan made here would have; `replaceable`: one could be made, so that a plan that
    was measured on another processor, or with other threads, is not good enough.
    """
    made, found = plan.fingerprint, list[str]()
    if made.model != here.model:
        found.append(f"model: {made.model} != {here.model}")
    found += [text for name, text in _flags(made.flags, here.flags).items() if replaceable or name not in _THREADS]
    if made.versions.get("proof") != here.versions.get("proof"):
        found.append("its rows were proven independent in another way; make it anew")
    for package in needs(plan):
        then, now = version(package, made.versions), version(package, here.versions)
        if not now:
            found.append(f"it needs {package} {then}, which is not installed")
        elif then != now:
            found.append(f"versions.{package}: {then} != {now}")
    return found + (_hardware(made, here) if replaceable else _missing(made.hardware, here.hardware))


def elsewhere(plan: Plan, here: Fingerprint) -> str:
    """What was another way where the plan's candidates were measured, "" when nothing was."""
    threads = [text for name, text in _flags(plan.fingerprint.flags, here.flags).items() if name in _THREADS]
    return "; ".join([*_hardware(plan.fingerprint, here), *threads])


def _hardware(made: Fingerprint, here: Fingerprint) -> list[str]:
    return Fingerprint("", "", {}, made.hardware).differences(Fingerprint("", "", {}, here.hardware))


def _missing(made: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    if made.get("machine") != here.get("machine"):
        return [f"hardware.machine: {made.get('machine')} != {here.get('machine')}"]
    if "features" not in made:
        return ["it does not say which instruction sets it was made with"]
    lacking = set(made["features"].split()) - set(here.get("features", "").split())
    return [f"this processor lacks {' '.join(sorted(lacking))}"] if lacking else []


def _flags(made: str, here: str) -> dict[str, str]:
    """Each flag that differs, by name, apart from those that only say how to search, as far as `here` leaves them open.

    A flag that one of them does not know yet has its default there.
    """
    usual = json.loads(json.dumps(dataclasses.asdict(OptimizerFlags())))
    try:
        then: dict[str, Any] = {**usual, **json.loads(made)}
        now: dict[str, Any] = {**usual, **json.loads(here)}
    except ValueError:
        return {} if made == here else {"flags": f"flags: {made} != {here}"}
    free = {*_EFFORT, *(name for name in _WIDTH if not now[name])}
    names = sorted((set(then) | set(now)) - free)
    return {n: f"flags.{n}: {then.get(n)} != {now.get(n)}" for n in names if then.get(n) != now.get(n)}

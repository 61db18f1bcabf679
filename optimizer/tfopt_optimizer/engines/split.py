"""The engines "host+litert", "host+openvino", ...: a signature cut in two, its device segments on the engine named.

A signature's cut lies in `s0/split` while plans are made: the program and a SavedModel per device segment. Each engine
that takes part copies the program to a folder of its own, `s0/split-litert`, and keeps its forms of the segments below:
`s0/split-litert/d1/s/...`, as if `d1` were a plan and `s` its signature. `ready-<digest>.json` says for a bucket which
of these files its runner needs. Engines have their own rules in their files; split_convert.py makes the cut.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tfopt_protos import dtypes

from tfopt_optimizer.engines import calibration, table
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.errors import Declined, NeedsConversion, NotLowerable
from tfopt_optimizer.plan import BucketPlan
from tfopt_optimizer.split import program
from tfopt_optimizer.split.program import Program, Stage
from tfopt_optimizer.split.runner import Host, Shapes, SplitRunner

PREFIX = table.HOST
CUT = "split"


def own_folder(target: Target) -> str:
    """Where this engine's form of the target's signature lies, relative to the plan: "s0/split-litert"."""
    return f"{Path(target.folder).parent.as_posix()}/{CUT}-{inner(target)}"


def cut_folder(target: Target) -> str:
    return f"{Path(target.folder).parent.as_posix()}/{CUT}"


def inner(target: Target) -> str:
    return target.engine.removeprefix(PREFIX)


def device_shapes(host: Host, stage: Stage, target: Target, plan_dir: Path) -> Shapes:
    """The static shapes of a device segment's inputs for the target's. NotLowerable when only a request can tell."""
    assert stage.signature is not None
    assert target.shapes is not None
    group = program.key(target.shapes, rows=target.rows is not None)
    seen = host.program.exact.get(group, {}).get(stage.folder, {})
    found: Shapes = {}
    for tensor in stage.signature.inputs:
        shape = program.filled(seen.get(tensor.name, tensor.shape), target.rows)
        if shape is None:
            return _tried(host, stage, target, plan_dir)
        found[tensor.name] = shape
    return found


def _tried(host: Host, stage: Stage, target: Target, plan_dir: Path) -> Shapes:
    """By running what comes before on a record of these shapes; on zeros and empty strings where there is none."""
    assert target.shapes is not None
    if stage is not host.program.devices[0]:
        raise NotLowerable("the shapes of its later device segments are known only at run time")
    types = {t.name: dtypes.to_numpy(t.dtype) for t in target.signature.inputs}
    blank = {
        n: np.full((1,) * len(s), b"" if types[n] == np.object_ else 0, types[n]) for n, s in target.shapes.items()
    }
    samples = calibration.samples(plan_dir / Path(target.folder).parent)
    feeds = calibration.resized(samples[0] if samples else blank, target.shapes)
    tensors = {**host.constants, **{tensor: feeds[name] for name, tensor in host.program.inputs.items()}}
    try:
        for earlier in host.program.stages[: host.program.stages.index(stage)]:
            host.host_stage(earlier, tensors)
        return {name: array.shape for name, array in host.device_feeds(stage, tensors).items()}
    except Declined as error:
        raise NotLowerable(f"the shapes of its device segment are not known: {error.message}") from error


def segment_target(stage: Stage, target: Target, shapes: Shapes, folder: str) -> Target:
    assert stage.signature is not None
    return Target(stage.signature, target.variant, shapes, folder, target.rows, inner(target))


def ready_name(variant: str, shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Of the file that says what a bucket's runner needs."""
    key = json.dumps([variant, sorted(shapes.items())])
    return f"ready-{hashlib.sha256(key.encode()).hexdigest()[:12]}.json"


def ready_file(folder: Path, target: Target) -> Path:
    assert target.shapes is not None
    return folder / ready_name(target.variant, target.shapes)


class Hosts:
    """The host sides of a plan's split signatures: tables are in memory once."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._hosts: dict[str, Host] = {}

    def get(self, folder: str) -> Host:
        """OSError or ValueError when its files are not there or damaged."""
        if folder not in self._hosts:
            path = self._place.plan_dir / folder
            self._hosts[folder] = Host(program.read(path), path, self._place)
        return self._hosts[folder]


class Opener:
    """Opens the runners of a finished plan."""

    def __init__(self, place: Place, load_tensorflow: Callable[[], Any]) -> None:
        self._place, self._load = place, load_tensorflow
        self._hosts = Hosts(place)
        self._openers: dict[tuple[str, str], Any] = {}

    def runner(self, target: Target, note: Callable[[str], None]) -> Runner:
        """`target.folder` is the plan's artifact."""
        host, folder = self._hosts.get(target.folder), self._place.plan_dir / target.folder
        ready = json.loads(ready_file(folder, target).read_text())
        devices = {}
        for stage in host.program.devices:
            entry = ready[stage.folder]
            shapes = {name: tuple(shape) for name, shape in entry["shapes"].items()}
            opener = self._opener(target, stage)
            devices[stage.folder] = (
                opener.runner(segment_target(stage, target, shapes, entry["artifact"]), note),
                shapes,
            )
        return SplitRunner(host, devices)

    def _opener(self, target: Target, stage: Stage) -> Any:
        key = (target.folder, stage.folder)
        if key not in self._openers:
            place = dataclasses.replace(self._place, plan_dir=self._place.plan_dir / target.folder / stage.folder)
            self._openers[key] = table.opener(inner(target), target.variant)(place, self._load)
        return self._openers[key]


class Segments:
    """Workers or converters of device segments, one per signature, segment and engine."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._opened: dict[tuple[str, str, str], Any] = {}

    def get(self, path: str, target: Target, stage: Stage) -> Any:
        key = (path, own_folder(target), stage.folder)
        if key not in self._opened:
            module, _, name = path.partition(":")
            found = getattr(importlib.import_module(module), name)()
            folder = self._place.plan_dir / own_folder(target) / stage.folder
            folder.mkdir(parents=True, exist_ok=True)
            model = self._place.plan_dir / cut_folder(target) / stage.folder
            found.open(dataclasses.replace(self._place, model_dir=model, plan_dir=folder, tags=("serve",), cut=True))
            self._opened[key] = found
        return self._opened[key]


class Worker:
    """Split signatures in a worker process of the optimizer, on whichever engine a target names."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._hosts, self._segments = place, Hosts(place), Segments(place)
        self._runners: dict[tuple[str, str, str], Runner] = {}
        return {"host": ""}

    def prepare(self, target: Target) -> Prepared:
        own = self._place.plan_dir / own_folder(target)
        if not (own / program.FILE_NAME).exists():
            raise NeedsConversion("the signature is not cut yet")
        host = self._hosts.get(own_folder(target))
        compile_s, memory, devices, ready = 0.0, 0, {}, {}
        for stage in host.program.devices:
            shapes = device_shapes(host, stage, target, self._place.plan_dir)
            wanted = segment_target(stage, target, shapes, f"s/{Path(target.folder).name}")
            worker = self._segments.get(table.worker(inner(target), target.variant), target, stage)
            prepared = worker.prepare(wanted)
            devices[stage.folder] = (worker.runner(wanted), shapes)
            ready[stage.folder] = {"artifact": prepared.artifact, "shapes": shapes}
            compile_s, memory = compile_s + (prepared.compile_s or 0.0), memory + (prepared.memory_bytes or 0)
        ready_file(own, target).write_text(json.dumps(ready))
        self._runners[self._key(target)] = SplitRunner(host, devices)
        size = artifact_bytes(own, ready)
        return Prepared(compile_s, memory, own_folder(target), size, tensorflow=host.program.needs_tensorflow)

    def _key(self, target: Target) -> tuple[str, str, str]:
        return target.folder, target.engine, target.variant

    def runner(self, target: Target) -> Runner:
        return self._runners[self._key(target)]

    def release(self, target: Target) -> None:
        self._runners.pop(self._key(target), None)
        host = self._hosts.get(own_folder(target))
        for stage in host.program.devices:
            worker = self._segments.get(table.worker(inner(target), target.variant), target, stage)
            shapes = device_shapes(host, stage, target, self._place.plan_dir)
            worker.release(segment_target(stage, target, shapes, f"s/{Path(target.folder).name}"))


def trim(plan_dir: Path, buckets: Sequence[BucketPlan]) -> None:
    """Removes from the split artifacts what none of these buckets runs: other precisions, other engines' modules."""
    chosen: dict[str, set[str]] = {}
    for bucket in buckets:
        if bucket.engine.startswith(PREFIX) and bucket.artifact:
            name = ready_name(bucket.variant, bucket.shapes)
            chosen.setdefault(bucket.artifact, set()).add(name)
    for artifact, names in chosen.items():
        folder, kept = plan_dir / artifact, set[Path]()
        for file in folder.glob("ready-*.json"):
            if file.name in names:
                kept |= {folder / d / e["artifact"] for d, e in json.loads(file.read_text()).items() if e["artifact"]}
            else:
                file.unlink()
        for made in folder.glob("d*/s/*"):
            if made not in kept:
                shutil.rmtree(made)


def artifact_bytes(folder: Path, ready: Mapping[str, Any]) -> int:
    """Of the host's files and of those that the device segments of one bucket need."""
    files = [f for f in folder.rglob("*") if f.is_file()]
    needed = [folder / d / entry["artifact"] for d, entry in ready.items()]
    parts = [f.relative_to(folder).parts for f in files]
    own = [f for f, at in zip(files, parts, strict=True) if at[1:2] != ("s",) or any(n in f.parents for n in needed)]
    return sum(f.stat().st_size for f in own)


def shown(plan_dir: Path, folder: str) -> tuple[Any, ...]:
    """The segments of the signature whose buckets lie in `folder` ("s0"), for the plan; empty when it was not cut."""
    found = plan_dir / folder / CUT
    if not (found / program.FILE_NAME).exists():
        return ()
    cut: Program = program.read(found)
    return cut.shown

"""Cuts signatures and converts their device segments, for the engines of split.py, in a process with TensorFlow."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

from tfopt_optimizer import whole
from tfopt_optimizer.engines import calibration, table
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Arrays, Place, Prepared, Runner, Target
from tfopt_optimizer.engines.split import (
    Hosts,
    Segments,
    cut_folder,
    device_shapes,
    inner,
    own_folder,
    segment_target,
)
from tfopt_optimizer.errors import NotLowerable
from tfopt_optimizer.split import program, stored
from tfopt_optimizer.split.cutter import Cutter
from tfopt_optimizer.split.program import HOST_GRAPH, Stage
from tfopt_optimizer.split.runner import Host
from tfopt_optimizer.split.source import Sources


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._hosts, self._segments = place, Hosts(place), Segments(place)
        self._sources = Sources(place)
        self._refused: dict[str, str] = {}
        return {"split": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes the cut, and the engine's form of it where the engine asks for one. NotLowerable says why not."""
        self._cut(target)
        own = self._place.plan_dir / own_folder(target)
        if not (own / program.FILE_NAME).exists():
            self._copy(self._place.plan_dir / cut_folder(target), own)
            if table.row(inner(target), target.variant).standby:
                return Prepared()  # the engine may read the segments by itself: if not, it asks again
        host = self._hosts.get(own_folder(target))
        path = table.converter(inner(target), target.variant)
        if table.row(inner(target), target.variant).lossy:
            self._calibrate(host, target)
        for stage in host.program.devices if path else ():
            shapes = device_shapes(host, stage, target, self._place.plan_dir)
            wanted = segment_target(stage, target, shapes, f"s/{Path(target.folder).name}")
            self._segments.get(path, target, stage).prepare(wanted)
        return Prepared()

    def _calibrate(self, host: Host, target: Target) -> None:
        """Gives every device segment the records as they reach it, through TensorFlow's own segments before it."""
        source = calibration.path(self._place.plan_dir, target)
        homes = {s.folder: self._place.plan_dir / own_folder(target) / s.folder / "s" for s in host.program.devices}
        if not source.exists() or all(calibration.there(home) for home in homes.values()):
            return
        models = {stage.folder: self._model(target, stage) for stage in host.program.devices}
        given: dict[str, list[Arrays]] = {folder: [] for folder in homes}
        for record in calibration.read(source):
            tensors = {**host.constants, **{t: record[name] for name, t in host.program.inputs.items()}}
            for stage in host.program.stages:
                if stage.where == "host":
                    host.host_stage(stage, tensors)
                    continue
                feeds = host.device_feeds(stage, tensors)
                given[stage.folder].append(feeds)
                found = models[stage.folder](feeds)
                tensors |= {tensor: found[name] for name, tensor in stage.results.items()}
        for folder, home in homes.items():
            calibration.write(home, given[folder], calibration.gate(source))

    def _model(self, target: Target, stage: Stage) -> Runner:
        assert stage.signature is not None
        folder = self._place.plan_dir / cut_folder(target) / stage.folder
        place = dataclasses.replace(self._place, model_dir=folder, tags=("serve",))
        return tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION).runner(stage.signature)

    def _cut(self, target: Target) -> None:
        folder, key = self._place.plan_dir / cut_folder(target), target.signature.key
        if key in self._refused:
            raise NotLowerable(self._refused[key])
        if (folder / program.FILE_NAME).exists():
            return
        try:
            samples = calibration.samples(self._place.plan_dir / Path(target.folder).parent)
            source = self._sources.of(target.signature)
            Cutter(self._place, self._sources.tf, source, folder, samples).cut(target)
        except NotLowerable as error:
            self._refused[key] = str(error)
            raise

    def _copy(self, cut: Path, own: Path) -> None:
        own.mkdir(parents=True, exist_ok=True)
        if (cut / stored.FOLDER).exists():
            shutil.copytree(cut / stored.FOLDER, own / stored.FOLDER, dirs_exist_ok=True)
        if (cut / HOST_GRAPH).exists():
            shutil.copy(cut / HOST_GRAPH, own / HOST_GRAPH)
        whole.write(own / program.FILE_NAME, (cut / program.FILE_NAME).read_bytes())

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Cuts are files in the plan."""

"""Freezes a signature for OpenVINO, with TensorFlow in a process of its own: a graph whose variables are constants."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tfopt_optimizer import whole
from tfopt_optimizer.engines import openvino_read
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.engines.freeze import freeze
from tfopt_optimizer.engines.openvino import FOLDER
from tfopt_optimizer.errors import NotLowerable


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place = place
        self._model = tensorflow_engine.open_model(place, tensorflow_engine.FUNCTION)
        return {"frozen": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes the frozen graph and the names of its ends. NotLowerable when TensorFlow cannot freeze it."""
        assert isinstance(self._model, tensorflow_engine.FunctionModel)
        frozen = freeze(self._model, target.signature)
        folder = (self._place.plan_dir / target.folder).parent / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        names = {"inputs": dict(frozen.inputs), "outputs": dict(frozen.outputs)}
        (folder / openvino_read.NAMES).write_text(json.dumps(names))
        whole.write(folder / openvino_read.GRAPH, frozen.graph.SerializeToString())
        return Prepared()

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Graphs are files in the plan, until OpenVINO has read them."""

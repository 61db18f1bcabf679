"""Whatever a graph holds, the doctor and `tfopt inspect` end with findings or with a SavedModelError."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tfopt_optimizer.doctor import examine, patient
from tfopt_optimizer.inspection import inspect
from tfopt_optimizer.saved_model import SavedModelError
from tfopt_protos import messages

ROUNDS = 40


def nodes(graph: Any) -> list[Any]:
    return [*graph.graph_def.node, *(n for f in graph.graph_def.library.function for n in f.node_def)]


class Mutation:
    """One change of a MetaGraphDef, drawn by `draw`."""

    def __init__(self, graph: Any, draw: random.Random) -> None:
        self.graph, self.draw = graph, draw
        self.nodes, self.functions = nodes(graph), list(graph.graph_def.library.function)
        self.node = draw.choice(self.nodes)

    def apply(self) -> None:
        self.draw.choice([
            self.inputs_go, self.another_kind, self.attributes_go, self.another_edge, self.another_name,
            self.outputs_move, self.inputs_move, self.another_restore, self.odd_keys, self.no_results,
            self.circles, self.one_function,
        ])()  # fmt: skip

    def inputs_go(self) -> None:
        del self.node.input[:]

    def another_kind(self) -> None:
        self.node.op = self.draw.choice([self.draw.choice(self.nodes).op, "", "While", "RestoreV2", "FIFOQueueV2"])

    def attributes_go(self) -> None:
        self.node.attr.clear()

    def another_edge(self) -> None:
        if self.node.input:
            end = self.draw.choice(["", ":0", ":x", ":a:b", ":out:99999999999999999999"])
            self.node.input[0] = self.draw.choice(self.nodes).name + end

    def another_name(self) -> None:
        self.node.name = self.draw.choice(self.nodes).name

    def outputs_move(self) -> None:
        for signature in self.graph.signature_def.values():
            for output in signature.outputs.values():
                output.name = self.draw.choice(["", "^x", ":0", self.node.name])

    def inputs_move(self) -> None:
        for signature in self.graph.signature_def.values():
            for given in signature.inputs.values():
                given.name, given.dtype = self.draw.choice(["", "^x", ":0"]), self.draw.choice([0, 1, 7, 999])
                given.tensor_shape.dim.add(size=-5)

    def another_restore(self) -> None:
        self.graph.saver_def.restore_op_name = self.node.name

    def odd_keys(self) -> None:
        for node in self.nodes:
            if "tensor_names" in node.name:
                node.attr["value"].tensor.dtype = self.draw.choice([0, 1, 7, 20])
                node.attr["value"].tensor.string_val.append(b"\xff")

    def no_results(self) -> None:
        for function in self.functions:
            function.ret.clear()

    def circles(self) -> None:
        """Functions that call themselves, and each other."""
        for function in self.functions:
            for node in function.node_def:
                node.attr["f"].func.name = self.draw.choice(self.functions).signature.name

    def one_function(self) -> None:
        for function in self.functions:
            function.signature.name = "f"


@pytest.mark.parametrize("name", ["tabular", "half_plus_two_v1", "mlp_keras", "sick_functions", "sick_training"])
def test_no_graph_breaks_the_doctor(name: str, savedmodel_copy: Callable[..., Path]) -> None:
    folder, draw = savedmodel_copy(name), random.Random(7)
    path = folder / "saved_model.pb"
    whole = path.read_bytes()
    for number in range(ROUNDS):
        model = messages.SavedModel.FromString(whole)
        for _ in range(draw.choice((1, 2, 6, 15))):
            Mutation(model.meta_graphs[0], draw).apply()
        path.write_bytes(model.SerializeToString())
        os.utime(path, ns=(number, number))  # the reader remembers by time and size
        with contextlib.suppress(SavedModelError):
            found = patient.read(folder)
            examine.examine(found)
            inspect(found)


def test_composite_tensors_have_no_type_of_their_own(savedmodel_copy: Callable[..., Path]) -> None:
    folder = savedmodel_copy("multi")
    model = messages.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    tensor = model.meta_graphs[0].signature_def["serving_default"].inputs["a"]
    tensor.dtype = 0
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    assert [t.dtype for t in patient.read(folder).signatures[0].inputs] == ["invalid", "float"]
    tensor.dtype = 999
    (folder / "saved_model.pb").write_bytes(model.SerializeToString() + b"")
    with pytest.raises(SavedModelError, match="tensor 'a': unknown TensorFlow data type number 999"):
        patient.read(folder)

"""Converts signatures to LiteRT models, with TensorFlow in a process of its own. Builtin operations only.

A signature is converted once with its unknown dimensions kept. What LiteRT cannot express that way (a strided slice
that adds an axis, for one) is tried again with a bucket's static shapes.

TensorFlow's SavedModel importer is the quick way (BERT-base 14 s of CPU instead of 20, MobileNetV2 2.5 instead of 6).
It fills variables as a TF1 session does: where some stay uninitialized (Keras 3 models of tf.saved_model.save) it
writes a model without weights and says nothing. Such models go through tf.saved_model.load.

What LiteRT would compute otherwise than TensorFlow is rewritten before (PASSES), in a SavedModel beside the model
(mended.py) or in the graph that stands for it. Infinity stays infinity: by itself the converter makes 3.4e38 of it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from tfopt_optimizer import saved_model, whole
from tfopt_optimizer.engines import litert, mended, rewritten
from tfopt_optimizer.engines import tensorflow as tensorflow_engine
from tfopt_optimizer.engines.base import Place, Prepared, Runner, Target
from tfopt_optimizer.engines.weightless import Weightless
from tfopt_optimizer.errors import NotLowerable, first_line
from tfopt_optimizer.passes import roots, softplus
from tfopt_optimizer.saved_model import SavedModelError

PASSES = (roots, softplus)
LARGEST = 1 << 31  # bytes: the signed 32-bit offsets of a flatbuffer


class Converter:
    """The conversion step in a worker process; it has no runners."""

    def open(self, place: Place) -> Mapping[str, str]:
        self._place, self._tf = place, tensorflow_engine.tensorflow(place)
        self._mended = place  # while something is converted: with the model as the passes leave it
        self._function: tensorflow_engine.FunctionModel | None = None
        self._static: dict[str, str] = {}  # shared folders of signatures that need static shapes, with the reason
        self._refused: dict[str, str] = {}
        return {"litert": ""}

    def prepare(self, target: Target) -> Prepared:
        """Writes a model for all shapes of the signature, else for the target's shapes. NotLowerable says why not."""
        key = litert.shared_folder(target)
        if key in self._refused:
            raise NotLowerable(self._refused[key])
        try:
            with mended.beside(self._place.model_dir, self._place.tags, PASSES) as model_dir:
                self._mended = dataclasses.replace(self._place, model_dir=model_dir)
                if key in self._static or not self._convert_once(target):
                    self._write(litert.own_folder(target), self._static_shapes(target))
        except NotLowerable as error:
            self._refused[key] = str(error)
            raise
        finally:
            if self._mended.model_dir != self._place.model_dir:
                self._function = None  # its assets were in a folder that is no more
        return Prepared()

    def _convert_once(self, target: Target) -> bool:
        key = litert.shared_folder(target)
        size = saved_model.variables_bytes(self._place.model_dir)
        if size >= LARGEST:
            raise NotLowerable(f"{size / 1e9:.1f} GB of variables do not fit into a LiteRT model")
        try:
            model = self._any_shape(target)
        except Exception as error:
            # The converter raises whatever its stages meet; the reason counts if static shapes do not help either.
            self._static[key] = reason(error)
            return False
        self._write(litert.shared_folder(target), model)
        return True

    def _any_shape(self, target: Target) -> bytes:
        key = target.signature.key
        if target.source:
            return self._from_function(self._function_of(target))
        if lost_variables(saved_model.meta_graph(self._place.model_dir, self._place.tags), key):
            return self._from_function(self._loaded().signature(key))
        return import_signature(self._tf, self._mended, key)

    def _static_shapes(self, target: Target) -> bytes:
        assert target.shapes is not None
        key, tf = litert.shared_folder(target), self._tf
        try:
            signature = self._function_of(target)
            specs = {
                t.name: tf.TensorSpec(target.shapes[t.name], t.dtype, name=t.name) for t in target.signature.inputs
            }

            def call(**feeds: Any) -> Any:
                return signature(**feeds)

            return self._from_function(tf.function(call, autograph=False).get_concrete_function(**specs))
        except SavedModelError as error:
            raise NotLowerable(self._static[key]) from error
        except Exception as error:
            raise NotLowerable(reason(error)) from error

    def _function_of(self, target: Target) -> Any:
        if not target.source:
            return self._loaded().signature(target.signature.key)
        frozen = rewritten.read(self._tf, self._place.plan_dir, target, pinned=True)
        mended.run(PASSES, frozen.graph)
        return rewritten.callable_of(self._tf, Weightless(frozen, {}))

    def _from_function(self, concrete: Any) -> bytes:
        converter = self._tf.lite.TFLiteConverter.from_concrete_functions([concrete], self._loaded().loaded)
        converter.canonicalizing_inf_as_min_max_float = False
        model: bytes = converter.convert()
        return model

    def _loaded(self) -> tensorflow_engine.FunctionModel:
        if self._function is None:
            model = tensorflow_engine.open_model(self._mended, tensorflow_engine.FUNCTION)
            assert isinstance(model, tensorflow_engine.FunctionModel)
            self._function = model
        return self._function

    def _write(self, folder: str, model: bytes) -> None:
        path = self._place.plan_dir / folder
        path.mkdir(parents=True, exist_ok=True)
        whole.write(path / litert.MODEL, model)

    def runner(self, target: Target) -> Runner:
        raise NotLowerable("the conversion step runs nothing")

    def release(self, target: Target) -> None:
        """Models are files in the plan."""


def import_signature(tf: Any, place: Place, key: str) -> bytes:
    """What TFLiteConverter.from_saved_model(...).convert() does, without loading the model twice in Python before.

    Private API of the pinned TensorFlow; tests/optimizer/test_litert.py holds it. The graph is for statistics only.
    """
    from tensorflow.lite.python import lite

    converter = lite.TFLiteSavedModelConverterV2(str(place.model_dir), set(place.tags), [key], None)
    converter.canonicalizing_inf_as_min_max_float = False
    model: bytes = converter._convert_from_saved_model(tf.compat.v1.GraphDef())
    return model


def lost_variables(graph: Any, key: str) -> set[str]:
    """The variables below a signature (of a MetaGraphDef) that the model's own restore operation does not fill.

    Only TF2 models have such: their restore operation is one function call on the handles that it fills.
    """
    nodes = {node.name: node for node in graph.graph_def.node}

    def variables(todo: list[str]) -> set[str]:
        seen: set[str] = set()
        while todo:
            name = todo.pop().lstrip("^").split(":")[0]
            if name in nodes and name not in seen:
                seen.add(name)
                todo += nodes[name].input
        handles = [nodes[name] for name in seen if nodes[name].op == "VarHandleOp"]
        return {node.attr["shared_name"].s.decode() or node.name for node in handles}

    restore = graph.saver_def.restore_op_name
    if restore not in nodes or nodes[restore].op not in ("PartitionedCall", "StatefulPartitionedCall"):
        return set()
    return variables([info.name for info in graph.signature_def[key].outputs.values()]) - variables([restore])


def reason(error: BaseException) -> str:
    """The sentence that names the operations, out of the converter's many lines."""
    text = str(error)
    ops = re.findall(r"^(?:TF Select|Custom) ops: (.*)$", text, re.MULTILINE)
    if ops:
        return f"LiteRT has no builtin operation for {', '.join(ops)} of these types and shapes"
    failed = re.search(r"error: (?:loc\(.*?\): )?('[\w.]+' op [^\n]*|[^\n]*)", text)
    return (failed.group(1) if failed else first_line(error))[:300]

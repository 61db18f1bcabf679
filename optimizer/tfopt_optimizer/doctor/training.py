"""Checks for what belongs to training: input pipelines, dropout, gradients, optimizer slots, writes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from tfopt_optimizer import saved_model
from tfopt_optimizer.doctor.findings import HERE, SERVING, VERTEX, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.graphs import Placed, source
from tfopt_optimizer.wording import count, size

_PIPELINE = re.compile(
    r"(FIFO|RandomShuffle|Priority|PaddingFIFO)Queue(V2)?|Queue(Enqueue|Dequeue).*|Barrier.*|.*Dataset(V\d)?"
    r"|(FixedLengthRecord|WholeFile|TextLine|TFRecord|Identity|LMDB)Reader(V2)?|Reader(Read|Num|Reset|Restore).*"
    r"|(OneShot|Anonymous|Make|Multi\w*)?Iterator(V\d|FromStringHandle.*|GetNext.*|ToStringHandle)?"
)
# Gradients of a convolution's input stay out: transposed convolutions are made of them.
_TRAINING = re.compile(
    r"(Resource)?(Sparse)?Apply[A-Z].*|.*Grad(V\d|WithArgmax|Grad)?|.*BackpropFilter(V\d)?"
    r"|(Sparse)?SoftmaxCrossEntropyWithLogits|.*Summary(V\d)?"
)
_SLOTS = re.compile(
    r".*/\.OPTIMIZER_SLOT/.*|(.*/)?(optimizer|_?optimizer_\w+|keras_api/optimizer)/.*|.*_CHECKPOINTABLE.*optimizer.*"
    r"|.*/(Adam(_\d)?|Adagrad|Adadelta(_\d)?|Momentum|RMSProp(_\d)?|Ftrl(_\d)?|LAMB(_\d)?)|beta\d_power(_\d)?"
)
_UNIFORM = ("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2", "StatefulUniform")
_SCALING = ("Mul", "Add", "AddV2", "Sub", "Cast", "Identity", "Reshape")


def pipelines(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        found = [f"{p.where} ({p.node.op})" for p in model.reached[signature.key] if _PIPELINE.fullmatch(p.node.op)]
        if found:
            yield error(f"{signature.key} reads from an input pipeline, which no request fills", found)


def training_graph(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        found = [f"{p.where} ({p.node.op})" for p in model.reached[signature.key] if _TRAINING.fullmatch(p.node.op)]
        if found:
            yield warning(f"{signature.key} computes losses, gradients or summaries", found)
    used = {p.node.name for p in model.all_reached() if not p.scope}
    idle = [
        f"{name} ({node.op})"
        for name, node in model.graph.nodes.items()
        if name not in used and (_TRAINING.fullmatch(node.op) or _PIPELINE.fullmatch(node.op))
    ]
    if idle:
        yield warning(f"{count(len(idle), 'operation')} of a training graph beside what is served", idle)


def dropout(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        nodes = model.reached[signature.key]
        if any("learning_phase" in p.node.name for p in nodes):
            continue  # the TF1 Keras switch, off unless a client feeds it
        found = _thresholds(nodes)
        if found:
            yield warning(f"{signature.key}: dropout is active: equal requests get different answers", found)


def _thresholds(nodes: Sequence[Placed]) -> list[str]:
    """Uniform random numbers that are compared with a rate: what tf.nn.dropout is made of."""
    consumers: dict[tuple[str, str], list[Placed]] = {}
    for placed in nodes:
        for edge in placed.node.input:
            consumers.setdefault((placed.scope, source(edge)), []).append(placed)
    found = []
    for placed in nodes:
        if placed.node.op not in _UNIFORM:
            continue
        seen: set[str] = set()
        todo = [placed]
        while todo:
            for user in consumers.get((placed.scope, todo.pop().node.name), ()):
                if user.node.op in ("GreaterEqual", "Less", "Greater", "LessEqual", "Floor"):
                    found.append(f"{placed.where} ({placed.node.op})")
                    todo.clear()
                    break
                if user.node.op in _SCALING and user.node.name not in seen:
                    seen.add(user.node.name)
                    todo.append(user)
    return found


def training_mode(model: Patient) -> Iterator[Found]:
    found = [
        p.where
        for p in model.all_reached()
        if re.fullmatch(r"FusedBatchNorm(V\d)?", p.node.op)
        and ("is_training" not in p.node.attr or p.node.attr["is_training"].b)  # true is the default, which is stripped
    ]
    if found:
        yield warning("batch normalization in training mode: a row's answer depends on the other rows", found)


def optimizer_slots(model: Patient) -> Iterator[Found]:
    slots = [e for e in model.checkpoint.values() if _SLOTS.fullmatch(e.key)]
    if slots:
        share = sum(e.size for e in slots)
        what = f"{count(len(slots), 'variable')} of an optimizer in the checkpoint, {size(share)} of "
        what += size(sum(e.size for e in model.checkpoint.values()))
        yield warning(what, [f"{e.key} {size(e.size)}" for e in sorted(slots, key=lambda e: -e.size)])


def state(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        kinds = {p.node.op for p in model.reached[signature.key]}
        effects = saved_model.effects(kinds)
        if effects.writes:
            yield info(f"{signature.key} writes state, so only plain TensorFlow serves the model", effects.writes)
        if effects.random:
            yield info(f"{signature.key} draws random numbers, so only plain TensorFlow serves it", effects.random)


CHECKS = (
    Check(
        "input-pipeline",
        "Export a signature that takes its inputs as tensors: placeholders or a tf.function with input_signature, "
        "not a queue, reader or dataset.",
        VERTEX,
        pipelines,
    ),
    Check(
        "training-graph",
        "Build the serving graph anew, in inference mode and without loss and optimizer, and export that.",
        VERTEX,
        training_graph,
    ),
    Check(
        "dropout",
        "Export the model in inference mode (training=False). Where the randomness is wanted, say so to those who "
        "test your clients.",
        VERTEX,
        dropout,
    ),
    Check(
        "training-mode",
        "Export with training=False, so that batch normalization uses its moving averages.",
        VERTEX,
        training_mode,
    ),
    Check(
        "optimizer-slots",
        "Export without the optimizer: Keras's model.export, or save a tf.Module that holds only the model's "
        "variables. They double or triple the download.",
        VERTEX,
        optimizer_slots,
    ),
    Check(
        "state",
        "Keep signatures free of side effects where they need none; TensorFlow Serving may run a request's batch in "
        "any company, and other engines take part only where nothing is written or drawn.",
        f"{SERVING}; {HERE}",
        state,
    ),
)

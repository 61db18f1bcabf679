"""Checks of the graph's operations: which no server knows, which stay on the host, what was pinned or compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tfopt_optimizer.doctor.findings import HERE, SERVING, TENSORFLOW, Check, Found, error, info, warning
from tfopt_optimizer.doctor.patient import Patient
from tfopt_optimizer.placement import host_reasons
from tfopt_optimizer.wording import count

_PYTHON = frozenset({"PyFunc", "PyFuncStateless", "EagerPyFunc"})
# Libraries that bring operations of their own, by how these begin.
_LIBRARIES = (
    ("SentencepieceOp", "tensorflow_text"), ("Sentencepiece", "tensorflow_text"), ("Wordpiece", "tensorflow_text"),
    ("FastWordpiece", "tensorflow_text"), ("FastBert", "tensorflow_text"), ("NormalizeUTF8", "tensorflow_text"),
    ("CaseFoldUTF8", "tensorflow_text"), ("RegexSplit", "tensorflow_text"),
    ("SimpleML", "ydf or tensorflow_decision_forests"),
    ("Addons>", "tensorflow_addons"), ("IO>", "tensorflow_io"), ("Horovod", "horovod"),
    ("TFRA>", "tensorflow_recommenders_addons"), ("TRT", "TensorFlow built with TensorRT"),
)  # fmt: skip
_PINNED = re.compile(r"\b(GPU|TPU)\b|/job:(?!localhost)|/task:[1-9]", re.IGNORECASE)
_FUNCTION_OPS = frozenset({"SymbolicGradient", "_Arg", "_Retval"})


def custom_ops(model: Patient) -> Iterator[Found]:
    known = model.registry.names | model.graph.functions.keys() | _FUNCTION_OPS
    kinds: dict[str, str] = {}
    for placed in model.all_reached():
        if placed.node.op not in known:
            kinds.setdefault(placed.node.op, placed.where)
    if kinds:
        evidence = [f"{op} at {where}{_library(op)}" for op, where in sorted(kinds.items())]
        yield error(f"{count(len(kinds), 'kind')} of operations that TensorFlow does not have", evidence)


def _library(op: str) -> str:
    name = next((library for prefix, library in _LIBRARIES if op.startswith(prefix)), "")
    return f" (from {name})" if name else ""


def python_functions(model: Patient) -> Iterator[Found]:
    found = [f"{p.where} ({p.node.op})" for p in model.all_reached() if p.node.op in _PYTHON]
    if found:
        yield error("Python functions in the graph: they exist only in the process that exported it", found)


def host_ops(model: Patient) -> Iterator[Found]:
    for signature in model.signatures:
        reasons = host_reasons(model.reached[signature.key], model.graph, model.registry)
        if reasons:
            number = sum(len(nodes) for nodes in reasons.values())
            evidence = [f"{reason}: {nodes[0].where}" + _more(len(nodes) - 1) for reason, nodes in reasons.items()]
            what = f"{signature.key}: {count(number, 'operation')} cannot be compiled and stay on the host"
            yield info(what, evidence)


def _more(number: int) -> str:
    return f" and {number} more" if number else ""


def devices(model: Patient) -> Iterator[Found]:
    pinned = [f"{p.where} on {p.node.device}" for p in model.all_reached() if _PINNED.search(p.node.device)]
    if pinned:
        yield warning(f"{count(len(pinned), 'operation')} pinned to a device", pinned)


def compiled_functions(model: Patient) -> Iterator[Found]:
    found = sorted(
        {
            name
            for name, function in model.graph.functions.items()
            if "_XlaMustCompile" in function.attr and function.attr["_XlaMustCompile"].b
        }
        & {p.scope for p in model.all_reached()}
    )
    if found:
        yield info("functions marked jit_compile=True", found)


CHECKS = (
    Check(
        "custom-ops",
        "Replace the operations by TensorFlow's own, or serve with an image that has the library that defines them.",
        SERVING,
        custom_ops,
    ),
    Check(
        "python-functions",
        "Rewrite what tf.py_function or tf.numpy_function does in TensorFlow operations, or do it in the client.",
        TENSORFLOW,
        python_functions,
    ),
    Check(
        "host-ops",
        "Nothing must be done: the rest can still be compiled. Moving text and parsing to the client, or to the start "
        "of the graph, leaves larger pieces for a device.",
        HERE,
        host_ops,
    ),
    Check(
        "devices",
        "Export with clear_devices=True, or outside of a tf.device scope: a server without that device runs it "
        "elsewhere at best.",
        SERVING,
        devices,
    ),
    Check(
        "compiled-functions",
        "Export without jit_compile: TensorFlow Serving refuses such functions unless XLA is switched on, and "
        "--allow_precompilation compiles without it.",
        SERVING,
        compiled_functions,
    ),
)

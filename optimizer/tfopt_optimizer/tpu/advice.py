"""What to do about an operation that cannot run on the TPU: the remedies that users of the converter know, by cause."""

from __future__ import annotations

import re

MOVE_OUT = "move it out of the TPU function, so that it runs on the CPU before or after"
REMEDIES = {
    "constant": (
        "the value must be known when the function is compiled: compute it outside and pass a shape that is static, "
        "or take it from the static shape of a tensor instead of from its values"
    ),
    "string": "the TPU has no strings: look strings up in a table, or parse them, before the TPU function",
    "table": "tables live on the CPU: do the lookup outside of the TPU function and pass the indices",
    "sparse": "pass dense tensors to the TPU function: tf.sparse.to_dense, or RaggedTensor.to_tensor, before it",
    "dynamic": "its result's shape depends on values: pad to a static size (size= or max_output_size), or " + MOVE_OUT,
    "kernel": MOVE_OUT,
}
# Compiled with a bound instead of a shape; what hands such a result out of the function is refused by the TPU compiler.
DYNAMIC = frozenset({
    "Where", "Unique", "UniqueV2", "UniqueWithCounts", "NonMaxSuppression", "NonMaxSuppressionV2",
    "NonMaxSuppressionV3",
})  # fmt: skip

_BOILERPLATE = ("Graph execution error", "Detected at node", "[[", "<stack traces")
_UNSUPPORTED = re.compile(
    r"(\w+) \(No registered '(\w+)' OpKernel[^{]*(?:\{\{function_node [^}]*\}\})?\{\{node ([^}]+)\}\}"
)
_UNSUPPORTED_SHORT = re.compile(r"No registered '(\w+)' OpKernel")
_CONSTANT = re.compile(r"Input (\d+) to node `([^`]+)` with op (\w+) must be a compile-time constant")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
_METADATA = re.compile(r"\s*op_name=\"[^\"]+\"")
_NAMED = re.compile(r"\{\{node ([^}]+)\}\}|op_name=\"([^\"]+)\"")


def explain(error: str) -> str:
    """XLA's error in one sentence, with the operation, the node, and the remedy."""
    if constant := _CONSTANT.search(error):
        number, node, op = constant.groups()
        return f"input {number} of {op} (node {node}) is no compile-time constant: {REMEDIES['constant']}"
    found = [(op, node) for _, op, node in _UNSUPPORTED.findall(error)]
    if found:
        listed = ", ".join(f"{op} (node {node})" for op, node in found)
        return f"{listed}: the compiler has no kernel for it: {REMEDIES['kernel']}"
    if short := _UNSUPPORTED_SHORT.search(error):
        return f"{short[1]}: the compiler has no kernel for it: {REMEDIES['kernel']}"
    node, error = _NODE.search(error), _METADATA.sub("", error)
    told = [line for line in error.splitlines() if line.strip() and not line.strip().startswith(_BOILERPLATE)]
    first = (told or ["unknown error"])[0].strip()[:400]
    return first + (f" (node {node[1]})" if node and node[1] not in first else "")


def operations(error: str) -> dict[str, str]:
    """The nodes that a compiler does not take by itself, whatever the sizes, each with the reason."""
    found = {node: f"compilers have no kernel for {op}" for _, op, node in _UNSUPPORTED.findall(error)}
    if constant := _CONSTANT.search(error):
        found[constant[2]] = late(constant[3])
    return found


def late(op: str) -> str:
    return f"{op} takes a shape that is computed from values"


def named(error: str) -> list[str]:
    """All nodes that an error names, the innermost first where it tells a way to them."""
    return list(dict.fromkeys(a or b for a, b in _NAMED.findall(error)))

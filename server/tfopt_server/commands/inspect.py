"""`tfopt inspect MODEL`: what a SavedModel declares and holds, and which of its operations could leave the host.

MODEL is a SavedModel or a base path with versions (the newest is taken), here or in a bucket. Needs no TensorFlow and
takes about a second, and what a bucket takes.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tfopt_optimizer.wording import plain

from tfopt_server import argv as arguments
from tfopt_server import flags
from tfopt_server.commands import HELP
from tfopt_server.commands.models import CACHE
from tfopt_server.commands.text import table

if TYPE_CHECKING:
    from tfopt_optimizer.inspection import Inspection, SignatureView

FLAGS = (
    flags.Flag("json", "bool", False, "one JSON object instead of text"),
    flags.Flag("all", "bool", False, "every variable and kind of operation, not only the largest and most frequent"),
    CACHE,
    flags.Flag("saved_model_tags", "strs", ("serve",), "tags of the graph to look into"),
)
USAGE = (
    "usage: tfopt inspect MODEL [--json] [--all] [--saved_model_tags=serve] [--model_cache_dir=DIR]\n\n"
    "Shows a SavedModel's signatures with shapes and types, the operations that a compiler could take and why the\n"
    "others stay on the host, and the variables with their sizes.\n"
)
CANNOT_READ = 2
_KINDS, _VARIABLES = 12, 20
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"  # ends the keys of TF2's checkpoints


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0: shown; 2: mistakes in the arguments, or the model cannot be read."""
    if any(a in HELP for a in argv):
        sys.stdout.write(USAGE)
        return 0
    parsed = arguments.parse(argv, FLAGS, environ)
    mistakes = [*parsed.errors, *parsed.unknown]
    if len(parsed.positionals) != 1:
        mistakes.append(f"expected one MODEL, received {list(parsed.positionals)}")
    if mistakes:
        sys.stderr.write("".join(f"tfopt inspect: {mistake}\n" for mistake in mistakes) + USAGE)
        return CANNOT_READ
    tags = parsed.values.get("saved_model_tags", ("serve",))
    chosen = tags if isinstance(tags, tuple) else ()
    return _inspect(parsed.positionals[0], chosen, parsed.values, environ)


def _inspect(model: str, tags: Sequence[object], values: Mapping[str, object], environ: Mapping[str, str]) -> int:
    from tfopt_optimizer.doctor import patient
    from tfopt_optimizer.inspection import inspect
    from tfopt_optimizer.saved_model import SavedModelError, meta_graph

    from tfopt_server.commands import models

    try:
        folder, names = models.named(model, values, environ), [str(tag) for tag in tags]
        meta_graph(folder, names)  # raises for tags that it does not have
        inspection = inspect(patient.read(folder, names))
    except (SavedModelError, OSError) as error:
        sys.stderr.write(f"tfopt inspect: {error}\n")
        return CANNOT_READ
    if values.get("json"):
        sys.stdout.write(json.dumps(dataclasses.asdict(inspection), indent=1) + "\n")
    else:
        sys.stdout.write(render(inspection, everything=bool(values.get("all"))))
    return 0


def render(found: Inspection, everything: bool = False) -> str:
    from tfopt_optimizer.wording import count, size

    head = [
        found.model,
        f"tags {', '.join(found.tags)}; written by TensorFlow {found.tensorflow_version or '(not said)'}; "
        f"{size(found.bytes)} in {count(len(found.files), 'file')}; {count(found.nodes, 'node')}, "
        f"{count(found.functions, 'function')}",
    ]
    lines = [*head, *(line for view in found.signatures for line in _signature(view, everything))]
    return "\n".join(plain(line) for line in [*lines, *_variables(found, everything)]) + "\n"


def _signature(view: SignatureView, everything: bool) -> list[str]:
    from tfopt_optimizer.wording import shape

    signature = view.signature
    defaults = dict.fromkeys(signature.defaults, "has a default")
    rows = [("  in ", t.name, shape(t.dtype, t.shape), defaults.get(t.name, "")) for t in signature.inputs]
    rows += [("  out", t.name, shape(t.dtype, t.shape), "") for t in signature.outputs]
    lines = ["", f"signature {signature.key}  ({signature.method_name or 'no method name'})", *table(rows)]
    lines.append(f"  compilable: {_kinds(view.device, everything)}")
    if view.host:
        lines.append(f"  on the host: {_kinds(view.host, everything)}")
        lines += table([("   ", f"{r.count}x", r.why, f"first: {r.first}") for r in view.reasons])
    if len(view.parts) > 1:
        lines.append(f"  a cut would have {len(view.parts)} segments, by this rule alone:")
        lines += [f"    {n}. {part.where}: {_kinds(part.kinds, everything)}" for n, part in enumerate(view.parts, 1)]
    return lines


def _kinds(counts: Mapping[str, int], everything: bool) -> str:
    if not counts:
        return "none"
    shown = list(counts.items())[: None if everything else _KINDS]
    rest = sum(counts.values()) - sum(n for _, n in shown)
    text = ", ".join(f"{kind} {n}" if n > 1 else kind for kind, n in shown)
    return f"{sum(counts.values())} ({text}{f', {rest} more' if rest else ''})"


def _variables(found: Inspection, everything: bool) -> list[str]:
    from tfopt_optimizer.wording import size

    if found.checkpoint_problem:
        return ["", f"variables: {found.checkpoint_problem}"]
    shown = found.variables[: None if everything else _VARIABLES]
    total = sum(v.bytes for v in found.variables)
    rows = [
        (
            " ",
            v.key.removesuffix(_VALUE),
            v.name,
            f"{v.dtype}{list(v.shape)}",
            size(v.bytes),
            "read by no signature" if v.read_by == () else "",
        )
        for v in shown
    ]
    rest = len(found.variables) - len(shown)
    more = [f"  ... and {rest} more, {size(total - sum(v.bytes for v in shown))} (--all)"] if rest else []
    return ["", f"variables: {len(found.variables)}, {size(total)}", *table(rows), *more]

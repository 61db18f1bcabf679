"""The functions that a conversion placed on the TPU, through ahead.py: one program per function and batch size."""

from __future__ import annotations

from pathlib import Path

from tfopt_optimizer.tpu import ahead, files
from tfopt_optimizer.tpu.ahead import AheadUnavailable, Compiled, Program
from tfopt_optimizer.tpu.errors import CompilerError, ConversionError
from tfopt_optimizer.tpu.graph import ModelGraph
from tfopt_optimizer.tpu.link import SIZES
from tfopt_optimizer.tpu.place import INNER
from tfopt_optimizer.tpu.programs import Conversion, Functions

_TOO_LARGE = "RESOURCE_EXHAUSTED"


def check(conversion: Conversion, topology: str, workplace: Path) -> tuple[list[Compiled], list[str]]:
    """Compiles every placed function for `topology`; the results, and a caution per function that could not be tried.

    CompilerError names what does not compile or fit.
    """
    emulated = conversion.emulated()
    files.link(conversion.folder, emulated, workplace / "ahead")
    functions = Functions(conversion, ModelGraph(emulated.meta_graphs[0]), str(workplace / "ahead"))
    programs, cautions = list[Program](), list[str]()
    for name, border in conversion.borders.items():
        try:
            programs += functions.programs(name, border.to_tpu, tuple(conversion.sizes.get(name) or SIZES))
        except ValueError as error:
            cautions.append(f"{name!r} was not compiled for {topology}: {error}")
    try:
        made = list(ahead.compile_all(programs, topology))
    except AheadUnavailable as error:
        raise ConversionError([str(error)]) from error
    if wrong := [f"{c.name}: {topology}: {_explained(c.error)}" for c in made if c.error]:
        raise CompilerError(wrong, _words(programs, made))
    return made, cautions


def _words(programs: list[Program], made: list[Compiled]) -> dict[str, str]:
    """By function; what does not fit is no operation's fault."""
    return {
        program.function.removesuffix(INNER): f"{compiled.error} {compiled.about}"
        for program, compiled in zip(programs, made, strict=True)
        if compiled.error and _TOO_LARGE not in compiled.error
    }


def _explained(error: str) -> str:
    if _TOO_LARGE not in error:
        return error
    return (
        f"{error}: it does not fit into the TPU's memory; allow smaller batch sizes only, convert it to bfloat16 or "
        "place less of the model on the TPU"
    )

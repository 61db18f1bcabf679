"""Compiles programs for a TPU that is not there: does it take them, do they fit into its memory, how long does it take.

    for made in ahead.compile_all([Program("serving_default x 8", module=path, inputs=1)], "v5e:2x2"): ...

libtpu (of PyPI) compiles for a topology by its name, without the hardware: "v5e:1x1", "v5e:2x2", "v6e:2x2",
"v5p:2x2x1", "v4:2x2x1". It runs in a process of its own (ahead_child.py), which it may abort: then the program that was
being compiled is the one to name. Nothing is executed; times are the compiler's model.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

TIMEOUT_S = 1800.0  # of one program; BERT-base in float32 takes a minute
CHILD = "tfopt_optimizer.tpu.ahead_child"


class AheadUnavailable(Exception):
    """libtpu is not installed, or knows no such topology (for the operator)."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Either a StableHLO `module` (a file) whose first `inputs` parameters are a request's, or the `function` of the
    SavedModel in `model`, an emulated one (emulate.py): `shapes` of its arguments, None for variables, which
    `variables` gives as argument -> (dtype, shape).

    `exact`: products in float32 instead of the TPU's bfloat16.
    """

    name: str
    module: str = ""
    inputs: int = 0
    model: str = ""
    function: str = ""
    shapes: tuple[tuple[int, ...] | None, ...] = ()
    variables: Mapping[int, tuple[int, tuple[int, ...]]] = dataclasses.field(default_factory=dict)
    exact: bool = False


@dataclasses.dataclass(frozen=True)
class Compiled:
    """Sizes in bytes on one core. `optimal_s`: the compiler's model of one call, None where it has none.

    `error`: the compiler's words when it does not take the program, "" otherwise; `about`: the operations that these
    name.
    """

    name: str
    compile_s: float = 0.0
    arguments: int = 0
    outputs: int = 0
    temporary: int = 0
    code: int = 0
    executable: int = 0
    flops: float = 0.0
    accessed: float = 0.0
    optimal_s: float | None = None
    error: str = ""
    about: str = ""

    @property
    def memory(self) -> int:
        """What one call needs, weights included."""
        return self.arguments + self.outputs + self.temporary + self.code


def installed() -> bool:
    return importlib.util.find_spec("libtpu") is not None


def compile_all(programs: Sequence[Program], topology: str, timeout_s: float = TIMEOUT_S) -> Iterator[Compiled]:
    """One after the other, as they are done. AheadUnavailable before the first."""
    if not installed():
        raise AheadUnavailable("libtpu is not installed: pip install libtpu (0.0.52 goes with jax 0.10)")
    left = list(programs)
    while left:
        done = 0
        for made in _in_a_child(left, topology, timeout_s):
            done += 1
            yield made
        left = left[done:]


def _in_a_child(programs: Sequence[Program], topology: str, timeout_s: float) -> Iterator[Compiled]:
    """As many as it lives for; the one it dies over comes back with that as its error."""
    process = subprocess.Popen(
        [sys.executable, "-m", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_pump, args=(process.stdout, lines), daemon=True).start()
    try:
        process.stdin.write(json.dumps({"topology": topology, "programs": [dataclasses.asdict(p) for p in programs]}))
        process.stdin.close()
        for program in programs:
            answer = _answer(lines, time.monotonic() + timeout_s)
            if answer is None:
                process.kill()
                yield Compiled(program.name, error=_how_it_ended(process.wait(), timeout_s))
                return
            if "unavailable" in answer:
                raise AheadUnavailable(str(answer["unavailable"]))
            yield Compiled(**answer)
    finally:
        process.kill()
        process.wait()


def _pump(stream: IO[str], lines: queue.Queue[str]) -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def _answer(lines: queue.Queue[str], end: float) -> dict[str, Any] | None:
    """The next line that is an answer; None when there will be none."""
    while True:
        try:
            line = lines.get(timeout=max(0.0, end - time.monotonic()))
        except queue.Empty:
            return None
        if not line:
            return None
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            return found


def _how_it_ended(code: int, timeout_s: float) -> str:
    return f"not compiled within {timeout_s:g} s" if code == -9 else f"the compiler ended with {code}"


def lines(made: Sequence[Compiled], topology: str) -> list[str]:
    """For a log or a report."""
    return [_line(c, topology) for c in made]


def _line(made: Compiled, topology: str) -> str:
    if made.error:
        return f"{topology}: {made.name}: {made.error}"
    optimal = "" if made.optimal_s is None else f", modelled {made.optimal_s * 1e6:.3g} us a call"
    return (
        f"{topology}: {made.name}: fits: {made.memory / 1e6:.1f} MB a core (arguments {made.arguments / 1e6:.1f}, "
        f"temporary {made.temporary / 1e6:.1f}), compiled in {made.compile_s:.1f} s{optimal}"
    )


def of_file(name: str, folder: Path, inputs: int, *, exact: bool) -> Program:
    """A lowered target's folder (engines/artifacts.py)."""
    return Program(name, module=str(folder / "module.stablehlo"), inputs=inputs, exact=exact)

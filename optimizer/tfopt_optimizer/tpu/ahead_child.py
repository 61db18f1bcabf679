"""The other end of ahead.py: programs on standard input as JSON, a line of JSON for each that was compiled."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

from tfopt_optimizer.engines import modules
from tfopt_optimizer.errors import first_line

_OPERATION = re.compile(r'op_name="[^"]+"')  # TensorFlow's, as XLA's metadata names it


def main() -> None:
    # Runtimes print to standard output; the answers' pipe is ours alone.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    # Nobody looks for a TPU or asks a metadata server for one, and compilers may run side by side.
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ["TPU_SKIP_MDS_QUERY"] = os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    job = json.load(sys.stdin)
    try:
        compiler = Compiler(job["topology"])
    except Exception as error:  # whatever libtpu says of a topology that it does not know
        answers.write(json.dumps({"unavailable": f"topology {job['topology']!r}: {first_line(error)}"}) + "\n")
        answers.flush()
        return
    for program in job["programs"]:
        answers.write(json.dumps({"name": program["name"], **compiler.compile(program)}) + "\n")
        answers.flush()


class Compiler:
    """libtpu's compiler for one core of a topology."""

    def __init__(self, topology: str) -> None:
        from jax._src import compiler
        from jax.experimental import topologies
        from jaxlib import _jax

        core = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
        self._client, self._on = core.client, _jax.DeviceList((core,))
        self._options = compiler.get_compile_options(num_replicas=1, num_partitions=1)
        self._libraries: dict[str, Any] = {}

    def compile(self, program: dict[str, Any]) -> dict[str, Any]:
        try:
            module = Path(program["module"]).read_bytes() if program["module"] else self._lowered(program)
            module = modules.for_accelerator(module, program["inputs"], exact=program["exact"])
            started = time.perf_counter()
            executable = modules.parsed(module, lambda m: self._client.compile(m, self._on, self._options))
            return _sizes(executable, time.perf_counter() - started)
        except Exception as error:  # one program that the compiler does not take costs itself
            return {"error": first_line(error), "about": " ".join(_OPERATION.findall(str(error)))}

    def _lowered(self, program: dict[str, Any]) -> bytes:
        from tfopt_optimizer.tpu import lower

        if program["model"] not in self._libraries:
            self._libraries[program["model"]] = lower.Library.of(Path(program["model"]))
        variables = {int(i): (dtype, tuple(shape)) for i, (dtype, shape) in program["variables"].items()}
        library: lower.Library = self._libraries[program["model"]]
        return library.module(program["function"], program["shapes"], variables)


def _sizes(executable: Any, seconds: float) -> dict[str, Any]:
    memory, costs = executable.get_compiled_memory_stats(), executable.cost_analysis()
    optimal = float(costs.get("optimal_seconds", -1.0))
    return {
        "compile_s": seconds,
        "arguments": memory.argument_size_in_bytes,
        "outputs": memory.output_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
        "executable": len(executable.serialize()),
        "flops": float(costs.get("flops", 0.0)),
        "accessed": float(costs.get("bytes accessed", 0.0)),
        # Each instruction without an estimate counts as -1 s: then there is none for the whole.
        "optimal_s": optimal if optimal >= 0 else None,
    }


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # libtpu may hang while it is taken down

"""`tfopt`: which sub-command was asked for.

    tfopt serve [flags]              tfopt optimize MODEL --out PLAN [flags]     tfopt healthcheck [flags]
    tfopt [flags]   (the same)       tfopt report PLAN                           tfopt version
    tfopt inspect MODEL              tfopt warmup inspect|synthesize ...
    tfopt doctor MODEL

A container's arguments follow its entry point, so flags without a sub-command mean `serve`. The module of a command is
imported only when it runs: help, mistakes and `version` must answer in milliseconds.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence

from tfopt_server.commands import COMMANDS


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or not args[0][:1].isalpha():
        return _run("serve", args)
    name, rest = args[0], args[1:]
    if name == "help":
        sys.stdout.write(usage())
        return 0
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        sys.stderr.write(f"tfopt: no command {name!r}{hint}\n\n{usage()}")
        return 2
    return _run(name, rest)


def usage() -> str:
    rows = "\n".join(f"  {name:<12} {meaning}" for name, meaning in COMMANDS.items())
    return f"usage: tfopt COMMAND [arguments]\n\n{rows}\n\n`tfopt COMMAND --help` says more.\n"


def _run(name: str, args: list[str]) -> int:
    module = importlib.import_module(f"tfopt_server.commands.{name.replace('-', '_')}")
    # The only place that hands out the process's environment.
    return int(module.main(args, os.environ))


if __name__ == "__main__":
    sys.exit(main())

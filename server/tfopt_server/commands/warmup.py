"""`tfopt warmup`: the warmup package's own command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    from tfopt_warmup import cli

    return cli.main(list(argv))

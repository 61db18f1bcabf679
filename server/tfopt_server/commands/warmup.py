"""`tfopt warmup`: the warmup package's own command line, and `record`, which reads requests as the REST face does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    if argv and argv[0] == "record":
        from tfopt_server.commands import record

        return record.main(argv[1:])
    from tfopt_warmup import cli

    return cli.main(list(argv))

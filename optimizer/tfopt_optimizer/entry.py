"""Who enters the tournament: what the flags allow, is installed, and has records and a processor to take part with."""

from __future__ import annotations

from tfopt_optimizer import compression, cpu
from tfopt_optimizer.engines import table
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.report import Log


def installed(flags: OptimizerFlags, log: Log) -> tuple[Entrant, ...]:
    """The candidates that the flags allow, beside plain TensorFlow's own variants."""
    found, missing = table.entrants(flags)
    if missing:
        log.say(f"not installed, so they do not take part: {', '.join(missing)}")
    return (*found, *table.splits(found))


def lossy_by_terms(entrants: tuple[Entrant, ...], flags: OptimizerFlags, records: str, log: Log) -> tuple[Entrant, ...]:
    """Without the lossy candidates that the records, the flags or the processor rule out."""
    if not flags.allow_compression:
        return entrants
    gate = flags.lossy()
    terms = compression.terms(
        records, flags.compression_requires_records, gate.mean_rel_error, gate.max_rel_error, gate.top1
    )
    log.say(terms.line)
    features, out = cpu.processor().get("isa", "").split(), []
    for entrant in entrants:
        why = compression.unfit(entrant.precision, features) if entrant.precision else ""
        if why:
            log.say(f"{entrant.label} does not take part: {why}")
        if not entrant.precision or (terms.allowed and not why):
            out.append(entrant)
    return tuple(out)

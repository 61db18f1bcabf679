"""Every engine beside plain TensorFlow. A new one is a file that runs it, where needed one that converts, and a row."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import re
from collections.abc import Callable, Sequence
from typing import Any

from tfopt_optimizer import buckets, compression, cpu, device, likely
from tfopt_optimizer.engines import openvino_blocked
from tfopt_optimizer.entrant import Entrant
from tfopt_optimizer.flags import OptimizerFlags

_HERE = "tfopt_optimizer.engines"
HOST = likely.HOST
MOST_STREAMS = 32  # the largest default batch


@dataclasses.dataclass(frozen=True)
class Row:
    """`package` is what must be installed. `allowed`: whether the flags let it take part; lossless engines always may.

    `variants` of the usable cores, the simplest first. The others are "module:Class" in this folder: `worker` and
    `converter` (engines/base.py: Engine) for the optimizer, `opener` for the server: Opener(place, load_tensorflow)
    with `runner(target, note)`. `standby`, `heavy` and `reserve` as in entrant.Entrant; a variant of one thread
    beside one of several is `light`. The variants of a `lossy` row end with their precision (compression.py). `splits`:
    it also takes part as "host+<engine>", which runs a signature's device segments on it and the rest on the host.
    """

    engine: str
    package: str
    variants: Callable[[int], tuple[str, ...]]
    worker: str
    opener: str
    converter: str = ""
    standby: bool = False
    heavy: bool = False
    reserve: bool = False
    lossy: bool = False
    splits: bool = True
    allowed: Callable[[OptimizerFlags], bool] = lambda flags: True


def _threads(cores: int) -> tuple[str, ...]:
    return ("t1", f"t{cores}") if cores > 1 else ("t1",)


def _counts(cores: int) -> tuple[int, ...]:
    """Of how many streams variants come: a power of two, for parts of a batch must be equal and batches mostly are
    powers of two; where there are many cores also the rows that default batches of slow models end at."""
    most = 1 << min(cores, MOST_STREAMS).bit_length() - 1
    return tuple(sorted({min(most, buckets.ALWAYS), most} - {1}))


def _litert(cores: int) -> tuple[str, ...]:
    return (*_threads(cores), *(f"s{count}" for count in _counts(cores)))


def _streams(cores: int) -> tuple[str, ...]:
    return tuple(f"f32-s{count}{part}" for count in _counts(cores) for part in ("", "p1"))


def _packed(cores: int) -> tuple[str, ...]:
    return (likely.PACKED, *(f"{likely.PACKED}-s{count}" for count in _counts(cores)))


def _blocked(cores: int) -> tuple[str, ...]:
    """The funnel first, which mostly beats the others: the time may end."""
    funnels = (f"f32-blocked-funnel-s{count}" for count in _counts(cores))
    return (*funnels, "f32-blocked", *(f"f32-blocked-s{count}" for count in _counts(cores)))


def _winograd(cores: int) -> tuple[str, ...]:
    return ("f32-winograd", *(f"f32-winograd-s{count}p1" for count in _counts(cores)))


def least_rows(engine: str, variant: str) -> int:
    """From how many rows on a variant differs from a simpler one. LiteRT loses a dimension of lone rows."""
    found = re.search(r"(?:^|-)s(\d+)(p1)?$", variant)
    if found is None:
        return 1
    streams = int(found[1])
    if engine == "litert" or variant.startswith((f"{likely.PACKED}-s", "f32-blocked-funnel")):
        return 2 * streams
    if found[2]:  # of as many rows as streams, -s<streams> makes single rows too
        return streams if "winograd" in variant else streams + 1
    return 1


def _shares(engine: str, variant: str) -> int:
    """Among how many threads equal parts of a batch run."""
    found = re.search(r"-s(\d+)(p1)?$", variant)
    return int(found[1]) if found and engine == "openvino" and not likely.packs(engine, variant) else 1


def _litert_precisions(cores: int) -> tuple[str, ...]:
    precisions = (compression.INT8_DYNAMIC, compression.INT8_WEIGHTS)
    return tuple(f"{threads}+{precision}" for precision in precisions for threads in _threads(cores))


def _openvino_precisions(_cores: int) -> tuple[str, ...]:
    return (compression.INT8, compression.INT8_WEIGHTS, compression.INT4_WEIGHTS, compression.PRUNED)


def _compression(flags: OptimizerFlags) -> bool:
    return flags.allow_compression


# The order is that in which an engine's variants are tried: choose.py has that of simplicity.
ROWS = (
    Row("litert", "ai_edge_litert", _litert, "litert:Worker", "litert:Opener", "litert_convert:Converter",
        heavy=True),
    Row("openvino", "openvino", lambda cores: ("f32",), "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True),
    Row("openvino", "openvino", _packed, "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True, splits=False),
    # Those for convolutions before the streams: they gain more, and a model without any refuses them at once.
    Row("openvino", "openvino", _winograd, "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True),
    Row("openvino", "openvino", _blocked, "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True, allowed=lambda flags: bool(openvino_blocked.family())),
    Row("openvino", "openvino", lambda cores: ("f32-amx",), "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True, allowed=lambda flags: "amx_bf16" in cpu.processor().get("isa", "")),
    Row("openvino", "openvino", _streams, "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True),
    Row("onnxruntime", "onnxruntime", _threads, "onnxruntime:Worker", "onnxruntime:Opener",
        "onnxruntime_convert:Converter", standby=True, reserve=True),
    Row("xla", "tensorflow", lambda cores: ("jit",), "jit:Worker", "jit:Opener", splits=False,
        allowed=lambda flags: flags.allow_precompilation and not flags.use_tfrt),
    Row("xla", "jaxlib", lambda cores: ("pjrt",), "xla:Worker", "xla:Opener", "stablehlo:Lowerer",
        allowed=lambda flags: flags.device == device.CPU and flags.allow_precompilation and flags.use_tfrt),
    # On an accelerator there is no other engine: its being asked for is what allows it.
    Row("xla", "jaxlib", lambda cores: (device.GPU,), "xla:Worker", "xla:Opener", "stablehlo:Lowerer",
        allowed=lambda flags: flags.device == device.GPU and flags.use_tfrt),
    Row("xla", "jaxlib", lambda cores: (device.TPU,), "xla:Worker", "xla:Opener", "stablehlo:Lowerer",
        allowed=lambda flags: flags.device == device.TPU and flags.use_tfrt),
    Row("xla", "jaxlib", lambda cores: (f"{device.GPU}+{compression.TF32}",), "xla:Worker", "xla:Opener",
        "stablehlo:Lowerer", lossy=True,
        allowed=lambda flags: flags.device == device.GPU and flags.use_tfrt and flags.allow_compression),
    Row("xla", "jaxlib", lambda cores: (f"{device.TPU}+{compression.BF16_PRODUCTS}",), "xla:Worker", "xla:Opener",
        "stablehlo:Lowerer", lossy=True,
        allowed=lambda flags: flags.device == device.TPU and flags.use_tfrt and flags.allow_compression),
    Row("litert", "ai_edge_quantizer", _litert_precisions, "litert:Worker", "litert:Opener",
        "litert_compress:Converter", standby=True, lossy=True, allowed=_compression),
    Row("openvino", "openvino", lambda cores: (compression.BF16,), "openvino:Worker", "openvino:Opener",
        "openvino_freeze:Converter", standby=True, lossy=True, allowed=_compression),
    Row("openvino", "nncf", _openvino_precisions, "openvino:Worker", "openvino:Opener",
        "openvino_compress:Converter", standby=True, lossy=True, allowed=_compression),
)  # fmt: skip


def entrants(flags: OptimizerFlags) -> tuple[tuple[Entrant, ...], tuple[str, ...]]:
    """The candidates that the flags allow, and the packages among theirs that are not installed."""
    rows = [r for r in ROWS if r.allowed(flags) and (not flags.engines or r.engine in flags.engines)]
    missing = tuple(dict.fromkeys(r.package for r in rows if importlib.util.find_spec(r.package) is None))
    cores = flags.intra_op_threads or cpu.usable_cores()
    found = tuple(_entrant(r, v, cores) for r in rows if r.package not in missing for v in r.variants(cores))
    return found, missing


def precision(row: Row, variant: str) -> str:
    """What a lossy row's variant computes in, "" for a lossless one."""
    return variant.rpartition("+")[2] if row.lossy else ""


def _entrant(row: Row, variant: str, cores: int) -> Entrant:
    light = cores > 1 and variant.partition("+")[0] == "t1"
    return Entrant(
        row.engine,
        variant,
        _path(row.worker),
        _path(row.converter),
        row.standby,
        heavy=row.heavy,
        light=light,
        reserve=row.reserve,
        rows=least_rows(row.engine, variant),
        streams=_shares(row.engine, variant),
        precision=precision(row, variant),
    )


def splits(whole: Sequence[Entrant]) -> tuple[Entrant, ...]:
    """The same engines for the device segments of split signatures, exact and lossy ones."""
    worker, converter = _path("split:Worker"), _path("split_convert:Converter")
    return tuple(
        dataclasses.replace(e, engine=HOST + e.engine, worker=worker, converter=converter, standby=True)
        for e in whole
        if row(e.engine, e.variant).splits
    )


def row(engine: str, variant: str) -> Row:
    """KeyError for an engine that this version does not have."""
    rows = [r for r in ROWS if r.engine == engine]
    of_two = re.sub(r"(^t|^s|-s)\d+", r"\g<1>2", variant)  # a row is that of all its numbers of threads
    found = next((r for r in rows if of_two in r.variants(2)), rows[0] if rows else None)
    if found is None:
        raise KeyError(f"there is no engine {engine!r} in this version")
    return found


def worker(engine: str, variant: str) -> str:
    """ "module:Class" of the engine's worker."""
    return _path(row(engine, variant).worker)


def converter(engine: str, variant: str) -> str:
    """ "module:Class" of the engine's converter, "" when it has none."""
    return _path(row(engine, variant).converter)


def opener(engine: str, variant: str) -> Callable[..., Any]:
    """The class that opens a plan's runners of this engine. KeyError for an engine that this version does not have."""
    name = "split:Opener" if engine.startswith(HOST) else row(engine, variant).opener
    module, _, name = _path(name).partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return found


def _path(name: str) -> str:
    return f"{_HERE}.{name}" if name else ""

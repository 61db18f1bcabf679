"""Which lossy candidates may take part, and which records they are calibrated and checked on: pure rules.

How far their answers may be off is verify.py's: this module decides who is asked at all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import NamedTuple

ENOUGH = 16  # records (rows) from which on calibration gets its own half
CALIBRATION_ROWS = 300  # what NNCF takes by default; more changes ranges little and takes long

BF16, INT8, INT8_DYNAMIC = "bf16", "int8", "int8-dynamic"
INT8_WEIGHTS, INT4_WEIGHTS, PRUNED = "int8-weights", "int4-weights", "int8-pruned"
# What accelerators make of float32 products by themselves.
TF32, BF16_PRODUCTS = "tf32", "bf16-products"
# Shares of zeros that are tried, the largest first. Below the last nothing is gained (docs/decisions/0056).
SPARSITIES = (0.9, 0.8, 0.7)


@dataclasses.dataclass(frozen=True)
class Precision:
    """`needs`: processor features of which one must be there (names as in /proc/cpuinfo); empty: any processor will do.

    `calibrated`: its ranges come from records, so it must not be judged on the same ones where there are others.
    `about` is for reports.
    """

    name: str
    about: str
    needs: frozenset[str] = frozenset()
    calibrated: bool = False


PRECISIONS = {
    p.name: p
    for p in (
        Precision(BF16, "bfloat16 arithmetic", frozenset({"avx512_bf16", "amx_bf16", "bf16"})),
        Precision(TF32, "products of inputs rounded to TF32 (10 bits) on a gpu"),
        Precision(BF16_PRODUCTS, "products of inputs rounded to bfloat16 on a tpu"),
        Precision(INT8, "8-bit arithmetic, ranges calibrated on records", calibrated=True),
        Precision(INT8_DYNAMIC, "8-bit weights and arithmetic, ranges found at run time"),
        Precision(INT8_WEIGHTS, "8-bit weights, float32 arithmetic"),
        Precision(INT4_WEIGHTS, "4-bit weights, float32 arithmetic"),
        Precision(
            PRUNED,
            "8-bit arithmetic, the smallest weights set to zero and skipped",
            frozenset({"amx_int8"}),
            calibrated=True,
        ),
    )
}


def unfit(precision: str, features: Collection[str]) -> str:
    """Why this processor cannot gain from a precision, "" when it can. Emulated arithmetic is slower than float32."""
    needs = PRECISIONS[precision].needs
    if not needs or needs & set(features):
        return ""
    return f"this processor has none of {', '.join(sorted(needs))}"


class Terms(NamedTuple):
    """`allowed`: lossy candidates take part; `line`: what the log says of it."""

    allowed: bool
    line: str


def terms(records: str, requires_records: bool, mean: float, largest: float, top1: float) -> Terms:
    """Whether lossy candidates may take part with these records ("warmup", "synthesized"), and how the log says it."""
    gate = f"mean error {mean:.3%}, max error {largest:.3%} and {1 - top1:.2%} changed best classes at most"
    if records == "warmup":
        return Terms(True, f"allow_compression: lossy candidates take part; on the warmup records they may have {gate}")
    if requires_records:
        return Terms(
            False,
            "WARNING: allow_compression: lossy candidates are refused: the model has no warmup records and "
            "--compression_requires_records is set",
        )
    return Terms(
        True,
        "WARNING: allow_compression WITHOUT WARMUP RECORDS: lossy candidates are compared with plain TF on made-up "
        f"inputs alone ({gate}), which says little about real requests. Add warmup records, or set "
        "--compression_requires_records",
    )


class Split(NamedTuple):
    """Numbers of the records (or rows) to calibrate and to check with; `apart`: no record is in both."""

    calibration: tuple[int, ...]
    check: tuple[int, ...]
    apart: bool


def split(count: int) -> Split:
    """Every other record calibrates, so that both halves see what changes over a file; few records do both."""
    everything = tuple(range(count))
    if count < ENOUGH:
        return Split(everything[:CALIBRATION_ROWS], everything, False)
    calibration = everything[1::2][:CALIBRATION_ROWS]
    chosen = set(calibration)
    return Split(calibration, tuple(i for i in everything if i not in chosen), True)

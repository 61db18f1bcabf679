"""Which candidates take part on how many cores, and for which batches."""

from __future__ import annotations

import pytest
from tfopt_optimizer.engines import openvino, table
from tfopt_optimizer.flags import DEFAULT_BUCKETS, OptimizerFlags


def entrants(cores: int) -> list[table.Entrant]:
    return list(table.entrants(OptimizerFlags(intra_op_threads=cores, engines=("litert", "openvino")))[0])


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(1, ()), (2, (2,)), (3, (2,)), (4, (4,)), (6, (4,)), (8, (8,)), (16, (8, 16)), (22, (8, 16)), (96, (8, 32))],
)
def test_streams_are_as_many_as_batches_divide_among(cores: int, counts: tuple[int, ...]) -> None:
    there = entrants(cores)
    assert [e.variant for e in there if e.variant.startswith("s")] == [f"s{n}" for n in counts]
    for kind in ("f32-s{}", "f32-s{}p1", "f32-packed-s{}"):
        assert [e.variant for e in there if e.variant in [kind.format(n) for n in range(99)]] == [
            kind.format(n) for n in counts
        ]


@pytest.mark.parametrize("cores", [2, 6, 12, 16, 22, 96])
def test_every_default_batch_of_several_rows_has_streams_that_take_it(cores: int) -> None:
    there = [e for e in entrants(cores) if openvino.streams_of(e.variant) > 1 and not e.variant.endswith("p1")]
    least = min(openvino.streams_of(e.variant) for e in there)
    for rows in DEFAULT_BUCKETS:
        fit = [e.variant for e in there if e.variant.startswith("f32-s") and not e.unfit(rows, alone=True)]
        assert bool(fit) == (rows >= least), (rows, fit)


@pytest.mark.parametrize(
    ("engine", "variant", "rows"),
    [
        ("litert", "t4", 1),
        ("litert", "s4", 8),
        ("openvino", "f32", 1),
        ("openvino", "f32-s4", 1),
        ("openvino", "f32-s4p1", 5),
        ("openvino", "f32-winograd-s4p1", 4),
        ("openvino", "f32-packed-s4", 8),
        ("openvino", "f32-blocked-funnel-s4", 8),
        ("openvino", "f32-blocked-s4", 1),
        ("onnxruntime", "t4", 1),
    ],
)
def test_from_how_many_rows_on_a_variant_differs_from_a_simpler_one(engine: str, variant: str, rows: int) -> None:
    assert table.least_rows(engine, variant) == rows

"""The benchmark of body forms runs, and every form is answered."""

from __future__ import annotations

from benchmarks import bodies, table


def test_every_form_of_every_size_is_measured():
    rows = bodies.measure(seconds=0.01)
    assert [(row[0], row[1]) for row in rows] == [(s, f) for s in bodies.SHAPES for f in ("JSON", "protobuf", ".npy")]
    assert all(row[3] > 0 for row in rows)
    assert "an image" in table.render(bodies.HEADER, rows)

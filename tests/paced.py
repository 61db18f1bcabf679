"""Measured times that depend on the runner alone, for tests that are not about who was faster this time."""

from __future__ import annotations

from unittest import mock

import numpy as np

PLAIN_US = 1000.0


def paced(microseconds):
    """A context in which a call takes microseconds("litert/t1"), and PLAIN_US on plain TensorFlow.

    Every runner is called all the same, and who fails then is out.
    """

    def compare(reference, candidates, left_s=None):
        def times(run, us):
            return np.full(3, us) if np.isfinite(run(0.0, 1)).all() else np.array([np.inf])

        labels = {name: "/".join(name.rsplit("/", 2)[-2:]) for name in candidates}
        found = {name: times(run, float(microseconds(labels[name]))) for name, run in candidates.items()}
        return times(reference, PLAIN_US), found

    def saturate(runs, cores, left_s=None):
        return dict.fromkeys(runs, (1000.0, 1))

    return mock.patch.multiple("tfopt_optimizer.measure", compare=compare, saturate=saturate)

"""Texts of many lengths, a plan that shortens them, and what their buckets take."""

from __future__ import annotations

import numpy as np
from tfopt_optimizer.plan import Filled, Shortening
from tfopt_optimizer.shortening import Cost

SIZE = 64
PLAN = Shortening((Filled("ids", 1, 0, True), Filled("mask", 1, 0, True)), SIZE, (16, 32), "")


def texts(lengths, size=SIZE, pad=0, seed=0):
    """ids and mask of texts of these lengths; ids are never `pad` inside a text."""
    random = np.random.default_rng(seed)
    mask = (np.arange(size)[None] < np.array(lengths)[:, None]).astype(np.int32)
    ids = np.where(mask == 1, random.integers(5, 90, mask.shape), pad).astype(np.int32)
    return {"ids": ids, "mask": mask}


def costs_of(*buckets, static=True):
    return [Cost(rows, us, static) for rows, us in buckets]


COSTS = {16: costs_of((1, 1.0), (4, 3.0)), 32: costs_of((1, 2.0), (4, 7.0)), SIZE: costs_of((1, 4.0), (4, 12.0))}

"""Serialized Examples for tests, and models of them in plain Python."""

from __future__ import annotations

import numpy as np
from google.protobuf.message import DecodeError
from tfopt_optimizer import independence
from tfopt_protos import messages

LISTS = {"f": "float_list", "i": "int64_list", "O": "bytes_list", "S": "bytes_list"}


def example(kind="Example", lists=None, **features):
    """A serialized Example; `lists`: feature name -> a list of lists, of a SequenceExample."""
    made = messages.message(f"tensorflow.{kind}")()
    context = made.features if kind == "Example" else made.context
    for name, values in features.items():
        fill(context.feature[name], values)
    for name, each in (lists or {}).items():
        for values in each:
            fill(made.feature_lists.feature_list[name].feature.add(), values)
    return made.SerializeToString(deterministic=True)


def fill(feature, values):
    getattr(feature, LISTS[np.array(values).dtype.kind]).value.extend(values)


def parsing(compute, **fixed):
    """A model of Examples: compute(values per row) -> one number per row. `fixed`: lengths that features must have."""

    def run(feeds):
        parsed = []
        for value in feeds["examples"].ravel():
            try:
                found = messages.message("tensorflow.Example").FromString(value).features.feature
            except DecodeError as error:
                raise independence.Refused("Could not parse example input") from error
            row = {
                name: list(getattr(found[name], found[name].WhichOneof("kind") or "float_list").value) for name in "vx"
            }
            if any(len(row[name]) != length for name, length in fixed.items()):
                raise independence.Refused("Number of float values != expected")
            parsed.append(row)
        return {"y": np.array(compute(parsed), np.float64)}

    return run


RECORDS = np.array([example(v=[1.0, 2.0], x=[3.0]), example(v=[4.0, 5.0], x=[3.0])], object)

"""Answers as wire bytes: what stands around the values is kept per look, and must be what protobuf reads."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_protos import dtypes, messages, tensors
from tfopt_server import predict_message as codec

NAMES = ("float", "double", "int32", "int64", "uint8", "bool", "half", "bfloat16", "complex64", "string")


@pytest.mark.parametrize("content", [False, True], ids=["typed", "content"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_of_one_look(name: str, content: bool):
    for seed in range(3):
        random = np.random.default_rng(seed)
        plain = random.integers(0, 2 if name == "bool" else 99, (2, 3))
        array = np.vectorize(lambda n: b"%d" % n, otypes=[object])(plain) if name == "string" else plain
        array = array.astype(dtypes.to_numpy(name))
        outputs = {"b": array, "a": np.float32([seed]), "t": array.T, "none": array[:0]}
        sent = codec.answer("m", 3, "s", outputs, content)
        answer = messages.PredictResponse.FromString(sent)
        assert answer.model_spec == messages.ModelSpec(name="m", version={"value": 3}, signature_name="s")
        for alias, expected in outputs.items():
            found = tensors.to_numpy(answer.outputs[alias])
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            assert found.tolist() == expected.tolist()
            assert bool(answer.outputs[alias].tensor_content) == (content and expected.size > 0)


def test_looks_are_not_mixed_up():
    answers = [
        codec.answer(name, version, "s", {alias: np.zeros(shape, dtype)}, content)
        for name, version, alias, shape, dtype, content in (
            ("m", 1, "y", (1, 2), "f4", False), ("m", 2, "y", (1, 2), "f4", False), ("n", 1, "y", (1, 2), "f4", False),
            ("m", 1, "z", (1, 2), "f4", False), ("m", 1, "y", (2, 1), "f4", False), ("m", 1, "y", (1, 2), "f8", False),
            ("m", 1, "y", (1, 2), "f4", True), ("m", 1, "y", (1, 2), ">f4", False),
        )
        for _ in range(2)
    ]  # fmt: skip
    assert answers[0::2] == answers[1::2]
    assert len(set(answers)) == 7  # the last is the first in another byte order

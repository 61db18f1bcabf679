"""What a client hears of a request that only TensorFlow could answer, where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import outside
from tfopt_optimizer.plan import SignatureInfo, TensorInfo

SIGNATURE = SignatureInfo(
    "serving_default",
    "tensorflow/serving/predict",
    (TensorInfo("x", "float", (None, 3)), TensorInfo("word", "string", (None,)), TensorInfo("k", "int32", ())),
    (),
    defaults=("k",),
)
X, WORD, K = np.ones([2, 3], np.float32), np.array([b"a", b"b"], object), np.int32(1).reshape(())


@pytest.mark.parametrize(
    ("feeds", "code", "text"),
    [
        ({"word": WORD}, "INVALID_ARGUMENT", "input 'x': expected float, received nothing"),
        ({"x": X.astype(int), "word": WORD}, "INVALID_ARGUMENT", "input 'x': expected float, received int64"),
        ({"x": X[:, :2], "word": WORD}, "INVALID_ARGUMENT", "input 'x': expected shape [?, 3], received [2, 2]"),
        ({"x": X, "word": WORD[0:1, None]}, "INVALID_ARGUMENT", "input 'word': expected shape [?], received [1, 1]"),
        ({"x": X, "word": WORD, "y": X}, "INVALID_ARGUMENT", "there is no input 'y'"),
        ({"x": X, "word": WORD, "k": K}, "UNIMPLEMENTED", "signature 'serving_default': no such shape; requests"),
        ({"x": X, "word": WORD}, "UNIMPLEMENTED", "signature 'serving_default': no such shape; requests"),
    ],
)
def test_what_the_signature_rules_out_is_the_clients_mistake_and_the_rest_is_not_served(feeds, code, text):
    error = outside.refusal(SIGNATURE, feeds, "no such shape")
    assert error.code == code
    assert error.message.startswith(text)


def test_values_that_the_engine_declines():
    error = outside.refusal(SIGNATURE, {"x": X, "word": WORD}, "")
    assert error.message == (
        "signature 'serving_default': its engine declines the values; requests outside the plan need TensorFlow, which "
        "is not installed on this server"
    )

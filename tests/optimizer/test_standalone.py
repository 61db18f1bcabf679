"""Plans for servers where TensorFlow is not installed: what is left out, and when there is no such plan."""

from __future__ import annotations

import pytest
from tfopt_optimizer import standalone
from tfopt_optimizer.errors import OptimizeError
from tfopt_optimizer.plan import BucketPlan, Candidate, SignatureInfo, SignaturePlan


def bucket(batch, engine, variant="t1", reason=""):
    shapes = {"x": (batch, 2)}
    candidates = (Candidate("litert", "t1", "rejected", reason),) if reason else ()
    return BucketPlan(batch, shapes, engine, variant, engine != "tensorflow", "", candidates, f"why {batch}")


def signature(key, *buckets):
    return SignaturePlan(SignatureInfo(key, "", (), ()), True, "", True, "", buckets)


def test_buckets_that_only_tensorflow_runs_are_left_out_by_name():
    said = []
    given = signature("s", bucket(1, "litert"), bucket(8, "tensorflow", "function"), bucket(32, "host+litert"))
    (found,) = standalone.without_tensorflow([given], said.append)
    assert [b.batch for b in found.buckets] == [1, 32]
    assert said == ["s x 8: left out, only TensorFlow can run it"]


def test_a_signature_with_nothing_left_is_an_error_that_says_why():
    fine = signature("fine", bucket(1, "openvino", "f32"))
    words = signature("words", bucket(1, "tensorflow", "session", reason="the operation Foo is not known"))
    never = signature("never", bucket(None, "tensorflow", "session"), bucket(2, "xla", "jit"))
    with pytest.raises(OptimizeError) as caught:
        standalone.without_tensorflow([fine, words, never], lambda _: None)
    assert str(caught.value) == (
        "--without_tensorflow: no engine takes words (litert: the operation Foo is not known); never (why None)"
    )

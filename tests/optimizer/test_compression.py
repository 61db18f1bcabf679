"""Who may take part in compression, and what is calibrated and checked on which records."""

from __future__ import annotations

import numpy as np
import pytest
from tfopt_optimizer import buckets, choose, compression
from tfopt_optimizer.choose import Trial
from tfopt_optimizer.compression import Split
from tfopt_optimizer.contest import BucketSpec
from tfopt_optimizer.engines import calibration, table
from tfopt_optimizer.engines.base import Target
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.independence import Proof
from tfopt_optimizer.plan import Measured, SignatureInfo
from tfopt_optimizer.saved_model import State
from tfopt_optimizer.study import Study

INFO = SignatureInfo("serving_default", "", (), ())


def test_few_records_do_both_and_many_are_kept_apart():
    assert compression.split(3) == Split((0, 1, 2), (0, 1, 2), False)
    assert compression.split(15).apart is False
    calibration_rows, check, apart = compression.split(17)
    assert (calibration_rows, apart) == ((1, 3, 5, 7, 9, 11, 13, 15), True)
    assert sorted(calibration_rows + check) == list(range(17))


def test_calibration_takes_no_more_than_it_needs_and_the_rest_is_checked():
    found = compression.split(1000)
    assert len(found.calibration) == compression.CALIBRATION_ROWS
    assert len(found.check) == 700
    assert not set(found.calibration) & set(found.check)


def test_bfloat16_needs_a_processor_that_has_it():
    assert compression.unfit("bf16", ["avx2", "avx512f"]) == "this processor has none of amx_bf16, avx512_bf16, bf16"
    assert compression.unfit("bf16", ["avx512_bf16"]) == ""
    assert compression.unfit("int8", []) == ""


@pytest.mark.parametrize(
    ("records", "required", "allowed", "text"),
    [
        ("warmup", True, True, "allow_compression: lossy candidates take part; on the warmup records"),
        ("synthesized", False, True, "WARNING: allow_compression WITHOUT WARMUP RECORDS"),
        ("synthesized", True, False, "WARNING: allow_compression: lossy candidates are refused"),
    ],
)
def test_without_records_lossy_candidates_are_announced_loudly_or_refused(records, required, allowed, text):
    terms = compression.terms(records, required, 1e-4, 1e-2, 0.99)
    assert terms.allowed is allowed
    assert terms.line.startswith(text)
    if allowed:
        assert "mean error 0.010%, max error 1.000% and 1.00% changed best classes at most" in terms.line


def labels(**flags):
    return [e.label for e in table.entrants(OptimizerFlags(intra_op_threads=2, **flags))[0] if e.precision]


def test_lossy_candidates_need_the_flag_and_follow_the_exact_ones(monkeypatch):
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: name)
    assert labels() == []
    assert labels(allow_compression=True) == [
        "litert/t1+int8-dynamic",
        "litert/t2+int8-dynamic",
        "litert/t1+int8-weights",
        "litert/t2+int8-weights",
        "openvino/bf16",
        "openvino/int8",
        "openvino/int8-weights",
        "openvino/int4-weights",
        "openvino/int8-pruned",
    ]
    lossy = [e for e in table.entrants(OptimizerFlags(allow_compression=True))[0] if e.precision]
    assert {e.precision for e in lossy} <= compression.PRECISIONS.keys()
    assert labels(allow_compression=True, engines=("xla",)) == []


def test_without_a_quantizer_the_others_take_part(monkeypatch):
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None if name == "nncf" else name)
    found, missing = table.entrants(OptimizerFlags(allow_compression=True))
    assert missing == ("nncf",)
    assert "openvino/bf16" in {e.label for e in found}
    assert "openvino/int8" not in {e.label for e in found}


def trial(engine, variant, us, precision=""):
    return Trial(engine, variant, "", measured=Measured(us, us, 9), precision=precision)


def test_a_close_answer_must_be_faster_by_more_than_a_tie():
    exact, close = trial("openvino", "f32", 100.0), trial("openvino", "bf16", 97.0, "bf16")
    assert choose.winner([exact, close], "function") is exact
    faster = trial("litert", "t1+int8-dynamic", 90.0, "int8-dynamic")
    assert choose.winner([exact, close, faster], "function") is faster
    (kept,) = (c for c in choose.candidates([exact, faster], faster) if c.status == "chosen")
    assert kept.precision == "int8-dynamic"


def study(count, split):
    feeds = {"x": np.arange(count, dtype=np.float32)[:, None]}
    rows = buckets.stack([feeds], 1024)
    spec = BucketSpec(4, {"x": (4, 1)}, "s0/b4")
    return Study(INFO, State(), Proof(True, ""), (spec,), "", rows, (feeds,), split), spec


def test_lossy_candidates_are_checked_on_rows_that_nothing_was_calibrated_on():
    found, spec = study(21, compression.split(21))
    material = found.material(spec)
    batches = [set(feeds["x"].ravel()) for feeds in material.feeds]
    calibrated = {float(v) for call in found.calibration() for v in call["x"].ravel()}
    assert calibrated == {float(i) for i in range(1, 21, 2)}
    assert material.apart == 3  # 11 rows in batches of 4
    assert not set.union(*batches[:3]) & calibrated
    assert set.union(*batches) == {float(i) for i in range(21)}


def test_without_compression_or_with_few_records_all_are_checked_by_everyone():
    for split in (None, compression.split(8)):
        found, spec = study(8, split)
        material = found.material(spec)
        assert (len(list(material.feeds)), material.apart) == (2, 0)
    assert len(found.calibration()) == 2


def test_calibration_records_survive_their_file(tmp_path):
    calls = [
        {"word": np.array([b"a\0", b""], object), "x": np.ones([2, 3], np.float32)},
        {"word": np.array([b"c"], object), "x": np.zeros([1, 3], np.float32)},
    ]
    calibration.write(tmp_path / "s0", calls, OptimizerFlags().lossy())
    found = calibration.read(calibration.path(tmp_path, Target(INFO, "int8", folder="s0/b8")))
    assert [{n: a.tolist() for n, a in call.items()} for call in found] == [
        {n: a.tolist() for n, a in call.items()} for call in calls
    ]
    assert (
        calibration.gate(calibration.path(tmp_path, Target(INFO, "int8", folder="s0/b8"))) == OptimizerFlags().lossy()
    )
    with pytest.raises(FileNotFoundError):
        calibration.read(tmp_path / "s1" / "calibration" / "feeds.npz")

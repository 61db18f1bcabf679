"""From the table of engines to served answers: LiteRT and OpenVINO in plans that are opened without TensorFlow."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from tfopt_optimizer import plan_files
from tfopt_optimizer.engines import openvino_blocked, table
from tfopt_optimizer.flags import OptimizerFlags
from tfopt_optimizer.optimize import OptimizeJob, optimize
from tfopt_optimizer.servable import Servable

WORDS = np.array([b"red", b"nope", b"", b"blu\0e", b"green"], dtype=object)
IMAGES = np.random.default_rng(4).standard_normal((5, 16, 16, 3)).astype(np.float32)
SERVE = """
import json, sys
from pathlib import Path
import numpy as np
from tfopt_optimizer import plan as plans
from tfopt_optimizer.servable import Servable
told = {}
for name, model, folder, feeds in json.load(sys.stdin):
    kinds = {"image": np.float32, "id": np.int64}
    feeds = {k: np.array(a, kinds[k]) if k in kinds else np.array([v.encode() for v in a], object)
             for k, a in feeds.items()}
    servable = Servable.open(Path(model), Path(folder), plans.read(Path(folder)))
    found = servable.signatures["serving_default"].run(feeds)
    told[name] = {k: [v.decode() for v in a] if a.dtype == object else a.tolist() for k, a in sorted(found.items())}
    assert servable.notes == ()
told["tensorflow"] = "tensorflow" in sys.modules
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def planned(savedmodel, tmp_path_factory):
    """`lookup` by whatever is fastest; `cnn` by OpenVINO, in batches that are worth a call of it."""

    def make(name, feeds, sizes, engines=()):
        folder = tmp_path_factory.mktemp(name) / "plan"
        flags = OptimizerFlags(allowed_batch_sizes=sizes, engines=engines, optimize_budget_s=300.0)
        job = OptimizeJob(savedmodel(name), folder, ("serve",), flags, {"serving_default": (feeds,)}, "warmup")
        return savedmodel(name), folder, optimize(job, lambda _: None), feeds

    return {
        "lookup": make("lookup", {"word": WORDS, "id": np.arange(5)}, (1, 4)),
        "cnn": make("cnn", {"image": IMAGES}, (16, 64), ("openvino",)),
    }


def chosen(plan):
    return [(b.batch, b.engine, b.variant, b.static, b.artifact) for b in plan.signature("serving_default").buckets]


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.tensorflow
def test_a_plan_names_the_engine_and_keeps_its_files_alone(planned):
    _, folder, plan, _ = planned["lookup"]
    # Which of the variants that share their files is the fastest is not asserted.
    assert [(b, engine, v[0], *rest) for b, engine, v, *rest in chosen(plan)] == [
        (batch, "litert", "t", True, "s0/litert") for batch in (1, 4)
    ]
    assert files(folder) == ["plan.json", "s0/litert/model.tflite"]
    assert plan.weights_bytes == (folder / "s0/litert/model.tflite").stat().st_size
    whole = [c for c in plan.signatures[0].buckets[0].candidates if c.engine == "openvino"]
    assert {(c.status, c.reason) for c in whole} == {
        ("rejected", "input 'word' is of type string, which OpenVINO has no exact form of"),
        ("skipped", "for batches of 2 rows or more"),
        ("skipped", "for batches of 3 rows or more"),
        ("skipped", "for batches of 4 rows or more"),
        ("skipped", "for batches that divide among 2 threads"),
        ("skipped", "its rows have no filling that could be left out"),
    }

    _, folder, plan, _ = planned["cnn"]
    assert [(b, engine, v[:3], *rest) for b, engine, v, *rest in chosen(plan)] == [
        (batch, "openvino", "f32", True, "s0/openvino") for batch in (16, 64)
    ]
    assert files(folder) == ["plan.json", "s0/openvino/model.bin", "s0/openvino/model.xml"]
    assert plan.weights_bytes == (folder / "s0/openvino/model.bin").stat().st_size
    for _, folder, plan, _ in planned.values():
        plan_files.verify(plan, folder)
        assert {"ai-edge-litert", "openvino"} <= plan.fingerprint.versions.keys()


@pytest.mark.tensorflow
def test_a_plan_is_opened_again_and_answers_without_tensorflow(planned):
    def as_json(feeds):
        return {k: [v.decode() for v in a] if a.dtype == object else a.tolist() for k, a in feeds.items()}

    jobs = [(name, str(model), str(folder), as_json(f)) for name, (model, folder, _, f) in planned.items()]
    done = subprocess.run(
        [sys.executable, "-c", SERVE], input=json.dumps(jobs), text=True, stdout=subprocess.PIPE, check=True
    )
    told = json.loads(done.stdout)
    assert told["tensorflow"] is False
    assert told["lookup"]["name"] == ["uno", "?", "?", "tres", "dos"]
    assert told["lookup"]["index"] == [1, 99, 4, 3, 2]
    servable = Servable.open(planned["cnn"][0])
    expected = servable.signatures["serving_default"].run({"image": IMAGES})["scores"]
    np.testing.assert_allclose(told["cnn"]["scores"], expected, rtol=1e-4, atol=1e-6)
    servable.close()


@pytest.mark.tensorflow
def test_what_an_engine_declines_tensorflow_answers_in_its_own_words(planned):
    from tfopt_optimizer.errors import EngineError

    model, folder, plan, _ = planned["lookup"]
    servable = Servable.open(model, folder, plan)
    runner = servable.signatures["serving_default"]
    for _ in range(2):
        with pytest.raises(EngineError) as failed:
            runner.run({"word": WORDS[:1], "id": np.array([1000])})
        assert failed.value.code == "INVALID_ARGUMENT"
        assert failed.value.message.startswith("indices[0] = 1000 is not in [0, 100)")
    servable.close()


def labels(**flags):
    entrants, missing = table.entrants(OptimizerFlags(intra_op_threads=4, **flags))
    assert missing == ()
    return [f"{e.engine}/{e.variant}" for e in entrants]


BLOCKED = ["openvino/f32-blocked-funnel-s4", "openvino/f32-blocked", "openvino/f32-blocked-s4"]


@pytest.mark.parametrize(
    ("isa", "more"),
    [
        ("sse4_2", []),
        ("avx2", BLOCKED),
        ("avx512f avx512bw", BLOCKED),
        ("avx512f avx512bw amx_bf16", [*BLOCKED, "openvino/f32-amx"]),
    ],
)
def test_lossless_engines_need_no_flag_and_xla_does(monkeypatch, isa, more):
    monkeypatch.setattr(table.cpu, "processor", lambda: {"isa": isa})
    openvino = [
        "openvino/f32",
        "openvino/f32-packed",
        "openvino/f32-packed-s4",
        "openvino/f32-winograd",
        "openvino/f32-winograd-s4p1",
        *more,
        "openvino/f32-s4",
        "openvino/f32-s4p1",
    ]
    lossless = ["litert/t1", "litert/t4", "litert/s4", *openvino, "onnxruntime/t1", "onnxruntime/t4"]
    assert labels() == lossless
    assert labels(allow_precompilation=True) == [*lossless, "xla/pjrt"]
    assert labels(allow_precompilation=True, use_tfrt=False) == [*lossless, "xla/jit"]
    assert labels(engines=("xla",)) == []
    assert labels(engines=("openvino", "xla"), allow_precompilation=True) == [*openvino, "xla/pjrt"]


def test_batches_are_cut_where_there_are_rows_enough():
    entrants, _ = table.entrants(OptimizerFlags(intra_op_threads=4))
    assert {e.label: e.rows for e in entrants if e.rows > 1} == {
        "litert/s4": 8,
        "openvino/f32-s4p1": 5,
        "openvino/f32-packed-s4": 8,
        "openvino/f32-winograd-s4p1": 4,
        "openvino/f32-blocked-funnel-s4": 8,
    }


@pytest.mark.parametrize("cores", [1, 2, 16])
def test_a_variants_row_is_found_whatever_its_number_of_threads(cores):
    for row in table.ROWS:
        for variant in row.variants(cores):
            assert variant in table.row(row.engine, variant).variants(cores)
            assert table.row(row.engine, variant).splits == row.splits
    assert table.row("openvino", "f32-packed-s16") is table.row("openvino", "f32-packed")
    cut = table.splits(table.entrants(OptimizerFlags(intra_op_threads=4))[0])
    assert [e.label for e in cut if e.engine == "host+openvino" and e.streams == 4][-1] == "host+openvino/f32-s4p1"
    assert [e.label for e in cut if "packed" in e.variant] == []


def test_equal_parts_are_for_batches_that_divide():
    """One thread would compute the whole of others, while the other cores wait."""
    entrants, _ = table.entrants(OptimizerFlags(intra_op_threads=4))
    shared = {e.variant: e for e in entrants if e.streams == 4}
    blocked = [label.partition("/")[2] for label in (BLOCKED[0], BLOCKED[2]) if openvino_blocked.family()]
    assert set(shared) == {"f32-s4", "f32-s4p1", "f32-winograd-s4p1", *blocked}
    assert {e.streams for e in entrants} == {1, 4}
    parts, rows = shared["f32-s4"], shared["f32-s4p1"]
    assert [parts.unfit(n, alone=True) for n in (1, 4, 6, 8)] == [
        "for batches that divide among 4 threads", "", "for batches that divide among 4 threads", ""
    ]  # fmt: skip
    assert [parts.unfit(n, alone=False) for n in (1, 6)] == ["", ""]  # other calls run beside it
    assert [rows.unfit(n, alone=a) for n, a in ((4, True), (4, False), (8, True))] == [
        *["for batches of 5 rows or more"] * 2, ""
    ]  # fmt: skip


def test_one_core_has_one_variant_and_only_the_fewer_threads_are_light():
    assert [e.variant for e in table.entrants(OptimizerFlags(intra_op_threads=1, engines=("litert",)))[0]] == ["t1"]
    entrants, _ = table.entrants(OptimizerFlags(intra_op_threads=4))
    assert [e.label for e in entrants if e.light] == ["litert/t1", "onnxruntime/t1"]


def test_an_engine_that_is_not_installed_is_left_out_by_name(monkeypatch):
    found = table.importlib.util.find_spec
    monkeypatch.setattr(table.importlib.util, "find_spec", lambda name: None if name == "openvino" else found(name))
    entrants, missing = table.entrants(OptimizerFlags())
    assert missing == ("openvino",)
    assert {e.engine for e in entrants} == {"litert", "onnxruntime"}


@pytest.mark.parametrize(
    ("engine", "variant", "module"),
    [
        ("litert", "t64", "litert"),
        ("openvino", "f32", "openvino"),
        ("onnxruntime", "t2", "onnxruntime"),
        ("xla", "pjrt", "xla"),
        ("xla", "jit", "jit"),
    ],
)
def test_a_plan_finds_the_opener_of_its_engine(engine, variant, module):
    assert table.opener(engine, variant).__module__ == f"tfopt_optimizer.engines.{module}"


def test_an_engine_of_another_version_is_named():
    with pytest.raises(KeyError, match="there is no engine 'abacus' in this version"):
        table.opener("abacus", "wood")

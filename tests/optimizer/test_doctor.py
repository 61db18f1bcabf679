"""Each check of the doctor on a real SavedModel that has the disease, and on healthy ones that have not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import savedmodels
from tfopt_optimizer.doctor import examine, files, patient
from tfopt_optimizer.doctor.findings import Severity
from tfopt_optimizer.doctor.patient import Warmup
from tfopt_optimizer.saved_model import SavedModelError
from tfopt_optimizer.wording import size
from tfopt_protos import messages

GOOD = Warmup(1, "", (("serving_default", frozenset({"x"})),))
Copy = Callable[..., Path]


def findings(
    folder: Path, check: str, warmup: Warmup | None = None, **options: Any
) -> list[tuple[str, str, tuple[str, ...]]]:
    """(severity, finding, evidence) of one check."""
    found = examine.examine(patient.read(folder, warmup=warmup, **options))
    return [(f.severity.value, f.finding, f.evidence) for f in found if f.check == check]


def edit(folder: Path, change: Callable[[Any], None]) -> Path:
    """Changes the first MetaGraphDef of a private copy."""
    path = folder / "saved_model.pb"
    model = messages.SavedModel.FromString(path.read_bytes())
    change(model.meta_graphs[0])
    path.write_bytes(model.SerializeToString())
    return folder


def node(graph: Any, op: str) -> Any:
    """The first node of a kind, in the graph or in any function."""
    bodies = [graph.graph_def.node, *(f.node_def for f in graph.graph_def.library.function)]
    return next(n for nodes in bodies for n in nodes if n.op == op)


# --- healthy ----------------------------------------------------------------------------------------------------------

HEALTHY = [
    "half_plus_two",
    "cnn",
    "mlp_keras",
    "multi",
    "shared",
    "defaults",
    "tabular",
    "sequence",
    "half_plus_two_v1_ref",
]


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_models_have_no_errors_and_no_warnings(name: str) -> None:
    folder = savedmodels.path(name)
    model = patient.read(folder, warmup=GOOD)
    runs = tuple((s.key, frozenset(t.name for t in s.inputs)) for s in model.signatures)
    found = examine.examine(dataclasses.replace(model, warmup=Warmup(len(runs), "", runs)))
    assert [f for f in found if f.severity is not Severity.INFO] == []
    assert {f.check for f in found} <= {"host-ops", "inner-dimensions"}


# --- sick -------------------------------------------------------------------------------------------------------------

# model, check -> all that the check says of it: (severity, finding, evidence); evidence may be cut short by "...".
SICK = [
    ("sick_functions", "batch-dimension", [
        ("warning", "inputs whose first dimension is fixed: requests of other sizes fail or cannot be merged",
         ("serving_default: spare float[8, 1]", "serving_default: x float[8, 4]")),
        ("info", "inputs without a batch dimension: such requests run one at a time", ("image: picture",)),
    ]),
    ("sick_functions", "unused-inputs", [
        ("warning", "serving_default: 1 input without influence on any output", ("spare",)),
    ]),
    ("sick_functions", "dropout", [
        ("warning", "dropout: dropout is active: equal requests get different answers", ("RandomUniform",)),
    ]),
    ("sick_functions", "training-mode", [
        ("warning", "batch normalization in training mode: a row's answer depends on the other rows",
         ("FusedBatchNormV3",)),
    ]),
    ("sick_functions", "compiled-functions", [("info", "functions marked jit_compile=True", ("__inference_",))]),
    ("sick_functions", "python-functions", [
        ("error", "Python functions in the graph: they exist only in the process that exported it",
         ("PyFunc (PyFunc)",)),
    ]),
    ("sick_functions", "bytes-names", [
        ("warning", "image answers bytes (EncodePng) in outputs without the suffix _bytes", ("smaller",)),
        ("info", "image reads bytes (DecodePng); inputs without the suffix _bytes", ("picture",)),
    ]),
    ("sick_functions", "state", [
        ("info", "dropout draws random numbers, so only plain TensorFlow serves it", ("RandomUniform",)),
        ("info", "noisy draws random numbers, so only plain TensorFlow serves it", ("RandomStandardNormal",)),
        ("info", "python writes state, so only plain TensorFlow serves the model", ("PyFunc",)),
    ]),
    ("sick_training", "serving-default", [
        ("error", "there is no signature serving_default", ("logits", "loss", "queued")),
    ]),
    ("sick_training", "input-pipeline", [
        ("error", "queued reads from an input pipeline, which no request fills",
         ("fifo_queue (FIFOQueueV2)", "(QueueDequeueManyV2)")),
    ]),
    ("sick_training", "training-graph", [
        ("warning", "loss computes losses, gradients or summaries", ("(SparseSoftmaxCrossEntropyWithLogits)",)),
        ("warning", "2 operations of a training graph beside what is served",
         ("(ResourceApplyAdam)", "(ScalarSummary)")),
    ]),
    ("sick_training", "optimizer-slots", [
        ("warning", "4 variables of an optimizer in the checkpoint, 56 B of 80 B",
         ("w/Adam 24 B", "w/Adam_1 24 B", "beta1_power 4 B", "beta2_power 4 B")),
    ]),
    ("sick_training", "several-graphs", [("info", "several graphs in one SavedModel", ("{serve}", "{train}"))]),
    ("sick_variables", "duplicates", [("info", "1.05 MB of the checkpoint are copies of other entries", ("w/",))]),
    ("sick_variables", "unused-variables", [
        ("info", "1.05 MB of variables that no signature reads", ("idle/.ATTRIBUTES/VARIABLE_VALUE 1.05 MB",)),
    ]),
    ("sick_empty", "uninitialized", [("error", "1 variable that nothing initializes", ("b",))]),
    ("mlp_keras_saved", "uninitialized", [
        ("warning", "two handles per variable: a session fills those that the signatures do not read, so a TF1 loader "
         "(TensorFlow Serving's) answers with an error",
         ("bias", "kernel", "bias", "kernel", "bias", "kernel")),
    ]),
    ("lookup", "int64-inputs", [("info", "int64 inputs that int32 might carry", ("serving_default: id int64[?]",))]),
    ("sequence", "inner-dimensions", [
        ("info", "inputs with unknown dimensions beside the batch", ("serving_default: tokens int32[?, ?]",)),
    ]),
    ("counter", "state", [
        ("info", "serving_default writes state, so only plain TensorFlow serves the model", ("AssignAddVariableOp",)),
    ]),
    ("strings", "host-ops", [
        ("info", "serving_default: 2 operations cannot be compiled and stay on the host",
         ("StringLower has no compiled kernel", "StringLength has no compiled kernel")),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "check", "expected"), SICK, ids=[f"{name}-{check}" for name, check, _ in SICK])
def test_a_disease_is_found_and_named(name: str, check: str, expected: list[Any]) -> None:
    found = findings(savedmodels.path(name), check)
    assert [f[:2] for f in found] == [e[:2] for e in expected]
    for (_, _, evidence), (_, _, parts) in zip(found, expected, strict=True):
        assert len(evidence) == len(parts)
        assert all(part in text for text, part in zip(evidence, parts, strict=True)), evidence


def test_tags_that_the_model_does_not_have() -> None:
    found = findings(savedmodels.path("sick_training"), "tags", tags=("serve", "tpu"))
    assert found == [("error", "no graph has the tags {serve, tpu}", ("{serve}", "{train}"))]


def test_methods_and_what_they_need(savedmodel_copy: Copy) -> None:
    def change(graph: Any) -> None:
        graph.signature_def["serving_default"].method_name = "my/method"
        graph.signature_def["regress_x_to_y"].outputs["wrong"].CopyFrom(
            graph.signature_def["regress_x_to_y"].outputs["outputs"]
        )
        del graph.signature_def["regress_x_to_y"].outputs["outputs"]

    folder = edit(savedmodel_copy("half_plus_two_v1"), change)
    assert findings(folder, "method-names") == [
        ("warning", "method names that TensorFlow Serving does not know", ("serving_default: 'my/method'",)),
        ("warning", "classify or regress signatures that those methods cannot answer",
         ("regress_x_to_y: expected an output outputs, it has wrong",)),
    ]  # fmt: skip


def test_operations_that_tensorflow_does_not_have(savedmodel_copy: Copy) -> None:
    def change(graph: Any) -> None:
        node(graph, "StringLower").op = "SentencepieceTokenizeOp"

    found = findings(edit(savedmodel_copy("strings"), change), "custom-ops")
    assert [(f[0], f[1]) for f in found] == [("error", "1 kind of operations that TensorFlow does not have")]
    assert found[0][2][0].startswith("SentencepieceTokenizeOp at ")
    assert found[0][2][0].endswith("(from tensorflow_text)")


def test_operations_pinned_to_a_device(savedmodel_copy: Copy) -> None:
    def change(graph: Any) -> None:
        node(graph, "MatMul").device = "/job:localhost/replica:0/task:0/device:GPU:0"
        node(graph, "Placeholder").device = "/job:localhost/replica:0/task:0/device:CPU:0"

    (severity, finding, evidence), *others = findings(edit(savedmodel_copy("multi"), change), "devices")
    assert (severity, finding, others) == ("warning", "1 operation pinned to a device", [])
    assert "matmul on /job:localhost/replica:0/task:0/device:GPU:0" in evidence[0]


@pytest.mark.parametrize(
    ("version", "consumer", "severity", "text"),
    [
        ("2.21.0", 12, None, ""),
        ("1.15.0", 0, "info", "written by TensorFlow 1.15.0"),
        ("2.99.1", 12, "warning", "written by TensorFlow 2.99.1, served by"),
        ("3.0.0", 12, "warning", "written by TensorFlow 3.0.0, served by"),
        ("2.21.0", 999999, "error", "the graph asks for a runtime of GraphDef version 999999 or newer"),
    ],
)
def test_versions(savedmodel_copy: Copy, version: str, consumer: int, severity: str | None, text: str) -> None:
    def change(graph: Any) -> None:
        graph.meta_info_def.tensorflow_version = version
        graph.graph_def.versions.min_consumer = consumer

    found = findings(edit(savedmodel_copy("scalar"), change), "version-skew")
    assert [f[0] for f in found] == ([severity] if severity else [])
    assert all(f[1].startswith(text) for f in found)


def test_a_checkpoint_that_is_not_whole(savedmodel_copy: Copy) -> None:
    cut, renamed, damaged, gone = (savedmodel_copy("multi", version) for version in range(1, 5))
    data = cut / "variables" / "variables.data-00000-of-00001"
    data.write_bytes(data.read_bytes()[:10])
    assert findings(cut, "checkpoint") == [
        ("error", "1 variable beyond the end of the data files, or in a missing one",
         ("weights/.ATTRIBUTES/VARIABLE_VALUE in data file 0",)),
    ]  # fmt: skip

    def change(graph: Any) -> None:
        for function in graph.graph_def.library.function:
            for found in function.node_def:
                if found.name == "RestoreV2/tensor_names":
                    found.attr["value"].tensor.string_val[0] = b"other/.ATTRIBUTES/VARIABLE_VALUE"

    assert findings(edit(renamed, change), "checkpoint") == [
        ("error", "1 variable without an entry in the checkpoint", ("other/.ATTRIBUTES/VARIABLE_VALUE",)),
    ]
    index = damaged / "variables" / "variables.index"
    index.write_bytes(b"no table" * 20)
    text = f"{index}: damaged, or not the index of a TensorFlow checkpoint"
    assert findings(damaged, "checkpoint") == [("error", "the checkpoint cannot be read", (text,))]
    index = gone / "variables" / "variables.index"
    index.unlink()
    assert findings(gone, "checkpoint")[0][2] == (f"{index}: No such file or directory",)


def test_what_training_left_in_and_beside_the_model(savedmodel_copy: Copy) -> None:
    folder = savedmodel_copy("scalar")
    (folder / "events.out.tfevents.1700000000.host").write_bytes(b"x" * 1500)
    (folder.parent / "model.ckpt-100.data-00000-of-00001").write_bytes(b"x" * 500)
    (folder.parent / "checkpoint").write_text("")
    (folder.parent / "README.md").write_text("not of a training run")
    assert findings(folder, "training-files") == [
        ("warning", "3 files of a training run (2 kB) in or beside the model",
         ("events.out.tfevents.1700000000.host", "../checkpoint", "../model.ckpt-100.data-00000-of-00001")),
    ]  # fmt: skip


def test_assets_that_are_missing_or_large(savedmodel_copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = savedmodel_copy("tabular")
    monkeypatch.setattr(files, "LARGE_ASSET", 10)
    assert findings(folder, "vocabularies") == [
        ("info", "large assets are read into tables at every start", ("assets/cities.txt 22 B",)),
    ]
    assert findings(folder, "assets") == []
    (folder / "assets" / "cities.txt").unlink()
    assert findings(folder, "assets") == [
        ("error", "files that the graph reads at load are missing", ("assets/cities.txt",)),
    ]


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = savedmodels.path("sick_variables")
    largest = ("copy/.ATTRIBUTES/VARIABLE_VALUE float[512, 512] 1.05 MB",)
    assert findings(folder, "size") == []
    monkeypatch.setattr(files, "SOFT_LIMIT", 1_000_000)
    (found,) = findings(folder, "size")
    assert (found[0], found[1][:22], found[2][:1]) == ("warning", "the model is 3.16 MB, ", largest)
    monkeypatch.setattr(files, "HARD_LIMIT", 3_000_000)
    (found,) = findings(folder, "size")
    assert (found[0], found[1]) == ("error", "the model is 3.16 MB, more than 3 MB")
    monkeypatch.setattr(files, "HARD_LIMIT", 1_000_000_000)
    monkeypatch.setattr(files, "SOFT_LIMIT", 1_000_000_000)
    monkeypatch.setattr(files, "LARGE_GRAPH", 100)
    assert findings(folder, "size")[0][1].endswith("its weights are constants")


WARMUPS = [
    (None, "warmup", "warning", "there is no assets.extra/tf_serving_warmup_requests"),
    (Warmup(1, "DATA_LOSS: cut", ()), "warmup-valid", "error", "the warmup file fails the load"),
    (Warmup(2, "", ()), "warmup-valid", "warning", "the warmup file holds no request"),
    (Warmup(1, "", (("other", frozenset({"x"})),)), "warmup-valid", "error", "warmup requests that this model cannot"),
    (
        Warmup(1, "", (("serving_default", frozenset({"z"})),)),
        "warmup-valid",
        "error",
        "warmup requests that this model",
    ),
]


@pytest.mark.parametrize(("warmup", "check", "severity", "text"), WARMUPS)
def test_warmup_files(warmup: Warmup | None, check: str, severity: str, text: str) -> None:
    (found,) = findings(savedmodels.path("half_plus_two"), check, warmup)
    assert (found[0], found[1].startswith(text)) == (severity, True)
    assert findings(savedmodels.path("half_plus_two"), check, GOOD) == []


def test_inputs_with_defaults_may_be_left_out_of_a_record() -> None:
    assert findings(savedmodels.path("defaults"), "warmup-valid", GOOD) == []


def test_signatures_without_a_record() -> None:
    expected = ("info", "signatures without a warmup record", ("embed", "probabilities", "v2/top:1"))
    assert findings(savedmodels.path("shared"), "warmup", GOOD) == [expected]


# --- the whole --------------------------------------------------------------------------------------------------------


def test_every_check_has_a_name_a_remedy_a_source_and_a_row_in_the_document() -> None:
    document = (Path(__file__).parents[2] / "docs" / "doctor.md").read_text()
    names = [check.name for check in examine.CHECKS]
    assert len(set(names)) == len(names) >= 25
    rows = [line.split("`")[1] for line in document.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(names)
    assert all(check.remedy.endswith(".") and check.source for check in examine.CHECKS)


def test_every_check_is_seen_at_work() -> None:
    here = Path(__file__).read_text()
    assert [check.name for check in examine.CHECKS if f'"{check.name}"' not in here] == []


def test_the_worst_comes_first_and_decides_the_exit_status() -> None:
    found = examine.examine(patient.read(savedmodels.path("sick_training")))
    severities = [f.severity for f in found]
    assert severities == sorted(severities, key=list(Severity).index)
    assert examine.exit_status(found, strict=False) == 1
    only_warnings = [f for f in found if f.severity is Severity.WARNING]
    assert (examine.exit_status(only_warnings, strict=False), examine.exit_status(only_warnings, strict=True)) == (0, 1)
    assert examine.exit_status([f for f in found if f.severity is Severity.INFO], strict=True) == 0


def test_what_is_no_model_cannot_be_examined(tmp_path: Path) -> None:
    with pytest.raises(SavedModelError, match="does not appear to contain a SavedModel"):
        patient.read(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"")
    with pytest.raises(SavedModelError, match="holds no graph"):
        patient.read(tmp_path)


@pytest.mark.parametrize(
    ("bytes_", "text"), [(0, "0 B"), (999, "999 B"), (2000, "2 kB"), (10**10, "10 GB"), (10**13, "1e+04 GB")]
)
def test_sizes_as_people_read_them(bytes_: int, text: str) -> None:
    assert size(bytes_) == text

"""The commands that look at a model or a plan, as processes: what they print, and their exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import savedmodels
from tfopt_protos import messages

from .servers import tfopt

pytestmark = pytest.mark.process


def test_the_doctor_speaks_to_people_and_to_programs():
    model = str(savedmodels.path("sick_functions"))
    done = tfopt("doctor", model)
    assert (done.returncode, done.stderr) == (1, "")
    first = done.stdout.splitlines()
    assert first[0] == model
    assert first[2] == (
        "error   python-functions: Python functions in the graph: they exist only in the process that exported it"
    )
    assert first[3].endswith("/PyFunc (PyFunc)")
    assert first[4].startswith("    -> Rewrite what tf.py_function")
    assert first[-1].startswith("1 error, 6 warnings, ")
    document = json.loads(tfopt("doctor", model, "--json").stdout)
    assert (document["model"], document["exit_status"]) == (model, 1)
    assert document["findings"][0].keys() == {"check", "severity", "finding", "evidence", "remedy", "source"}


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["{good}"], 0, ""),
        (["{good}", "--strict"], 1, ""),  # it has no warmup records
        (["{good}", "--saved_model_tags=serve,tpu"], 1, ""),
        (["/nowhere"], 2, "tfopt doctor: there is nothing at /nowhere"),
        ([], 2, "tfopt doctor: expected one MODEL, received []"),
        (["{good}", "--stric"], 2, "tfopt doctor: unknown flag --stric; did you mean --strict?"),
    ],
)
def test_the_doctors_exit_status(args, code, said):
    done = tfopt("doctor", *[a.format(good=savedmodels.path("multi")) for a in args])
    assert (done.returncode, done.stderr.startswith(said)) == (code, True), done.stderr


def test_the_doctor_needs_no_engine():
    script = (
        "import sys; from tfopt_server.__main__ import main; main(sys.argv[1:]);"
        "print([m for m in ('tensorflow', 'jax', 'grpc', 'gunicorn') if m in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "doctor", str(savedmodels.path("mlp_keras"))]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stderr == "[]\n"


def test_names_from_a_model_cannot_steer_a_terminal(savedmodel_copy):
    folder = savedmodel_copy("multi")
    model = messages.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    signatures = model.meta_graphs[0].signature_def
    signatures["\x1b[2Jgone"].CopyFrom(signatures["serving_default"])
    signatures["\x1b[2Jgone"].method_name = "x"
    (folder / "saved_model.pb").write_bytes(model.SerializeToString())
    said = tfopt("doctor", str(folder)).stdout
    assert "\x1b" not in said
    assert r"\x1b[2Jgone: 'x'" in said


def test_inspect_shows_a_model_to_people_and_to_programs():
    model = str(savedmodels.path("tabular"))
    done = tfopt("inspect", model)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == model
    assert lines[1].startswith("tags serve; written by TensorFlow 2.")
    assert lines[3:9] == [
        "signature serving_default  (tensorflow/serving/predict)",
        "  in   age     float[?]",
        "  in   city    string[?]",
        "  in   color   string[?]",
        "  in   income  float[?, 2]",
        "  out  scores  float[?, 3]",
    ]
    assert lines[9].startswith("  compilable: ")
    assert lines[10] == "  on the host: 5 (HashTableV2 2, LookupTableFindV2 2, StringLower)"
    assert lines[-5:][0] == "variables: 4, 3.1 kB"
    assert lines[-4].split() == ["hidden", "Variable_2", "float[19,", "32]", "2.43", "kB"]
    document = json.loads(tfopt("inspect", model, "--json").stdout)
    assert [v["bytes"] for v in document["variables"]] == [2432, 384, 160, 128]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "tfopt inspect: expected one MODEL, received []"),
        (["/nowhere"], "tfopt inspect: there is nothing at /nowhere"),
        (
            ["{model}", "--saved_model_tags=tpu"],
            "tfopt inspect: Could not find meta graph def matching supplied tags: { tpu }",
        ),
    ],
)
def test_inspect_says_what_is_wrong(args, said):
    done = tfopt("inspect", *[a.format(model=savedmodels.path("multi")) for a in args])
    assert (done.returncode, done.stderr.startswith(said)) == (2, True), done.stderr

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

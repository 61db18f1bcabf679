"""The commands that look at a model or a plan, as processes: what they print, and their exit codes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pty
import subprocess
import sys
from pathlib import Path

import bucketstub
import pytest
import savedmodels
from bucketstub import Bucket
from tfopt_optimizer import plan as plans
from tfopt_protos import messages

from .servers import tfopt
from .test_storage import put

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


@pytest.mark.parametrize("cloud", ["gs", "s3", "az"])
def test_both_look_at_models_in_buckets(cloud: str, tmp_path: Path) -> None:
    """The newest version, as a copy in --model_cache_dir, which a server finds there."""
    bucket = Bucket("models")
    for version in ("1", "2"):
        put(bucket, f"path/{version}", savedmodels.path("multi"))
    with bucketstub.serving(bucket) as address:
        environ = bucketstub.environment(address) | {"HOME": str(tmp_path)}
        shown = tfopt("inspect", f"{cloud}://models/path", "--json", **environ)
        here = json.loads(tfopt("inspect", str(savedmodels.path("multi")), "--json").stdout)
        found = json.loads(shown.stdout)
        assert found["signatures"] == here["signatures"]
        assert Path(found["model"]).is_relative_to(tmp_path / ".cache" / "tfopt" / "models")
        assert Path(found["model"]).name == "2"
        assert f"downloaded {cloud}://models/path/2" in shown.stderr
        done = tfopt("doctor", f"{cloud}://models/path/1", f"--model_cache_dir={tmp_path}/own", "--json", **environ)
        assert done.returncode in {0, 1}
        assert Path(json.loads(done.stdout)["model"]).is_relative_to(tmp_path / "own")
        for tool in ("inspect", "doctor"):
            refused = tfopt(tool, f"{cloud}://other/path", **environ)
            assert refused.returncode == 2
            assert f"tfopt {tool}: {cloud}://other/path: there is no bucket 'other'" in refused.stderr
    refused = tfopt("inspect", "hdfs://m/x", HOME=str(tmp_path))
    assert (refused.returncode, "expected a folder, gs://, s3:// or az://" in refused.stderr) == (2, True)


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


@pytest.fixture(scope="module")
def plan_dir(tmp_path_factory):
    """A plan as `tfopt optimize` writes it, without the minute that making one takes."""
    folder = tmp_path_factory.mktemp("plans") / "toy"
    folder.mkdir()
    tensor = plans.TensorInfo("x", "float", (None, 4), "x:0")
    signature = plans.SignatureInfo("serving_default", "tensorflow/serving/predict", (tensor,), (tensor,))
    chosen = plans.Candidate("xla", "pjrt", "chosen", "fastest", plans.Measured(16.0, 18.0, 900),
                             plans.Agreement(1e-7, 1e-8, 64), 0.2, 1000)  # fmt: skip
    slower = plans.Candidate("tensorflow", "function", "slower", "4x", plans.Measured(64.0, 70.0, 900))
    bucket = plans.BucketPlan(1, {"x": (1, 4)}, "xla", "pjrt", True, "s0/b1", (slower, chosen), "fastest")
    lookup = plans.HostOperation("a", "LookupTableFindV2", "a table")
    segments = (
        plans.Segment("host", "python", {"LookupTableFindV2": 2}, (lookup,)),
        plans.Segment("device", "", {"MatMul": 1}, takes=(plans.Crossing("ids", "int32", (None, 2), ("t", "u")),)),
    )
    made = plans.Plan(
        fingerprint=plans.Fingerprint("m", "{}", {}, {}), device="cpu", loader="function", records="warmup",
        signatures=(plans.SignaturePlan(signature, True, "rows agree", True, "merging pays", (bucket,), segments),),
        log=("xla wins",), created="2026-11-22T00:00:00Z", optimize_s=3.2,
    )  # fmt: skip
    plans.write(made, folder)
    return folder


def test_report_as_json_is_the_plan(plan_dir):
    done = tfopt("report", str(plan_dir), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((plan_dir / "plan.json").read_text())


def test_report_as_json_is_json_where_an_error_is_no_number(plan_dir, tmp_path):
    def no_word(name):
        raise AssertionError(f"JSON has no {name}")

    made = plans.read(plan_dir)
    broken = plans.Candidate("litert", "t1", "rejected", "it answers nan", None, plans.Agreement(math.inf, math.nan, 4))
    signature = made.signatures[0]
    bucket = dataclasses.replace(signature.buckets[0], candidates=(*signature.buckets[0].candidates, broken))
    made = dataclasses.replace(made, signatures=(dataclasses.replace(signature, buckets=(bucket,)),))
    plans.write(made, tmp_path)
    document = json.loads(tfopt("report", str(tmp_path), "--json").stdout, parse_constant=no_word)
    shown = document["signatures"][0]["buckets"][0]["candidates"][-1]
    assert (shown["agreement"]["max_rel_error"], shown["agreement"]["mean_rel_error"]) == (None, None)


def test_report_as_text_ends_with_the_cut(plan_dir):
    assert tfopt("report", str(plan_dir)).stdout.splitlines()[-5:] == [
        "serving_default is cut, for host+ engines, into",
        "  host, in python: 2 operations",
        "    LookupTableFindV2 x1: a table",
        "    LookupTableFindV2 x1",
        "  device: MatMul x1; takes ids",
    ]


def test_report_as_a_page(plan_dir, tmp_path):
    page = tmp_path / "report.html"
    done = tfopt("report", str(plan_dir), f"--html={page}")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{page}\n", "")
    text = page.read_text(encoding="utf-8")
    assert '<bdi class="name">toy</bdi>' in text
    assert 'XLA answers <bdi class="name">serving_default</bdi> 4.0× faster than plain TensorFlow' in text


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "tfopt report: expected one PLAN, received []"),
        (["{plan}", "--json", "--html=x"], 2, "tfopt report: expected --json or --html, received both"),
        (["{plan}", "--htm=x"], 2, "tfopt report: unknown flag --htm; did you mean --html?"),
        (["{plan}", "--html=/nowhere/x.html"], 1, "[Errno 2] No such file or directory: '/nowhere/x.html'"),
    ],
)
def test_report_says_what_is_wrong(plan_dir, args, code, said):
    done = tfopt("report", *[a.format(plan=plan_dir) for a in args])
    assert (done.returncode, done.stderr.startswith(said)) == (code, True), done.stderr


@pytest.mark.tensorflow
def test_optimize_in_a_terminal_paints_a_bar_and_leaves_the_log(tmp_path):
    ours, theirs = pty.openpty()
    command = [
        sys.executable,
        "-m",
        "tfopt_server",
        "optimize",
        str(savedmodels.path("scalar")),
        f"--out={tmp_path / 'p'}",
        "--engines=openvino",
    ]
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, env=environ) as process:
        os.close(theirs)
        said = b""
        with contextlib.suppress(OSError):  # how a terminal whose other end is gone says so
            while part := os.read(ours, 4096):
                said += part
        assert process.wait(60) == 0, process.stderr.read()
    os.close(ours)
    text = said.decode()
    assert "\r\x1b[K  0 % " in text
    assert "starting the engines" in text
    lines = [line.rpartition("\r\x1b[K")[2] for line in text.split("\r\n")]
    assert lines[-2].endswith(f"plan: {tmp_path / 'p'}")
    assert lines[-1] == ""
    assert not any("█" in line or " % " in line for line in lines)

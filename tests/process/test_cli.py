"""The `tfopt` command as a process: what it prints, what it imports for that, and its exit codes."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from tfopt_optimizer import plan as plans

from .servers import fake, tfopt

pytestmark = pytest.mark.process

HEAVY = ("tensorflow", "jax", "jaxlib", "grpc", "numpy", "gunicorn", "google.protobuf")
# Of any kind, the standard library's too: numpy alone brings as many.
MOST_IMPORTS = 200


COMMANDS = [["serve", "--help"], ["--help"], ["optimize", "--help"], ["report", "--help"], ["doctor", "--help"],
            ["inspect", "--help"], ["healthcheck", "--help"], ["version"], ["--version"], ["help"]]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_imports_little(command):
    script = (
        "import sys; before = set(sys.modules); from tfopt_server.__main__ import main; code = main(sys.argv[1:]);"
        "print(*set(sys.modules) - before, file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script, *command], capture_output=True, text=True, check=False)
    imported = set(done.stderr.split())
    assert (done.returncode, imported.intersection(HEAVY)) == (0, set())
    assert "tfopt_server.commands" in imported
    assert len(imported) < MOST_IMPORTS, sorted(imported)
    assert len(done.stdout) > 40


def test_all_mistakes_come_at_once_as_json_lines():
    done = tfopt("--port=x", "--workers=0", AIP_STORAGE_URI="hdfs://b/m")
    assert done.returncode == 255
    assert [(line["severity"], line["message"]) for line in map(json.loads, done.stderr.splitlines())] == [
        ("ERROR", "--port: expected a whole number from 0 to 65535, received 'x'"),
        ("ERROR", "--workers: expected a whole number from 1 to 1024, received '0'"),
        ("ERROR", "--model_base_path: expected a folder, gs://, s3:// or az://, received 'hdfs://b/m'"),
        ("CRITICAL", "cannot start: 3 mistakes in flags or environment; see tfopt serve --help"),
    ]  # fmt: skip


def test_mistakes_can_be_read_by_people_too():
    done = tfopt("--log_format=human", "--port=x", MODEL_NAME="m")
    assert "ERROR   --port: expected a whole number from 0 to 65535, received 'x'\n" in done.stderr


@pytest.mark.parametrize("environ", [{}, {"TFOPT_LOG_STREAM": "stdout"}])
def test_mistakes_go_where_the_log_goes(environ):
    done = tfopt("--port=x", *([] if environ else ["--log_stream=stdout"]), MODEL_NAME="m", **environ)
    assert (done.returncode, done.stderr) == (255, "")
    assert "--port: expected" in done.stdout


def test_no_arguments_mean_serve():
    assert "--model_base_path: expected a folder with a SavedModel, received nothing" in tfopt().stderr


def test_an_unknown_command_names_the_nearest():
    done = tfopt("optimise", "m")
    assert (done.returncode, done.stderr.splitlines()[0]) == (
        2, "tfopt: no command 'optimise'; did you mean optimize?"
    )  # fmt: skip


def test_healthcheck_follows_the_server(tmp_path):
    with fake(tmp_path, {"ready_after_s": 1.0}) as server:
        port, where = str(server.port), f"http://127.0.0.1:{server.port}/health"
        server.wait_for_health(503)
        assert (done := tfopt("healthcheck", AIP_HTTP_PORT=port)).returncode == 1
        assert done.stderr == f'{where}: 503 {{"status": "starting"}}\n'
        server.wait_for_health(200)
        assert tfopt("healthcheck", AIP_HTTP_PORT=port).returncode == 0
        assert tfopt("healthcheck", f"--rest_api_port={port}").returncode == 0
    assert tfopt("healthcheck", AIP_HTTP_PORT=port).stderr == f"{where}: [Errno 111] Connection refused\n"


def test_report_prints_the_log_and_a_table(tmp_path):
    tensor = plans.TensorInfo("x", "float", (None, 4), "x:0")
    signature = plans.SignatureInfo("serving_default", "tensorflow/serving/predict", (tensor,), (tensor,))
    chosen = plans.Candidate("xla", "pjrt", "chosen", "fastest", plans.Measured(15.6, 18.0, 900),
                             plans.Agreement(1e-7, 1e-8, 64), 0.2, 1000)  # fmt: skip
    slower = plans.Candidate("tensorflow", "function", "slower", "4.1x the time", plans.Measured(64.0, 70.0, 900))
    bucket = plans.BucketPlan(1, {"x": (1, 4)}, "xla", "pjrt", True, "s0/b1", (slower, chosen), "fastest")
    made = plans.Plan(
        fingerprint=plans.Fingerprint("m", "f", {}, {}), device="cpu", loader="function", records="warmup",
        signatures=(plans.SignaturePlan(signature, True, "rows agree", True, "merging pays", (bucket,)),),
        log=("xla wins",), created="2026-11-22T00:00:00Z", optimize_s=3.2,
    )  # fmt: skip
    plans.write(made, tmp_path)
    done = tfopt("report", str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "plan of 2026-11-22T00:00:00Z, cpu, 3.2 s, checked on warmup records",
        "TensorFlow loads it as: function, imported when a request is outside the plan; weights 0 B",
        "",
        "serving_default",
        "  rows  chosen     median  plain TF  faster  max error  memory",
        "  1     xla/pjrt  15.6 us     64 us   4.10x      1e-07    1 kB",
        "",
        "xla wins",
        "",
        "serving_default, 1 row: every candidate",
        "  candidate            status     median    p90  vs plain  max err  mean err  compile  memory",
        "  xla/pjrt             chosen    15.6 us  18 us     4.10x    1e-07     1e-08   0.20 s    1 kB",
        "  tensorflow/function  plain TF    64 us  70 us     1.00x        -         -        -       -",
    ]


def test_report_on_something_else_says_what_is_wrong(tmp_path):
    done = tfopt("report", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/plan.json: there is no plan here\n")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "expected one MODEL, received []"),
        (["a", "b"], "expected one MODEL, received ['a', 'b']"),
        (["m", "--out=p", "--in_place"], "expected --out or --in_place, received both (--out=p)"),
        (["m", "--out"], "--out: expected a text, received nothing"),
        (["m", "--disable_optimizer"], "--disable_optimizer: expected an optimizer to run, received the wish for none"),
    ],
)
def test_optimize_wants_one_model(args, said):
    done = tfopt("optimize", *args)
    assert (done.returncode, json.loads(done.stderr.splitlines()[0])["message"]) == (2, said)


def test_optimize_says_what_is_wrong_with_a_model(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "saved_model.pb").write_bytes(b"not a protobuf \xff")
    empty, broken = tfopt("optimize", str(tmp_path)), tfopt("optimize", str(tmp_path / "m"))
    assert (empty.returncode, empty.stderr) == (1, f"there is no SavedModel at {tmp_path}\n")
    assert (broken.returncode, broken.stderr.count("\n")) == (1, 1)

"""What the wire benchmark reads from a server, and how its rounds go, without a server."""

from __future__ import annotations

import sys

import pytest

from benchmarks import models, requests, rounds, servers
from benchmarks.load.job import Outcome

PAGE = """# TYPE tfopt_compiles_after_ready_total counter
# TYPE tfopt_requests_total counter
tfopt_requests_total{model="m",bucket="1"} 3
tfopt_requests_total{model="m",bucket="8"} 4.5
tfopt_requests_total_of_others{} 100
# TYPE tfopt_queue_depth gauge
tfopt_queue_depth{} 2
"""


def test_a_metric_is_added_up_over_its_labels():
    assert servers.metric_sum(PAGE, "tfopt_requests_total") == 7.5
    assert servers.metric_sum(PAGE, "tfopt_queue_depth") == 2


def test_a_metric_without_samples_is_0_and_one_that_is_not_there_is_an_error():
    assert servers.metric_sum(PAGE, "tfopt_compiles_after_ready_total") == 0
    with pytest.raises(KeyError, match="tfopt_absent"):
        servers.metric_sum(PAGE, "tfopt_absent")


def outcome(rate: float) -> Outcome:
    return Outcome(rate, None, 1, 1, 0, 0, 0, 0, 0, 0.0, 0.1, "")


def test_variants_take_turns_and_none_is_always_the_first():
    ran: list[str] = []

    def variant(name: str):
        def run() -> Outcome:
            ran.append(name)
            return outcome(float(len(ran)))

        return run

    found = rounds.in_turn({name: variant(name) for name in "abc"}, 3, "test")
    assert "".join(ran) == "abc" + "bca" + "cab"
    assert [o.rate for o in found["a"]] == [1.0, 6.0, 8.0]


def test_a_server_that_cannot_start_shows_its_last_words(tmp_path):
    command = [sys.executable, "-c", "raise SystemExit('no such model')"]
    with (
        pytest.raises(RuntimeError, match="ended with 1:\nno such model"),
        servers._running(command, tmp_path / "log", servers.free_port(), 0) as server,
    ):
        servers._wait_for_health(server)


@pytest.mark.parametrize("model", [m for m in models.MODELS.values() if m.quick], ids=lambda m: m.name)
def test_rows_are_the_same_for_a_seed_and_differ_otherwise(model):
    once, again, other = model.rows(2, 0), model.rows(2, 0), model.rows(2, 1)
    assert {name: array.shape[0] for name, array in once.items()} == dict.fromkeys(once, 2)
    assert all((once[name] == again[name]).all() for name in once)
    assert any((once[name] != other[name]).any() for name in once)
    assert any((array[0] != array[1]).any() for array in once.values())


def test_rest_and_grpc_requests_carry_the_same_rows():
    import orjson
    from tfopt_protos import messages, tensors

    model = models.MODELS["tabular"]
    row = orjson.loads(requests.rest(model)[3])["instances"][0]
    proto = messages.message("tensorflow.serving.PredictRequest").FromString(requests.grpc(model)[3])
    assert proto.model_spec.name == requests.MODEL_NAME
    sent = {name: tensors.to_numpy(tensor)[0] for name, tensor in proto.inputs.items()}
    assert sent["numbers"].tolist() == row.pop("numbers")
    assert {name: sent[name].decode() for name in row} == row

"""Metrics and the page they make; several workers on one page."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tfopt_server.instruments import FOLD_AT, LATENCY_US, Book, Histogram
from tfopt_server.metrics import Metrics
from tfopt_server.metrics_share import Share


def lines_of(page: bytes, name: str) -> list[str]:
    return [line for line in page.decode().splitlines() if line.startswith((name, f"# TYPE {name} "))]


def test_a_page_as_tensorflow_serving_writes_it() -> None:
    book = Book()
    count = book.counter(":tensorflow:serving:request_count", "model_name", "status")
    book.counter(":tensorflow:serving:empty", "model_name")
    sizes = book.histogram(":tensorflow:serving:sizes", "model", bounds=(1, 10, 18.5))
    book.gauge("up").labels().set(0.25)
    count.labels('a"b\\c', "OK").inc()
    count.labels('a"b\\c', "OK").inc(2)
    for value in (1, 2, 11, 400.5):
        sizes.labels("m").observe(value)
    assert book.page([book.snapshot()]).decode() == (
        "# TYPE :tensorflow:serving:empty counter\n"
        "# TYPE :tensorflow:serving:request_count counter\n"
        ':tensorflow:serving:request_count{model_name="a\\"b\\\\c",status="OK"} 3\n'
        "# TYPE :tensorflow:serving:sizes histogram\n"
        ':tensorflow:serving:sizes_bucket{model="m",le="1"} 1\n'
        ':tensorflow:serving:sizes_bucket{model="m",le="10"} 2\n'
        ':tensorflow:serving:sizes_bucket{model="m",le="18.5"} 3\n'
        ':tensorflow:serving:sizes_bucket{model="m",le="+Inf"} 4\n'
        ':tensorflow:serving:sizes_sum{model="m"} 414.5\n'
        ':tensorflow:serving:sizes_count{model="m"} 4\n'
        "# TYPE up gauge\n"
        "up{} 0.25\n"
    )


def test_latencies_have_tensorflow_servings_buckets() -> None:
    metrics = Metrics()
    metrics.request_latency.labels("m", "REST", "predict").observe(50.0)
    lines = lines_of(metrics.render(), ":tensorflow:serving:request_latency")
    assert len(LATENCY_US) == 33
    before = ':tensorflow:serving:request_latency_bucket{model_name="m",API="REST",entrypoint="predict",le='
    assert lines[1:6] == [
        f'{before}"{end}"}} {n}' for end, n in zip((10, 18, 32.4, 58.32, 104.976), "00011", strict=True)
    ]
    assert lines[-3:] == [
        f'{before}"+Inf"}} 1',
        ':tensorflow:serving:request_latency_sum{model_name="m",API="REST",entrypoint="predict"} 50',
        ':tensorflow:serving:request_latency_count{model_name="m",API="REST",entrypoint="predict"} 1',
    ]


def test_the_names_that_dashboards_ask_for_are_there_before_anything_happened() -> None:
    page = Metrics(started=1700000000.5).render().decode()
    serving = (
        "request_count request_latency runtime_latency request_example_counts request_example_count_total "
        "model_warmup_latency model_warmup_records_read batching_session:queuing_latency "
        "batching_session:wrapped_run_count batching_session:padding_size batching_session:input_batch_size "
        "batching_session:processed_batch_size mlmd_map request_log_count"
    )
    names = [f":tensorflow:serving:{name}" for name in serving.split()]
    names += [":tensorflow:cc:saved_model:load_latency", ":tensorflow:cc:saved_model:load_attempt_count"]
    names += [":tensorflow:core:graph_runs", ":tensorflow:core:graph_run_time_usecs"]
    types = {line.split()[2] for line in page.splitlines() if line.startswith("# TYPE")}
    assert set(names) <= types
    assert "process_start_time_seconds{} 1700000000.5" in page.splitlines()
    assert "# HELP" not in page


def test_the_usual_parser_reads_the_page() -> None:
    metrics = Metrics()
    metrics.requests.labels("m", "serving_default", "xla", "8").inc()
    metrics.steps("m", "serving_default").run.observe(0.003)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    samples = {s.name: s.value for s in families["tfopt_requests"].samples}
    assert samples == {"tfopt_requests_total": 1.0}
    assert {s.value for s in families[":tensorflow:core:graph_runs"].samples} == {1.0}
    runs = {
        s.labels["le"]: s.value
        for s in families["tfopt_step_seconds"].samples
        if s.labels["step"] == "run" and "le" in s.labels
    }
    assert (runs["0.0025"], runs["0.005"]) == (0.0, 1.0)


def test_a_wrong_number_of_labels_or_a_name_given_twice_is_a_mistake() -> None:
    book = Book()
    family = book.counter("a", "x", "y")
    with pytest.raises(ValueError, match=r"a: expected labels \('x', 'y'\)"):
        family.labels("only one")
    with pytest.raises(ValueError, match="a metric of this name already"):
        book.gauge("a")


def test_a_version_that_is_gone_leaves_the_page() -> None:
    metrics = Metrics()
    for version in ("1", "2"):
        metrics.available.labels("m", version).set(1)
    metrics.available.remove(model="m", version="1")
    assert lines_of(metrics.render(), "tfopt_version_available")[1:] == [
        'tfopt_version_available{model="m",version="2"} 1'
    ]


def test_no_observation_is_lost_between_threads() -> None:
    histogram = Histogram((1.0, 2.0))
    each = 5 * FOLD_AT + 7
    threads = [threading.Thread(target=lambda: [histogram.observe(1.5) for _ in range(each)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        histogram.point()
    for thread in threads:
        thread.join()
    assert histogram.point() == [0, 4 * each, 0, 4 * each * 1.5]


def test_a_scrape_of_any_worker_answers_for_all_and_no_counter_falls_when_one_ends(tmp_path: Path) -> None:
    workers = [Book() for _ in range(3)]
    counters = [book.counter("requests_total", "model") for book in workers]
    starts = [book.gauge("start", join="min") for book in workers]
    depths = [book.gauge("depth") for book in workers]
    times = [book.histogram("seconds", bounds=(1.0,)) for book in workers]
    for i, worker in enumerate(workers):
        counters[i].labels("m").inc(10**i)
        starts[i].labels().set(100 + i)
        depths[i].labels().set(1)
        times[i].labels().observe(0.5 + i)
        assert worker
    shares = [Share(tmp_path, book.snapshot, name=str(i)) for i, book in enumerate(workers)]
    pages = [book.page([book.snapshot(), *share.others()]) for book, share in zip(workers, shares, strict=True)]
    assert pages[0] == pages[1] == pages[2]
    assert b'requests_total{model="m"} 111\n' in pages[0]
    assert b"start{} 100\n" in pages[0]
    assert b"depth{} 3\n" in pages[0]
    assert b"seconds_sum{} 4.5\nseconds_count{} 3\n" in pages[0]
    shares[2].close(workers[2].snapshot(("counter", "histogram")))
    after = workers[0].page([workers[0].snapshot(), *shares[0].others()])
    assert b'requests_total{model="m"} 111\n' in after
    assert b"depth{} 2\n" in after
    assert b"seconds_sum{} 4.5\nseconds_count{} 3\n" in after
    for i in (0, 1):
        shares[i].close(workers[i].snapshot(("counter", "histogram")))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["gone.json", "metrics.lock"]


def test_a_worker_that_crashed_is_left_out_and_said_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    metrics.share(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as crashed:
        crashed.bind(str(tmp_path / "metrics-crashed.sock"))
    page = metrics.render()
    assert b"# TYPE tfopt_requests_total counter" in page
    assert "a worker ended without leaving its metrics: metrics-crashed.sock" in caplog.text
    assert [p.name for p in tmp_path.glob("*crashed*")] == []
    metrics.close()

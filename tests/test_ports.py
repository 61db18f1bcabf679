"""Two processes of the suite never hand out one port."""

from __future__ import annotations

import socket

import ports


def test_processes_have_ports_of_their_own_and_neighbours_are_free(monkeypatch):
    found = {}
    for worker in ("gw0", "gw1"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        found[worker] = {port for _ in range(200) for port in ports.free_ports(ports.BLOCK)}
    assert found["gw0"].isdisjoint(found["gw1"])
    assert {ports.LOWEST <= port < ports.HIGHEST for port in found["gw0"] | found["gw1"]} == {True}


def test_a_port_that_is_taken_is_passed_over(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        tried, draw = [port, port], ports._random.randrange
        monkeypatch.setattr(ports._random, "randrange", lambda *args: tried.pop() if tried else draw(*args))
        assert ports.free_port() != port
        assert tried == []

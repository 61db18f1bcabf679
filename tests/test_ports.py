"""No port is given twice: within one of the suite's processes, and by two of them."""

from __future__ import annotations

import itertools
import socket

import ports


def test_ports_differ_within_a_process_and_between_two(monkeypatch):
    found = []
    for worker in ("gw0", "gw1", f"gw{ports.PROCESSES - 1}"):
        monkeypatch.setenv("PYTEST_XDIST_WORKER", worker)
        monkeypatch.setattr(ports, "_blocks", itertools.count(ports.BLOCKS - 100))
        found += [port for _ in range(200) for port in ports.free_ports()]
    assert len(set(found)) == len(found)
    assert all(ports.LOWEST <= port < ports.HIGHEST for port in found)


def test_a_port_that_is_taken_is_passed_over(monkeypatch):
    monkeypatch.setattr(ports, "_blocks", itertools.count(7))
    first = ports.free_port()
    monkeypatch.setattr(ports, "_blocks", itertools.count((first - ports.LOWEST) // ports.NEIGHBOURS % ports.BLOCKS))
    with socket.create_server(("", first)):
        assert ports.free_port() > first

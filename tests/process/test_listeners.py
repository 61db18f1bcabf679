"""Listening sockets: dual stack, deaf before closing."""

from __future__ import annotations

import socket

import pytest
from tfopt_server.process import listeners

from .servers import free_port


def test_one_socket_answers_ipv4_and_ipv6():
    (listener,) = listeners.listen([port := free_port()])
    with listener:
        hosts = ["127.0.0.1", "::1"] if socket.has_dualstack_ipv6() else ["127.0.0.1"]
        for host in hosts:
            socket.create_connection((host, port), timeout=2).close()


def test_without_ports_only_this_machine_can_reach_it():
    (listener,) = listeners.listen([])
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_names_the_port_and_frees_the_others():
    with socket.create_server(("", 0)) as taken:
        used, free = taken.getsockname()[1], free_port()
        with pytest.raises(listeners.ListenError, match=f"cannot listen on port {used}: Address already in use"):
            listeners.listen([free, used])
        socket.create_server(("", free)).close()


def test_a_claimed_port_is_taken_for_everybody_but_its_workers():
    port = free_port()
    with listeners.claim(port, shared=True) as claimed:
        assert claimed is not None
        for shared in (False, True):
            with pytest.raises(listeners.ListenError, match=rf"gRPC cannot listen on \[::\]:{port}: Address already"):
                listeners.claim(port, shared)
        for _ in range(2):
            socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, reuse_port=True).close()
    assert listeners.claim(port, shared=False) is None


def test_a_deaf_socket_keeps_what_was_connected_and_takes_nobody_new():
    (listener,) = listeners.listen([port := free_port()])
    before = socket.create_connection(("127.0.0.1", port), timeout=2)
    listeners.turn_deaf([listener])
    with pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.2)
    accepted, _ = listener.accept()
    before.sendall(b"still here")
    assert accepted.recv(20) == b"still here"
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)
    for end in (before, accepted):
        end.close()

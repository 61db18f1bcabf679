"""Sockets that listen: on a port of all addresses, or on a path. OSError where they cannot be had."""

from __future__ import annotations

import os
import socket
from pathlib import Path

BACKLOG = 2048


def tcp(port: int, shared: bool = False) -> socket.socket:
    """On IPv6 and IPv4 where the machine has both. `shared`: other sockets of this user may listen on it too, and the
    kernel spreads connections (SO_REUSEPORT)."""
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server(("", port), family=family, backlog=BACKLOG, dualstack_ipv6=dual, reuse_port=shared)


def unix(path: str) -> socket.socket:
    """What a server left there that has ended is replaced; one that runs is found out by its port."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if Path(path).is_socket():
            Path(path).unlink()
        sock.bind(path)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def reason(error: OSError) -> str:
    """Without the address, which strerror itself repeats."""
    return os.strerror(error.errno) if error.errno else str(error)

"""Where the server listens, and how it stops listening without losing anybody.

Closing a listening socket resets the connections that the kernel has completed and nobody has accepted yet, and those
whose handshake is under way: requests that were on their way are lost, and no order of accept() and close() avoids it.
So the socket first turns deaf to new connections (a packet filter on it drops SYNs), then what is in the queue is
accepted, and only then it is closed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import socket
import struct
from collections.abc import Iterable, Sequence

from tfopt_server import sockets

log = logging.getLogger(__name__)

SO_ATTACH_FILTER = 26  # linux/asm-generic/socket.h; the socket module has no name for it

# Classic BPF on the TCP header (linux/filter.h): drop what carries SYN (byte 13, bit 2), keep the rest, so that the
# handshakes under way can still finish.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte at 13
        (0x45, 0, 1, 0x02),  # SYN set? next : skip one
        (0x06, 0, 0, 0),  # drop
        (0x06, 0, 0, 0xFFFFFFFF),  # keep
    )
)


class ListenError(Exception):
    """A port that cannot be listened on; text for the operator."""


def listen(ports: Sequence[int]) -> list[socket.socket]:
    """One listening socket per port on all addresses, IPv6 and IPv4 where the machine has both.

    Connections are completed by the kernel from here on, whatever the process is busy with. Without ports (REST is
    off) it listens on a port of the kernel's choice on the loopback address, because the arbiter needs a socket.
    """
    if not ports:
        return [socket.create_server(("127.0.0.1", 0), backlog=sockets.BACKLOG)]
    opened: list[socket.socket] = []
    for port in ports:
        try:
            opened.append(sockets.tcp(port))
        except OSError as error:
            for other in opened:
                other.close()
            raise ListenError(f"cannot listen on port {port}: {sockets.reason(error)}") from error
    return opened


def claim(port: int, shared: bool) -> socket.socket | None:
    """Makes sure that workers can have `port` for gRPC; ListenError when somebody else does.

    `shared`: every worker will open a listening socket of its own on it (SO_REUSEPORT), which any program of this user
    could join. A bound socket that does not listen, returned here, keeps the port for those who join it.
    """
    try:
        found = sockets.tcp(port)
    except OSError as error:
        raise ListenError(f"gRPC cannot listen on [::]:{port}: {sockets.reason(error)}") from error
    found.close()
    if not shared:
        return None
    held = socket.socket(found.family)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if held.family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    with contextlib.suppress(OSError):  # connections of another program that had the port are still fading
        held.bind(("", port))
    return held


def listen_unix(path: str) -> socket.socket:
    """A listening UNIX socket that all workers share; ListenError names the path."""
    try:
        return sockets.unix(path)
    except OSError as error:
        raise ListenError(f"gRPC cannot listen on unix:{path}: {sockets.reason(error)}") from error


def turn_deaf(sockets: Iterable[socket.socket]) -> None:
    """New connections are no longer answered; completed ones can still be accepted. For all processes that share them.

    A client that tries meanwhile repeats its SYN a second later and then finds the port closed.
    """
    program = ctypes.create_string_buffer(_DROP_SYN)
    option = struct.pack("HP", len(_DROP_SYN) // 8, ctypes.addressof(program))
    for one in sockets:
        try:
            one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, option)
        except OSError as error:  # sandboxed kernels (gVisor) have no filters: the window of one round trip stays open
            log.info("cannot filter new connections while closing: %s", error)

"""How the workers of one server make one Prometheus page.

Each worker answers with its own snapshot on a unix socket in a directory they share; whoever is scraped asks the others
and sums. A worker that ends adds its counters to `gone.json` there, so that no counter falls. A lock file makes leaving
and reading exclude each other: a worker is counted once, by its socket or by what it left.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from tfopt_server.instruments import Snapshot, merged

log = logging.getLogger(__name__)

# A worker that does not answer in this time is left out of one scrape; Prometheus itself gives up after 10 s.
PEER_TIMEOUT_S = 1.0
GONE = "gone.json"


class Share:
    """This worker's seat in `run_dir`. OSError when the directory cannot hold a socket (its path may be too long)."""

    def __init__(self, run_dir: Path, snapshot: Callable[[], Snapshot], name: str | None = None) -> None:
        self._dir = run_dir
        self._snapshot = snapshot
        self._path = run_dir / f"metrics-{name or os.getpid()}.sock"
        self._path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self._path))
        self._socket.listen(16)
        self._thread = threading.Thread(target=self._answer, name="tfopt-metrics", daemon=True)
        self._thread.start()

    def _answer(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:  # closed: this worker is leaving
                return
            with peer, contextlib.suppress(OSError):  # a scraper that went away is its own problem
                peer.settimeout(PEER_TIMEOUT_S)
                peer.sendall(json.dumps(self._snapshot()).encode())

    def others(self) -> list[Snapshot]:
        """Snapshots of the other workers and of those that ended."""
        with self._locked(fcntl.LOCK_SH):
            found = [self._gone()]
            for path in sorted(self._dir.glob("metrics-*.sock")):
                if path != self._path and (snapshot := _ask(path)) is not None:
                    found.append(snapshot)
            return found

    def close(self, final: Snapshot) -> None:
        """Leaves `final` (counters and histograms) behind and takes the socket away."""
        with self._locked(fcntl.LOCK_EX):
            part = self._dir / (GONE + ".part")
            part.write_text(json.dumps(merged(self._gone(), final)))
            part.replace(self._dir / GONE)
            self._path.unlink(missing_ok=True)
            self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()
        self._thread.join(timeout=PEER_TIMEOUT_S)

    def _gone(self) -> Snapshot:
        try:
            data: Snapshot = json.loads((self._dir / GONE).read_text())
        except FileNotFoundError:
            return {}
        return data

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with (self._dir / "metrics.lock").open("w") as file:
            fcntl.flock(file, how)
            yield


def _ask(path: Path) -> Snapshot | None:
    """One worker's snapshot, or None (with a log line) when it does not answer: it crashed, or it is stuck."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
            peer.settimeout(PEER_TIMEOUT_S)
            peer.connect(str(path))
            data = b"".join(iter(lambda: peer.recv(1 << 16), b""))
        found: Snapshot = json.loads(data)
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
        log.warning("a worker ended without leaving its metrics: %s", path.name)
        return None
    except (OSError, ValueError) as error:
        log.warning("a worker's metrics are missing from this scrape: %s: %s", path.name, error)
        return None
    return found

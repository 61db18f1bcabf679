"""Certificates for tests: PEM files that an authority of their own signed."""

from __future__ import annotations

import subprocess
from pathlib import Path

_NEW = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


def make(folder: Path) -> dict[str, str]:
    """Paths: an authority `ca`, and `key` and `cert` for localhost that it signed, good for servers and clients."""
    at = {name: str(folder / name) for name in ("ca", "ca_key", "key", "cert", "request", "names")}
    Path(at["names"]).write_text("subjectAltName=DNS:localhost")
    openssl("req", "-x509", *_NEW, "-keyout", at["ca_key"], "-out", at["ca"], "-subj", "/CN=authority")
    openssl("req", *_NEW, "-keyout", at["key"], "-out", at["request"], "-subj", "/CN=localhost")
    openssl(
        "x509", "-req", "-in", at["request"], "-CA", at["ca"], "-CAkey", at["ca_key"], "-CAcreateserial", "-days", "2",
        "-extfile", at["names"], "-out", at["cert"],
    )  # fmt: skip
    return at


def openssl(*args: str) -> None:
    subprocess.run(["openssl", *args], check=True, capture_output=True)

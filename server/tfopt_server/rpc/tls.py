"""TLS for the gRPC port, from TensorFlow Serving's SSLConfig (--ssl_config_file, protobuf text with PEM inside).

`client_verify` asks for a client certificate that `custom_ca` (else the system's authorities) signed, and refuses
clients without one. Source: GetServerCredentialsFromSSLConfigFile in TensorFlow Serving's model_servers/server.cc.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from google.protobuf.text_format import ParseError
from tfopt_protos import messages


class TlsError(ValueError):
    """A configuration that gives no TLS; text for the operator, without any key material."""


def read(path: Path) -> ssl.SSLContext:
    """The server's context. TlsError names the file and what is wrong with it."""
    config = parse(path)
    for field in ("server_key", "server_cert"):
        if not getattr(config, field):
            raise TlsError(f"--ssl_config_file {path}: expected {field} with PEM text, received nothing")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    load_pair(context, config, path)
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
        _trust(context, config, path)
    return context


def parse(path: Path) -> Any:
    try:
        return messages.from_text("tensorflow.serving.SSLConfig", path.read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise TlsError(f"--ssl_config_file {path}: cannot be read: {error}") from error
    except ParseError as error:
        # The parser's text may quote the line, which may be a key's.
        raise TlsError(f"--ssl_config_file {path}: line {error.GetLine()} is no SSLConfig in text form") from None


def load_pair(context: ssl.SSLContext, config: Any, path: Path) -> None:
    with ExitStack() as files:
        cert = files.enter_context(_file(config.server_cert))
        key = files.enter_context(_file(config.server_key))
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            raise TlsError(f"--ssl_config_file {path}: server_cert and server_key are no pair: {error}") from error


def _trust(context: ssl.SSLContext, config: Any, path: Path) -> None:
    if not config.custom_ca:
        context.load_default_certs(ssl.Purpose.CLIENT_AUTH)
        return
    try:
        context.load_verify_locations(cadata=config.custom_ca)
    except (ssl.SSLError, ValueError) as error:
        raise TlsError(f"--ssl_config_file {path}: custom_ca is no certificate in PEM: {error}") from error


@contextmanager
def _file(text: str) -> Iterator[str]:
    """A path for what OpenSSL only reads from files; it never touches a disk."""
    descriptor = os.memfd_create("tfopt-tls")
    try:
        os.write(descriptor, text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _no_password() -> str:
    raise ValueError("the key is encrypted; expected one without a password")

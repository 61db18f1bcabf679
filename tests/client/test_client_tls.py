"""The client over TLS: grpcs against a server with --ssl_config_file, https against what ends TLS in front of one."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import certificates
import numpy as np
import pytest
from process.servers import free_port, running
from tfopt_client import Client, PredictError, Retry
from tfopt_client.errors import untrusted
from tfopt_protos import messages
from tfopt_server.__main__ import main

pytestmark = pytest.mark.process
SERVER = Path(__file__).with_name("plane_server.py")
ONE = np.float32([1, 2])
HALVED = [2.5, 3.0]


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return certificates.make(tmp_path_factory.mktemp("tls"))


@contextlib.contextmanager
def serving(folder: Path, at: dict[str, str], mutual: bool) -> Iterator[tuple[int, int]]:
    """The ports of a server: REST in plain text, gRPC with TLS."""
    pem = {name: Path(path).read_text() for name, path in at.items()}
    config = messages.message("tensorflow.serving.SSLConfig")(
        server_key=pem["key"], server_cert=pem["cert"], custom_ca=pem["ca"], client_verify=mutual
    )
    (folder / "ssl.txt").write_text(messages.to_text(config))
    rest, rpc = free_port(), free_port()
    flags = (f"--port={rpc}", f"--rest_api_port={rest}", f"--ssl_config_file={folder / 'ssl.txt'}")
    with running([sys.executable, str(SERVER), *flags], rest, folder / "log") as server:
        server.wait_for_health(200, 60)
        yield rest, rpc


class Proxy:
    """Ends TLS in front of a port, as a load balancer does."""

    def __init__(self, behind: int, at: dict[str, str], mutual: bool) -> None:
        self._behind = behind
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=at["ca"])
        self._context.load_cert_chain(at["cert"], at["key"])
        self._context.verify_mode = ssl.CERT_REQUIRED if mutual else ssl.CERT_NONE
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, raw: socket.socket) -> None:
        """One request at a time, which is what the client sends."""
        with (
            contextlib.suppress(OSError),
            self._context.wrap_socket(raw, server_side=True) as peer,
            socket.create_connection(("127.0.0.1", self._behind)) as server,
        ):
            back = threading.Thread(target=_pump, args=(server, peer), daemon=True)
            back.start()
            _pump(peer, server)
            back.join(5)

    def close(self) -> None:
        self._listener.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module", params=["tls", "mutual"])
def servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, at: dict[str, str]):
    """Whether clients must show a certificate, and the addresses."""
    mutual = request.param == "mutual"
    with serving(tmp_path_factory.mktemp("server"), at, mutual) as (rest, rpc):
        proxy = Proxy(rest, at, mutual)
        yield mutual, {"grpcs": f"grpcs://localhost:{rpc}", "https": f"https://localhost:{proxy.port}"}
        proxy.close()


def trusting(at: dict[str, str], shows: bool = False) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=at["ca"])
    if shows:
        context.load_cert_chain(at["cert"], at["key"])
    return context


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_calls_share_a_connection(servers, at: dict[str, str], scheme: str) -> None:
    mutual, addresses = servers
    large = np.arange(1_000_000, dtype=np.float32)
    with Client(addresses[scheme], tls=trusting(at, mutual)) as client:
        for _ in range(3):
            assert client.predict({"x": ONE}, model="m")["y"].tolist() == HALVED
        np.testing.assert_array_equal(client.predict({"x": large}, model="m", signature="echo_float")["y"], large)
        assert client.connections_opened() == 1


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_who_is_not_trusted_is_not_asked_twice(servers, scheme: str) -> None:
    strangers = ssl.create_default_context()
    with Client(servers[1][scheme], tls=strangers) as client, pytest.raises(PredictError) as refused:
        client.predict({"x": ONE}, model="m")
    assert (refused.value.code, refused.value.attempts) == ("UNAVAILABLE", 1)
    assert "certificate verify failed" in refused.value.message


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_who_shows_no_certificate_is_refused_where_one_is_wanted(servers, at: dict[str, str], scheme: str) -> None:
    """In TLS 1.3 a server says so after the handshake, and a reset may overtake its words: then it is asked again."""
    mutual, addresses = servers
    if not mutual:
        pytest.skip("this server asks for no certificate: the other one does")
    with Client(addresses[scheme], Retry(2, 0, 0), trusting(at)) as client, pytest.raises(PredictError) as refused:
        client.predict({"x": ONE}, model="m")
    assert refused.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), True),
        (ssl.SSLError(1, "TLSV13_ALERT_CERTIFICATE_REQUIRED"), True),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), False),
        (ConnectionResetError(104, "Connection reset by peer"), False),
    ],
)
def test_what_does_not_mend_itself(error: OSError, final: bool) -> None:
    assert untrusted(error) is final


@pytest.mark.parametrize("scheme", ["grpcs", "https"])
def test_the_command_takes_files(servers, at: dict[str, str], scheme: str, tmp_path: Path, capsysbinary) -> None:
    mutual, addresses = servers
    np.save(tmp_path / "in.npy", ONE)
    files = [f"--input={tmp_path}/in.npy", "--input_name=x", f"--output={tmp_path}/out.npy"]
    tls = [f"--tls_ca_file={at['ca']}"]
    if mutual:
        tls += [f"--tls_cert_file={at['cert']}", f"--tls_key_file={at['key']}"]
    assert main(["predict", f"--server={addresses[scheme]}", "--model=m", *files, *tls]) == 0
    assert np.load(tmp_path / "out.npy").tolist() == HALVED
    assert main(["predict", f"--server={addresses[scheme]}", "--model=m", *files]) == 1
    assert b"certificate" in capsysbinary.readouterr().err


def test_files_that_give_no_tls_are_named(at: dict[str, str], tmp_path: Path, capsysbinary) -> None:
    shutil.copy(at["names"], tmp_path / "no.pem")
    for server, flags, said in (
        ("http://x", [f"--tls_ca_file={at['ca']}"], b"expected --server=https:// or grpcs:// with --tls_ca_file"),
        ("grpcs://x", [f"--tls_cert_file={at['cert']}"], b"expected --tls_cert_file and --tls_key_file together"),
        ("grpcs://x", [f"--tls_ca_file={tmp_path}/no.pem"], b"no.pem: "),
        ("grpcs://x", [f"--tls_ca_file={tmp_path}/none"], b"none: No such file"),
        ("grpcs://x", [f"--tls_cert_file={at['cert']}", f"--tls_key_file={at['ca_key']}"], b"cert: "),
    ):
        assert main(["predict", f"--server={server}", f"--input={tmp_path}/in.json", *flags]) == 2
        assert said in capsysbinary.readouterr().err

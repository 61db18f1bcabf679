"""TLS and mutual TLS from an SSLConfig, with grpcio's own client."""

from __future__ import annotations

import asyncio
from pathlib import Path

import certificates
import faceplane
import grpc
import numpy as np
import pytest
import rpcclient
from rpcclient import PREDICTION, predict_request
from tfopt_protos import messages
from tfopt_server.rpc import tls

REQUEST = predict_request({"x": np.float32([[1, 2]])}).SerializeToString()


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """PEM texts of tests/certificates.py."""
    return {name: Path(path).read_text() for name, path in certificates.make(tmp_path_factory.mktemp("tls")).items()}


def config(folder: Path, **fields: object) -> Path:
    path = folder / "ssl.txt"
    path.write_text(messages.to_text(messages.message("tensorflow.serving.SSLConfig")(**fields)))
    return path


def call(folder: Path, credentials: grpc.ChannelCredentials) -> bytes:
    options = [("grpc.ssl_target_name_override", "localhost")]
    with grpc.secure_channel(f"unix:{folder}/s", credentials, options) as channel:
        return channel.unary_unary(PREDICTION + "Predict")(REQUEST, timeout=10)


def test_tls(tmp_path: Path, pems: dict[str, str]):
    path = config(tmp_path, server_key=pems["key"], server_cert=pems["cert"])
    with rpcclient.face(tmp_path, None, f"--ssl_config_file={path}") as (plain, _, _):
        answer = call(tmp_path, grpc.ssl_channel_credentials(pems["ca"].encode()))
        assert list(messages.PredictResponse.FromString(answer).outputs["y"].float_val) == [2.5, 3.0]
        assert plain.call(PREDICTION + "Predict", REQUEST).code.name == "UNAVAILABLE"


def test_mutual_tls_refuses_who_shows_no_certificate(tmp_path: Path, pems: dict[str, str]):
    path = config(tmp_path, server_key=pems["key"], server_cert=pems["cert"], custom_ca=pems["ca"], client_verify=True)
    with rpcclient.face(tmp_path, None, f"--ssl_config_file={path}"):
        ca, key, cert = (pems[name].encode() for name in ("ca", "key", "cert"))
        assert call(tmp_path, grpc.ssl_channel_credentials(ca, key, cert))
        with pytest.raises(grpc.RpcError) as refused:
            call(tmp_path, grpc.ssl_channel_credentials(ca))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_what_gives_no_tls_names_the_file_and_shows_no_key(tmp_path: Path, pems: dict[str, str]):
    secret = pems["key"].splitlines()[1]
    bad = {
        "server_cert: a file": "server_key: 'x'",
        "is no SSLConfig in text form": f"server_key: '{secret}",
        "are no pair": config(tmp_path, server_key=pems["ca_key"], server_cert=pems["cert"]).read_text(),
        "custom_ca is no certificate": config(
            tmp_path, server_key=pems["key"], server_cert=pems["cert"], custom_ca="x", client_verify=True
        ).read_text(),
    }
    bad["expected server_cert with PEM text"] = bad.pop("server_cert: a file")
    path = tmp_path / "bad.txt"
    for said, text in bad.items():
        path.write_text(text)
        with pytest.raises(tls.TlsError) as error:
            tls.read(path)
        assert str(path) in str(error.value)
        assert said in str(error.value)
        assert secret not in str(error.value)


def test_a_server_with_a_bad_file_does_not_start(tmp_path: Path):
    path = config(tmp_path, server_key="x", server_cert="y")
    settings = faceplane.configured("--port=0", f"--grpc_socket_path={tmp_path}/s", f"--ssl_config_file={path}")
    plane = faceplane.plane()
    with pytest.raises(tls.TlsError, match="are no pair"):
        asyncio.run(rpcclient.server.start(plane, settings, plane.metrics))

"""Buckets of all three clouds through the real library, against services on this machine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from bucketstub import Bucket
from tfopt_server import uris
from tfopt_server.errors import Code
from tfopt_server.storage.store import Changed, Object, StorageError, Store

CLOUDS = ("gs", "s3", "az")


def store(uri: str) -> Store:
    return Store(uris.parse(uri))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_lies_in_a_bucket(cloud: str, bucket: Bucket) -> None:
    bucket.objects = {
        "m/1/a": b"0123456789",
        "m/2/b/c d+é": b"x",
        "m/12/x": b"",
        "m/2/": b"",
        "m/2/b/": b"",
        "m/note": b"n",
        "mm/1/a": b"",
        "n": b"",
    }
    found = store(f"{cloud}://bucket/m")
    folders, objects = found.folders()
    assert (sorted(folders), [o.path for o in objects]) == (["1", "12", "2"], ["note"])
    (deep,) = found.tree("2")
    assert (deep.path, deep.key, deep.size) == ("b/c d+é", "m/2/b/c d+é", 1)
    assert sorted(o.path for o in found.tree()) == ["1/a", "12/x", "2/b/c d+é", "note"]
    (first,) = found.tree("1")
    assert b"".join(found.read(first, 2, 5)) == b"234"
    assert b"".join(found.read(deep, 0, 1)) == b"x"


@pytest.mark.parametrize("cloud", CLOUDS)
def test_lists_that_come_in_pages(cloud: str, bucket: Bucket) -> None:
    bucket.objects, bucket.page = {f"m/{i}/a": b"x" for i in range(7)}, 2
    found = store(f"{cloud}://bucket/m")
    assert (len(found.folders()[0]), len(found.tree())) == (7, 7)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_an_object_that_changed_or_went_is_not_read(cloud: str, bucket: Bucket) -> None:
    bucket.objects = {"m/1/a": b"before"}
    found = store(f"{cloud}://bucket/m")
    (listed,) = found.tree("1")
    bucket.objects["m/1/a"] = b"after."
    with pytest.raises(Changed, match="an object changed while it was read"):
        list(found.read(listed, 0, 6))
    del bucket.objects["m/1/a"]
    with pytest.raises(Changed):
        list(found.read(listed, 0, 6))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_wrong_is_said_in_the_operators_words(cloud: str, bucket: Bucket) -> None:
    with pytest.raises(StorageError, match=f"{cloud}://other/m: there is no bucket 'other' in ") as raised:
        store(f"{cloud}://other/m").folders()
    assert raised.value.code is Code.NOT_FOUND
    bucket.denied = True
    with pytest.raises(StorageError, match="access is denied") as raised:
        store(f"{cloud}://bucket/m").folders()
    assert raised.value.code is Code.PERMISSION_DENIED
    assert "Debug source" not in str(raised.value)
    assert "Signature" not in str(raised.value)


def test_an_account_that_nobody_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME")
    with pytest.raises(StorageError, match="no credentials were found; set AZURE_STORAGE_ACCOUNT_NAME") as raised:
        store("az://bucket/m")
    assert raised.value.code is Code.UNAUTHENTICATED


def test_without_the_library_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(StorageError, match="buckets need the package obstore, which is not installed"):
        store("gs://bucket/m")


def test_a_server_without_a_bucket_does_not_import_the_library() -> None:
    code = "import sys, tfopt_server.plane; sys.exit('obstore' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


def test_s3_as_another_implementation_speaks_it(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an object that was uploaded in parts: its ETag is no MD5."""
    import boto3

    for name, value in {
        "AWS_ENDPOINT_URL": moto, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client(
        "s3", endpoint_url=moto, aws_access_key_id="id", aws_secret_access_key="secret", region_name="us-east-1"
    )
    client.create_bucket(Bucket="models")
    for i in range(3):
        client.put_object(Bucket="models", Key=f"m/1/{i:04}", Body=b"x")
    part = b"p" * (5 * 1024 * 1024)
    upload = client.create_multipart_upload(Bucket="models", Key="m/2/big")["UploadId"]
    parts = [
        client.upload_part(Bucket="models", Key="m/2/big", UploadId=upload, PartNumber=i, Body=body)["ETag"]
        for i, body in ((1, part), (2, b"end"))
    ]
    client.complete_multipart_upload(
        Bucket="models", Key="m/2/big", UploadId=upload,
        MultipartUpload={"Parts": [{"ETag": tag, "PartNumber": i + 1} for i, tag in enumerate(parts)]},
    )  # fmt: skip
    found = store("s3://models/m")
    assert found.folders() == (["1", "2"], [])
    assert len(found.tree("1")) == 3
    (big,) = found.tree("2")
    assert (big.size, big.etag.endswith('-2"')) == (len(part) + 3, True)
    assert b"".join(found.read(big, len(part) - 1, big.size)) == b"pend"
    with pytest.raises(Changed):
        list(found.read(Object("big", "m/2/big", 3, '"0123"'), 0, 3))

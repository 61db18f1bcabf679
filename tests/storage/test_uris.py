"""Which texts name a bucket."""

from __future__ import annotations

import pytest
from tfopt_server.uris import Uri, is_uri, parse


@pytest.mark.parametrize(
    ("text", "uri"),
    [
        ("gs://b/m", Uri("gs", "b", "m")),
        ("gs://b/m/n/", Uri("gs", "b", "m/n")),
        ("GS://b//m", Uri("gs", "b", "m")),
        ("gs://b", Uri("gs", "b", "")),
        ("s3://b.with.dots/m", Uri("s3", "b.with.dots", "m")),
        ("s3a://b/m", Uri("s3", "b", "m")),
        ("az://container/m", Uri("az", "container", "m")),
        ("abfss://c@account.dfs.core.windows.net/m", Uri("az", "c", "m", "account")),
    ],
)
def test_buckets(text: str, uri: Uri) -> None:
    assert is_uri(text)
    assert parse(text) == uri


@pytest.mark.parametrize("text", ["/models/m", "models", "file:///m", "C:/m", "", "gs:/b/m"])
def test_folders(text: str) -> None:
    assert not is_uri(text)


@pytest.mark.parametrize("text", ["hdfs://b/m", "gs://", "gs:///m", "s3://key@b/m", "gs://b/../m", "/m"])
def test_what_names_no_bucket_is_refused_and_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="received '"):
        parse(text)


def test_every_uri_has_a_folder_of_its_own() -> None:
    texts = ["gs://b/m", "gs://b/m-", "gs://b/m_", "s3://b/m", "gs://b/M", "gs://b", "gs://b-m"]
    names = {parse(text).folder_name for text in texts}
    assert len(names) == len(texts)
    assert parse("gs://b/models/m").folder_name.startswith("b-models-m-")

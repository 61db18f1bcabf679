"""A bucket: what lies under a prefix, pieces of objects, files put there. The one file that knows obstore.

obstore binds Rust's object_store: Google Cloud Storage, S3 and Azure behind one interface, each with its cloud's own
credentials (docs/decisions/0111-storage.md). It is imported here when the first bucket is opened, never before.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tfopt_server.errors import Code
from tfopt_server.uris import Uri

_NAMES = {"gs": "Google Cloud Storage", "s3": "S3", "az": "Azure Blob Storage"}
_CREDENTIALS = {
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached",
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached",
    "az": "set AZURE_STORAGE_ACCOUNT_NAME and a key, or run where a managed identity is attached",
}
# Asked for where no credentials are set; nobody answers outside of a cloud.
_METADATA = ("169.254.169.254", "169.254.170.2", "metadata.google.internal", "MissingAccount")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "FilesystemNotFound")
_RETRY = {
    "max_retries": 4,
    "backoff": {
        "init_backoff": datetime.timedelta(milliseconds=200),
        "max_backoff": datetime.timedelta(seconds=5),
        "base": 2,
    },
    "retry_timeout": datetime.timedelta(seconds=30),
}


class StorageError(Exception):
    """A bucket that cannot be read; the code and the text that a version's status shows."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Changed(StorageError):
    """An object was replaced or removed since it was listed; listing again helps, trying again does not."""


@dataclass(frozen=True)
class Object:
    """`path` below the prefix that was listed, `key` in the bucket, `size` in bytes; `etag` "" where there is none."""

    path: str
    key: str
    size: int
    etag: str


class Store:
    """`uri` with its bucket opened. StorageError where the library is not installed or no account is named."""

    def __init__(self, uri: Uri) -> None:
        self.uri = uri
        try:
            import obstore
            from obstore import store
        except ImportError as error:
            raise StorageError(
                Code.UNIMPLEMENTED, f"{uri}: buckets need the package obstore, which is not installed"
            ) from error
        self._library = obstore
        kinds: dict[str, Any] = {"gs": store.GCSStore, "s3": store.S3Store, "az": store.AzureStore}
        config = {"account_name": uri.account} if uri.account else {}
        try:
            self._store = kinds[uri.scheme](uri.bucket, config=config, retry_config=_RETRY)
        except Exception as error:
            raise translated(uri, error) from error

    def folders(self) -> tuple[list[str], list[Object]]:
        """The names of the folders directly under the URI, and the objects there."""
        prefix = self._below("")
        try:
            found: Any = self._library.list_with_delimiter(self._store, prefix=prefix or None)
        except Exception as error:
            raise translated(self.uri, error) from error
        return [p.rstrip("/").rpartition("/")[2] for p in found["common_prefixes"]], self._objects(
            found["objects"], prefix
        )

    def tree(self, folder: str = "") -> list[Object]:
        """Every object under a folder of the URI."""
        prefix = self._below(folder)
        try:
            listed: Any = [meta for some in self._library.list(self._store, prefix=prefix or None) for meta in some]
        except Exception as error:
            raise translated(self.uri, error) from error
        return self._objects(listed, prefix)

    def _below(self, folder: str) -> str:
        return "".join(f"{part}/" for part in (self.uri.prefix, folder) if part)

    def _objects(self, metas: list[Any], prefix: str) -> list[Object]:
        """Without the empty objects that stand for folders in some consoles: what they are called others lie under."""
        objects = [
            Object(meta["path"].removeprefix(prefix), meta["path"], meta["size"], meta["e_tag"] or "") for meta in metas
        ]
        folders = {str(parent) for each in objects for parent in PurePosixPath(each.path).parents}
        folders.add(prefix.rstrip("/"))
        return [each for each in objects if each.size or each.path not in folders]

    def write(self, path: str, file: Path) -> None:
        """Puts a file below the URI, in parts when it is large."""
        try:
            self._library.put(self._store, self._below("") + path, file)
        except Exception as error:
            raise translated(self.uri, error, "written") from error

    def read(self, what: Object, start: int, stop: int) -> Iterator[memoryview]:
        """Bytes `start` to `stop` of an object, as they come. Changed when it is not the one that was listed."""
        options: Any = {"range": (start, stop)} | ({"if_match": what.etag} if what.etag else {})
        try:
            answer: Any = self._library.get(self._store, what.key, options=options)
            for piece in answer.stream(min_chunk_size=1 << 20):
                yield memoryview(piece)
        except Exception as error:
            raise translated(self.uri, error) from error


def translated(uri: Uri, error: Exception, done: str = "read") -> StorageError:
    """What the library says, in the operator's words."""
    from obstore import exceptions

    text = str(error)
    first = _shortened(text)
    if any(word in text for word in _NO_BUCKET):
        return StorageError(Code.NOT_FOUND, f"{uri}: there is no bucket {uri.bucket!r} in {_NAMES[uri.scheme]}")
    if isinstance(error, (FileNotFoundError, exceptions.NotFoundError, exceptions.PreconditionError)):
        return Changed(Code.ABORTED, f"{uri}: an object changed while it was read: {first}")
    if any(word in text for word in _METADATA):
        return StorageError(
            Code.UNAUTHENTICATED, f"{uri}: no credentials were found; {_CREDENTIALS[uri.scheme]} ({first})"
        )
    if isinstance(error, exceptions.UnauthenticatedError) or "401 Unauthorized" in text or "token request" in text:
        return StorageError(Code.UNAUTHENTICATED, f"{uri}: the credentials were refused: {first}")
    if isinstance(error, exceptions.PermissionDeniedError) or "403 Forbidden" in text:
        return StorageError(Code.PERMISSION_DENIED, f"{uri}: access is denied: {first}")
    return StorageError(Code.UNAVAILABLE, f"{uri}: cannot be {done}: {first}")


def _shortened(text: str) -> str:
    """The first line, without the request's own address, which may carry a signature."""
    line = text.split("\n\nDebug source", 1)[0].split("<?xml", 1)[0].replace("\n", " ").strip()
    return re.sub(r"\?\S+", "", line).rstrip(": ")[:400]

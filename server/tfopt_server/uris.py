"""Which paths name a bucket, and what is in one: `gs://bucket/path`, `s3://bucket/path`, `az://container/path`.

Pure: storage/ talks to the bucket, settings.py and model_config.py only ask whether a text names one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

# Spellings by the scheme that they mean.
SCHEMES = {"gs": "gs", "gcs": "gs", "s3": "s3", "s3a": "s3", "az": "az", "azure": "az", "abfs": "az", "abfss": "az"}
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/]*)/*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Uri:
    """`prefix` neither begins nor ends with a slash; "" is the whole bucket. `account`: Azure's, where the URI names it
    (`abfss://container@account.dfs.core.windows.net/path`)."""

    scheme: str
    bucket: str
    prefix: str
    account: str = ""

    def __str__(self) -> str:
        at = f"@{self.account}" if self.account else ""
        return f"{self.scheme}://{self.bucket}{at}/{self.prefix}"

    @property
    def folder_name(self) -> str:
        """A name for a folder on this machine: nobody else's, and still readable."""
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", f"{self.bucket}-{self.prefix}").strip("-.")[-60:]
        return f"{readable}-{hashlib.sha256(str(self).encode()).hexdigest()[:12]}"


def is_uri(path: str) -> bool:
    """Whether a path has a scheme other than file://."""
    match = _URI.fullmatch(path)
    return match is not None and match[1].lower() != "file"


def parse(text: str) -> Uri:
    """ValueError says what was expected, without naming who asked."""
    match = _URI.fullmatch(text)
    scheme = SCHEMES.get(match[1].lower()) if match else None
    if match is None or scheme is None:
        raise ValueError(f"expected a folder, gs://, s3:// or az://, received {text!r}")
    bucket, at, host = match[2].partition("@")
    if not bucket or (at and scheme != "az"):
        raise ValueError(f"expected {scheme}://BUCKET/PATH, received {text!r}")
    parts = [part for part in match[3].split("/") if part]
    if ".." in parts or "." in parts:
        raise ValueError(f"expected a path without . and .., received {text!r}")
    return Uri(scheme, bucket, "/".join(parts), host.partition(".")[0])

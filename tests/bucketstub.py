"""A bucket service on loopback that speaks what obstore asks of S3, Google Cloud Storage (its XML interface) and Azure
Blob Storage: lists, ranged reads with ETags, whole objects put. Everything else is 501. It can fail on purpose.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"


class Bucket:
    """`objects` by key. `etags` replaces an object's MD5. `broken`: how many more reads break off in the middle;
    `denied`: everything is 403. `asked` is every request's (method, path and query); `sent` the bytes of objects."""

    def __init__(self, name: str = "bucket") -> None:
        self.name = name
        self.objects: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.broken = 0
        self.spoiled = 0  # reads whose bytes are wrong
        self.denied = False
        self.page = 1000  # entries of one answer to a list
        self.asked: list[str] = []
        self.sent = 0
        self.lock = threading.Lock()

    def etag(self, key: str) -> str:
        return self.etags.get(key) or hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()

    def take(self, what: str) -> bool:
        """Whether this one is to fail so."""
        with self.lock:
            left = getattr(self, what)
            setattr(self, what, max(0, left - 1))
            return left > 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_: object) -> None:
        return

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True))
        bucket = self.bucket
        bucket.asked.append(self.path)
        parts = urllib.parse.unquote(url.path).strip("/").split("/")
        azure = parts[0] == ACCOUNT
        name, key = (parts[1], "/".join(parts[2:])) if azure else (parts[0], "/".join(parts[1:]))
        if bucket.denied:
            self._refuse(403, "AccessDenied")
        elif name != bucket.name:
            self._refuse(404, "ContainerNotFound" if azure else "NoSuchBucket")
        elif not key and ("list-type" in query or query.get("comp") == "list"):
            self._list(query, azure)
        elif key not in bucket.objects:
            self._refuse(404, "BlobNotFound" if azure else "NoSuchKey")
        else:
            self._object(key)

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        """A whole object."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path).strip("/").split("/")
        parts = parts[1:] if parts[0] == ACCOUNT else parts
        if self.bucket.denied or parts[0] != self.bucket.name:
            self._refuse(403, "AccessDenied")
            return
        self.bucket.objects["/".join(parts[1:])] = body
        self.bucket.asked.append(f"PUT {self.path}")
        self._answer(201, b"", {"ETag": '"put"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"})

    def do_POST(self) -> None:
        self._refuse(501, "NotImplemented")

    do_DELETE = do_POST

    def _refuse(self, status: int, code: str) -> None:
        body = f"<Error><Code>{code}</Code></Error>".encode()
        self._answer(status, body, {"Content-Type": "application/xml"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _list(self, query: dict[str, str], azure: bool) -> None:
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        entries = dict[str, bool]()  # name: whether it is a folder
        for key in sorted(self.bucket.objects):
            if not key.startswith(prefix):
                continue
            below = key[len(prefix) :]
            folder = bool(delimiter) and delimiter in below
            entries[prefix + below.split(delimiter)[0] + delimiter if folder else key] = folder
        begin = int(query.get("marker" if azure else "continuation-token") or 0)
        here = list(entries.items())[begin : begin + self.bucket.page]
        more = str(begin + self.bucket.page) if begin + self.bucket.page < len(entries) else ""
        make = self._azure if azure else self._s3
        body = make([n for n, folder in here if folder], [n for n, folder in here if not folder], more)
        self._answer(200, body.encode(), {"Content-Type": "application/xml"})

    def _s3(self, folders: list[str], keys: list[str], more: str) -> str:
        found = "".join(
            f"<Contents><Key>{escape(k)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>&quot;{self.bucket.etag(k)}&quot;</ETag><Size>{len(self.bucket.objects[k])}</Size></Contents>"
            for k in keys
        )
        found += "".join(f"<CommonPrefixes><Prefix>{escape(f)}</Prefix></CommonPrefixes>" for f in folders)
        if more:
            found += f"<NextContinuationToken>{more}</NextContinuationToken>"
        cut = str(bool(more)).lower()
        return f'<?xml version="1.0"?><ListBucketResult><IsTruncated>{cut}</IsTruncated>{found}</ListBucketResult>'

    def _azure(self, folders: list[str], keys: list[str], more: str) -> str:
        found = "".join(
            f"<Blob><Name>{escape(k)}</Name><Properties><Last-Modified>Thu, 01 Jan 2026 00:00:00 GMT</Last-Modified>"
            f"<Content-Length>{len(self.bucket.objects[k])}</Content-Length><Content-Type>x/y</Content-Type>"
            f"<Etag>0x{self.bucket.etag(k)[:15]}</Etag></Properties></Blob>"
            for k in keys
        )
        found += "".join(f"<BlobPrefix><Name>{escape(f)}</Name></BlobPrefix>" for f in folders)
        end = f"<Blobs>{found}</Blobs><NextMarker>{more}</NextMarker>"
        return f'<?xml version="1.0"?><EnumerationResults>{end}</EnumerationResults>'

    def _object(self, key: str) -> None:
        bucket = self.bucket
        data, etag = bucket.objects[key], f'"{bucket.etag(key)}"'
        azure = self.path.startswith(f"/{ACCOUNT}/")
        etag = f"0x{bucket.etag(key)[:15]}" if azure else etag
        if self.headers.get("If-Match", etag) != etag:
            self._refuse(412, "PreconditionFailed")
            return
        status, headers = 200, {"ETag": etag, "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"}
        if asked := self.headers.get("Range") or self.headers.get("x-ms-range"):
            first, last = asked.removeprefix("bytes=").split("-")
            start, stop = int(first), min(int(last or len(data)), len(data) - 1) + 1
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            status, data = 206, data[start:stop]
        if bucket.take("spoiled"):
            data = bytes(len(data))
        if bucket.take("broken"):
            self.send_response(status)
            for header, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(data[: len(data) // 2])
            self.close_connection = True
            return
        with bucket.lock:
            bucket.sent += len(data)
        self._answer(status, data, headers)


@contextlib.contextmanager
def serving(bucket: Bucket) -> Iterator[str]:
    """The address of a service with this one bucket."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"bucket": bucket}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def environment(address: str) -> dict[str, str]:
    """What points each cloud's client at a service on this machine, with credentials that nobody checks."""
    key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
    empty = dict.fromkeys(("client_email", "private_key", "private_key_id"), "")
    nobody = {"gcs_base_url": address, "disable_oauth": True, **empty}
    return {
        "AWS_ENDPOINT_URL": address, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret",
        "GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(nobody), "GOOGLE_ALLOW_HTTP": "true",
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": key,
        "AZURE_STORAGE_ENDPOINT": f"{address}/{ACCOUNT}", "AZURE_ALLOW_HTTP": "true",
    }  # fmt: skip

"""`tfopt predict`: asks a server, with requests from a file, and writes the answers.

    tfopt predict --server=http://localhost:8501 --model=m --input=body.json
    tfopt predict --server=grpc://localhost:8500 --model=m --version=3 --input=x.npz --output=y.npz

A .json file is one REST body, a .jsonl file one a line; .npz holds the inputs by name, .npy the only one. Timing goes
to stderr. Exit codes: 0 answered, 1 refused or unanswered, 2 mistakes in the arguments.
"""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfopt_server import argv as arguments
from tfopt_server import flags
from tfopt_server.commands import HELP

if TYPE_CHECKING:
    from tfopt_client import Client
    from tfopt_client.client import Target

FLAGS = (
    flags.Flag("server", "str", "http://localhost:8501", "http://, https://, grpc:// or grpcs:// HOST:PORT"),
    flags.Flag("model", "str", "default", "name of the model"),
    flags.Flag("version", "int", None, "a version; the newest without", within=(0, 2**63 - 1)),
    flags.Flag("label", "str", "", "a version's label, instead of its number"),
    flags.Flag("signature", "str", "", "serving_default without"),
    flags.Flag("outputs", "strs", (), "only these outputs"),
    flags.Flag("input", "str", "", ".json, .jsonl, .npy or .npz"),
    flags.Flag("input_name", "str", "", "the input that an .npy file holds, where the signature has several"),
    flags.Flag("output", "str", "", ".json, .jsonl, .npy or .npz; without: JSON on stdout"),
    flags.Flag("deadline_s", "float", 60.0, "seconds for each request, retries included", within=(0.001, 86400.0)),
    flags.Flag("tls_ca_file", "str", "", "PEM file of the authority that signed the server's certificate"),
    flags.Flag("tls_cert_file", "str", "", "PEM file of the certificate to show, with its chain"),
    flags.Flag("tls_key_file", "str", "", "PEM file of that certificate's key"),
    flags.Flag("attempts", "int", 6, "how often a request is sent at most", within=(1, 1000)),
)
USAGE = (
    "usage: tfopt predict --server=URL --model=NAME --input=FILE [--output=FILE] [flags]\n\n"
    "Sends the requests of a file to a running server and writes its answers.\n\n"
    + "".join(f"  --{f.name:<13} {f.meaning}\n" for f in FLAGS)
)
USAGE_ERROR = 2
_BODIES = (".json", ".jsonl")


def main(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """0: every request was answered; 1: one was not, or a file is wrong; 2: mistakes in the arguments."""
    if any(a in HELP for a in argv):
        sys.stdout.write(USAGE)
        return 0
    parsed = arguments.parse(argv, FLAGS, environ)
    values: dict[str, Any] = {flag.name: flag.default for flag in FLAGS} | dict(parsed.values)
    mistakes = [*parsed.errors, *parsed.unknown, *(f"unexpected argument {p!r}" for p in parsed.positionals)]
    if not values["input"]:
        mistakes.append("expected --input=FILE, received none")
    suffix = Path(values["input"]).suffix
    if suffix == ".npy" and not values["input_name"] and not values["server"].startswith("grpc"):
        mistakes.append(
            "expected --input_name with an .npy file over REST, where nothing says what the input is called"
        )
    if values["outputs"] and suffix in _BODIES and not values["server"].startswith("grpc"):
        mistakes.append("expected no --outputs with a JSON body over REST, which answers with all of them")
    tls = _tls(values, mistakes)
    if mistakes:
        return _wrong(mistakes)

    from tfopt_client import Client, PredictError, Retry
    from tfopt_client.client import Target
    from tfopt_client.files import FileError

    try:
        target = Target(values["model"], values["version"], values["label"] or None, values["signature"])
        client = Client(values["server"], Retry(attempts=values["attempts"]), tls)
    except ValueError as error:
        return _wrong([str(error)])
    try:
        with client:
            _Run(client, target, values).run()
    except (PredictError, FileError, OSError) as error:
        sys.stderr.write(f"tfopt predict: {error}\n")
        return 1
    return 0


def _tls(values: Mapping[str, Any], mistakes: list[str]) -> ssl.SSLContext | None:
    """What the files say; None where they were not given, and for mistakes."""
    authority, certificate, key = (values[f"tls_{name}_file"] for name in ("ca", "cert", "key"))
    given = [f"--tls_{name}_file" for name in ("ca", "cert", "key") if values[f"tls_{name}_file"]]
    if not given:
        return None
    if not values["server"].startswith(("https://", "grpcs://")):
        mistakes.append(f"expected --server=https:// or grpcs:// with {given[0]}, received {values['server']!r}")
    elif bool(certificate) != bool(key):
        mistakes.append(f"expected --tls_cert_file and --tls_key_file together, received {given[-1]} alone")
    else:
        what = authority
        try:
            context = ssl.create_default_context(cafile=authority or None)
            if certificate:
                what = certificate
                context.load_cert_chain(certificate, key)
        except OSError as error:  # ssl.SSLError too
            mistakes.append(f"{what}: {error.strerror or error}")
        else:
            return context
    return None


def _wrong(mistakes: Sequence[str]) -> int:
    sys.stderr.write("".join(f"tfopt predict: {mistake}\n" for mistake in mistakes) + USAGE)
    return USAGE_ERROR


class _Run:
    """The requests of one file, one after the other on one connection."""

    def __init__(self, client: Client, target: Target, values: Mapping[str, Any]) -> None:
        self._client, self._target, self._values = client, target, values
        self._input = Path(values["input"])
        self._output = Path(values["output"]) if values["output"] else None
        self._took: list[float] = []

    def run(self) -> None:
        from tfopt_client.files import ARRAYS

        if self._input.suffix in ARRAYS:
            self._arrays()
        else:
            self._bodies()
        took = sorted(self._took)
        count = f"{len(took)} request{'s' * (len(took) != 1)}"
        if took:
            middle, total = took[len(took) // 2] * 1e3, sum(took) * 1e3
            sys.stderr.write(f"{count}, median {middle:.2f} ms, slowest {took[-1] * 1e3:.2f} ms, all {total:.2f} ms\n")

    def _timed(self, ask: Callable[[], Any]) -> Any:
        begin = time.perf_counter()
        answer = ask()
        self._took.append(time.perf_counter() - begin)
        return answer

    def _predict(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        target, values = self._target, self._values
        found: dict[str, Any] = self._timed(
            lambda: self._client.predict(
                feeds, model=target.model, signature=target.signature, version=target.version, label=target.label,
                outputs=values["outputs"], deadline_s=values["deadline_s"],
            )
        )  # fmt: skip
        return found

    def _arrays(self) -> None:
        from tfopt_client import files

        self._write(self._predict(files.read_arrays(self._input, self._names())))

    def _names(self) -> Sequence[str]:
        """Whose input an .npy file is: the named one, else the signature's only one."""
        if self._values["input_name"] or self._input.suffix != ".npy" or not self._client.is_rpc:
            return [self._values["input_name"]] if self._values["input_name"] else []
        return list(self._client.signature(self._target).inputs)

    def _write(self, outputs: Mapping[str, Any]) -> None:
        from tfopt_client import files

        if self._output is not None and self._output.suffix in files.ARRAYS:
            files.write_arrays(self._output, outputs)
        else:
            self._put([files.as_json(outputs)])

    def _bodies(self) -> None:
        """JSON goes over REST as it is; for gRPC it becomes the tensors that the signature declares."""
        from tfopt_client import files

        if self._output is not None and self._output.suffix in files.ARRAYS:
            raise files.FileError(f"{self._output}: answers to JSON are written as .json or .jsonl")
        ask = self._ask_rpc() if self._client.is_rpc else self._ask_rest
        self._put(ask(body) for body in self._documents())

    def _ask_rest(self, body: bytes) -> bytes:
        deadline = self._values["deadline_s"]
        found: bytes = self._timed(lambda: self._client.predict_json(body, self._target, deadline))
        return b"".join(line.strip() for line in found.splitlines()) if self._lines() else found

    def _ask_rpc(self) -> Callable[[bytes], bytes]:
        import orjson
        from tfopt_client import files

        signature = self._client.signature(self._target)

        def ask(body: bytes) -> bytes:
            try:
                feeds = files.arrays(orjson.loads(body), signature)
            except (orjson.JSONDecodeError, files.FileError) as error:
                raise files.FileError(f"{self._input}: {error}") from error
            return files.as_json(self._predict(feeds))

        return ask

    def _lines(self) -> bool:
        return self._input.suffix == ".jsonl"

    def _documents(self) -> Iterator[bytes]:
        if not self._lines():
            yield self._input.read_bytes()
            return
        with self._input.open("rb") as file:
            for line in file:
                if line.strip():
                    yield line

    def _put(self, answers: Any) -> None:
        if self._output is None:
            for answer in answers:
                sys.stdout.buffer.write(answer + b"\n")
            sys.stdout.flush()
            return
        with self._output.open("wb") as file:
            for answer in answers:
                file.write(answer + b"\n")

"""What do the arguments say: absl's and tensorflow::Flags' spellings, quotes, $(VAR), into typed values by flag name.

    >>> parse(["--port=9000", "--enable_batching", "--saved_model_tags='serve,tpu'"], flags.ALL, {}).values
    {'port': 9000, 'enable_batching': True, 'saved_model_tags': ('serve', 'tpu')}

Spellings: `--name=value`, `--name value`, `-name`, `--bool`, `--nobool`, `--bool=false`, the last of several wins. An
unknown flag is kept apart with the nearest known name; what follows it is a positional. Nothing stops at the first
mistake: all errors come back together. Why not absl-py: docs/decisions/0003-flag-parser.md.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping, Sequence

from tfopt_server.flags import Flag, Value

_TRUE = ("true", "t", "1", "yes", "y", "on")
_FALSE = ("false", "f", "0", "no", "n", "off")
_WORDS = dict.fromkeys(_TRUE, True) | dict.fromkeys(_FALSE, False)
_KINDS = {"int": "a whole number", "float": "a number", "ints": "whole numbers with commas between", "strs": "names"}


@dataclasses.dataclass(frozen=True)
class Parsed:
    """`values` by canonical name, only for flags that were given. `unknown` and `errors` are texts for the operator."""

    values: Mapping[str, Value]
    positionals: tuple[str, ...]
    unknown: tuple[str, ...]
    unresolved: tuple[str, ...]
    errors: tuple[str, ...]


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replaces `$(VAR)` as Kubernetes and Vertex AI do: `$$` stands for `$`, an unset variable stays as it is written.

    Platforms do this before the container starts, so here it serves plain `docker run`; an escape that survived a
    platform's own expansion is expanded by ours.
    """

    def one(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return environ.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^()]*)\)", one, text)


def unquote(text: str) -> str:
    """Takes off one pair of quotes around the whole: container args arrive without a shell to do it."""
    text = text.strip()
    inner = text[1:-1]
    if len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in inner:
        return inner
    return text


def parse(argv: Sequence[str], table: Sequence[Flag], environ: Mapping[str, str]) -> Parsed:
    """Reads `argv` (without the program's name) by `table`."""
    known = {alias: flag for flag in table for alias in (flag.name, *flag.aliases)}
    values: dict[str, Value] = {}
    positionals: list[str] = []
    unknown: list[str] = []
    unresolved: list[str] = []
    errors: list[str] = []
    rest = [unquote(a) for a in argv]
    while rest:
        token = rest.pop(0)
        if token == "--":
            positionals += [expand(t, environ) for t in rest]
            break
        if not re.match(r"--?[A-Za-z_]", token):
            positionals += [expand(token, environ)] * bool(token)
            continue
        given, equals, text = token.lstrip("-").partition("=")
        flag, negated = _find(given, known)
        if flag is None:
            unknown.append(_unknown(token.partition("=")[0], given, known))
            continue
        try:
            raw = _raw(flag, given, negated, text if equals else None, rest)
            unresolved += [f"--{flag.name}: {v} is not set" for v in _missing(raw, environ)]
            values[flag.name] = convert(flag, expand(raw, environ))
        except ValueError as error:
            errors.append(str(error))
    return Parsed(values, tuple(positionals), tuple(unknown), tuple(unresolved), tuple(errors))


def convert(flag: Flag, text: str, named: str = "") -> Value:
    """`text` as the flag's type. ValueError names the flag (or the variable `named`), what was expected, what came."""
    where = named or f"--{flag.name}"
    expected = _expected(flag)
    try:
        value = _typed(flag, unquote(text))
    except ValueError as error:
        raise ValueError(f"{where}: expected {expected}, received {text!r}") from error
    parts = value if isinstance(value, tuple) else (value,)
    for number in parts:
        if isinstance(number, (int, float)) and not isinstance(number, bool) and not _within(flag, number):
            raise ValueError(f"{where}: expected {expected}, received {text!r}")
    if flag.choices and any(part not in flag.choices for part in parts):
        raise ValueError(f"{where}: expected {expected}, received {text!r}")
    return value


def _find(given: str, known: Mapping[str, Flag]) -> tuple[Flag | None, bool]:
    if given in known:
        return known[given], False
    base = known.get(given.removeprefix("no")) if given.startswith("no") else None
    return (base, True) if base is not None and base.kind == "bool" else (None, False)


def _unknown(token: str, given: str, known: Mapping[str, Flag]) -> str:
    near = difflib.get_close_matches(given, known, n=1)
    return f"unknown flag {token}" + (f"; did you mean --{near[0]}?" if near else "")


def _raw(flag: Flag, given: str, negated: bool, text: str | None, rest: list[str]) -> str:
    """The value as written. Takes it from `rest` for `--name value`."""
    if flag.kind == "bool":
        if text is not None and negated:
            raise ValueError(f"--{given}: expected no value after a negated flag, received {text!r}")
        if text is None and rest and rest[0].lower() in ("true", "false"):
            # TensorFlow Serving reads `--flag false` as true and goes on: the opposite of what was asked for.
            word = rest.pop(0)
            raise ValueError(f"--{given}: expected --{given}={word.lower()}, received {word!r} as a separate argument")
        return ("false" if negated else "true") if text is None else text
    if text is not None:
        return text
    if rest and not re.match(r"--?[A-Za-z_]", rest[0]):
        return rest.pop(0)
    raise ValueError(f"--{flag.name}: expected {_expected(flag)}, received nothing")


def _typed(flag: Flag, text: str) -> Value:
    if flag.kind == "bool":
        if text.lower() not in _WORDS:
            raise ValueError(text)
        return _WORDS[text.lower()]
    if flag.kind == "int":
        return int(text)
    if flag.kind == "float":
        return float(text)
    if flag.kind == "strs":
        return tuple(part for part in (unquote(p) for p in text.split(",")) if part)
    if flag.kind == "ints":
        return tuple(int(part) for part in text.replace(",", " ").split())
    return text


def _within(flag: Flag, number: float) -> bool:
    return math.isfinite(number) and (flag.within is None or flag.within[0] <= number <= flag.within[1])


def _expected(flag: Flag) -> str:
    if flag.choices:
        return ("some of " if flag.kind == "strs" else "one of ") + ", ".join(repr(c) for c in flag.choices)
    if flag.kind == "bool":
        return "true or false"
    if flag.kind == "str":
        return "a text"
    if flag.within is None:
        return _KINDS[flag.kind]
    low, high = (str(n) if isinstance(n, int) else f"{n:g}" for n in flag.within)
    return f"{_KINDS[flag.kind]} from {low} to {high}"


def _missing(raw: str, environ: Mapping[str, str]) -> list[str]:
    names = re.findall(r"\$\$|\$\(([^()]*)\)", raw)
    return [f"$({name})" for name in names if name and name not in environ]

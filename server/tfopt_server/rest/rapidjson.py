"""The exact JSON reader: what RapidJSON 1.1.0 accepts with TensorFlow Serving's flags, and its error texts.

Slow (Python, about 1 us a token) and only used for documents that the fast readers in `parse.py` refuse. Rules, from
RapidJSON's reader.h (IterativeParse, ParseNumber, ParseStringToStream) with the flags iterative, NaN-and-Inf,
stop-when-done, as util/json_tensor.cc uses it:

- The document may nest as deep as memory allows: a state machine with its own stack, no recursion.
- Text after the first complete value is ignored; a NUL byte between tokens ends the document; a BOM is skipped.
- NaN, Inf, Infinity, each with or without a minus. Whole numbers outside the 64 bits are doubles.
- Strings are not checked to be UTF-8: such bytes come out as surrogate escapes, so that encoding with
  "surrogateescape" gives the client's bytes back.
- A key given twice keeps its first value (FindMember finds that one).
"""

from __future__ import annotations

import re
from typing import Any

BOM = b"\xef\xbb\xbf"

_SPACE = re.compile(rb"[ \n\r\t]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]*)?([eE][+-]?[0-9]*)?")
_HEX4 = re.compile(rb"[0-9a-fA-F]{4}")
_ESCAPES = {
    ord('"'): b'"', ord("/"): b"/", ord("\\"): b"\\", ord("b"): b"\b",
    ord("f"): b"\f", ord("n"): b"\n", ord("r"): b"\r", ord("t"): b"\t",
}  # fmt: skip
_WORDS = {ord("t"): (b"true", True), ord("f"): (b"false", False), ord("n"): (b"null", None)}
_INT_DIGITS = 20  # of 2**64 - 1; longer whole numbers are doubles

EMPTY = "The document is empty."
INVALID = "Invalid value."
MISS_NAME = "Missing a name for object member."
MISS_COLON = "Missing a colon after a name of object member."
MISS_CURLY = "Missing a comma or } after an object member."
MISS_SQUARE = "Missing a comma or ] after an array element."
BAD_HEX = "Incorrect hex digit after \\u escape in string."
BAD_SURROGATE = "The surrogate pair in string is invalid."
BAD_ESCAPE = "Invalid escape character in string."
MISS_QUOTE = "Missing a closing quotation mark in string."
TOO_BIG = "Number too big to be stored in double."
MISS_FRACTION = "Miss fraction part in number."
MISS_EXPONENT = "Miss exponent in number."


class ParseError(ValueError):
    """A document that is not JSON; `text` is RapidJSON's, `offset` counts bytes from the start of the body."""

    def __init__(self, text: str, offset: int) -> None:
        super().__init__(f"{text} at offset: {offset}")
        self.text = text
        self.offset = offset


def loads(body: bytes) -> Any:
    """The first JSON value in `body`. ParseError with RapidJSON's text and offset when there is none."""
    data = body + b"\0"  # the stream's end reads as NUL
    position = len(BOM) if body.startswith(BOM) else 0
    return _Reader(data, position).document()


class _Reader:
    """One pass over the bytes; `at` is the next unread one."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data = data
        self.at = at

    def document(self) -> Any:
        self._space()
        opened, value = self._value(EMPTY)
        if not opened:
            return value
        self._fill(value)
        return value

    def _fill(self, root: list[Any] | dict[str, Any]) -> None:
        """Reads until `root` is closed. The stack holds the open containers, innermost last."""
        stack: list[list[Any] | dict[str, Any]] = [root]
        first = True
        while stack:
            inner = stack[-1]
            self._space()
            if self._closed(inner, first):
                stack.pop()
                first = False
                continue
            key = self._next(inner, first)
            opened, value = self._value(INVALID)
            if isinstance(inner, dict):
                inner.setdefault(key, value)
            else:
                inner.append(value)
            if opened:
                stack.append(value)
            first = opened

    def _closed(self, inner: list[Any] | dict[str, Any], first: bool) -> bool:
        """Whether the container ends here; after a member there must be its end or a comma."""
        char = self.data[self.at]
        if char == (0x7D if isinstance(inner, dict) else 0x5D):
            self.at += 1
            return True
        if not first:
            if char != 0x2C:
                raise ParseError(MISS_CURLY if isinstance(inner, dict) else MISS_SQUARE, self.at)
            self.at += 1
            self._space()
        return False

    def _next(self, inner: list[Any] | dict[str, Any], first: bool) -> str:
        """Reads the name and colon of an object's member; nothing for a list."""
        if not isinstance(inner, dict):
            return ""
        if self.data[self.at] != 0x22:
            raise ParseError(MISS_NAME, self.at)
        key = self._string()
        self._space()
        if self.data[self.at] != 0x3A:
            raise ParseError(MISS_COLON, self.at)
        self.at += 1
        self._space()
        return key

    def _value(self, missing: str) -> tuple[bool, Any]:
        """One value, and whether it is a container, opened but not read. `missing`: the text when none starts here."""
        char = self.data[self.at]
        if char == 0x22:
            return False, self._string()
        if char in (0x5B, 0x7B):
            self.at += 1
            return True, ([] if char == 0x5B else {})
        if char in (0x5D, 0x7D, 0x2C, 0x3A, 0):
            raise ParseError(missing, self.at)
        if char in _WORDS:
            word, value = _WORDS[char]
            self._expect(word)
            return False, value
        return False, self._number()

    def _space(self) -> None:
        self.at = _SPACE.match(self.data, self.at).end()  # type: ignore[union-attr]  # matches the empty string

    def _expect(self, word: bytes) -> None:
        """Consumes `word`; the error stands at the first byte that differs."""
        for char in word:
            if self.data[self.at] != char:
                raise ParseError(INVALID, self.at)
            self.at += 1

    def _number(self) -> int | float:
        start = self.at
        found = _NUMBER.match(self.data, start)
        if found is None:
            return self._not_finite()
        fraction, exponent = found.groups()
        if fraction == b".":
            raise ParseError(MISS_FRACTION, found.end(1))
        if exponent is not None and not exponent[-1:].isdigit():
            raise ParseError(MISS_EXPONENT, found.end())
        self.at = found.end()
        text = found[0]
        if fraction is None and exponent is None and len(text) <= _INT_DIGITS:
            value = int(text)
            if -(2**63) <= value < 2**64:
                return value
        number = float(text)
        if number in (float("inf"), float("-inf")):
            raise ParseError(TOO_BIG, start)
        return number

    def _not_finite(self) -> float:
        minus = self.data[self.at] == 0x2D
        self.at += minus
        if self.data[self.at] == ord("N"):
            self._expect(b"NaN")
            return float("nan")
        self._expect(b"Inf")
        if self.data[self.at] == ord("i"):
            self._expect(b"inity")
        return float("-inf") if minus else float("inf")

    def _string(self) -> str:
        self.at += 1
        parts: list[bytes] = []
        while True:
            plain = _PLAIN.match(self.data, self.at)
            assert plain is not None  # matches the empty string
            parts.append(plain[0])
            self.at = plain.end()
            char = self.data[self.at]
            if char == 0x22:
                self.at += 1
                return b"".join(parts).decode("utf-8", "surrogateescape")
            if char != 0x5C:
                raise ParseError(MISS_QUOTE if char == 0 else BAD_ESCAPE, self.at)
            parts.append(self._escape())

    def _escape(self) -> bytes:
        start = self.at
        char = self.data[start + 1]
        self.at += 2
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char != ord("u"):
            raise ParseError(BAD_ESCAPE, start)
        code = self._hex(start)
        if 0xD800 <= code <= 0xDBFF:
            if self.data[self.at : self.at + 2] != b"\\u":
                raise ParseError(BAD_SURROGATE, start)
            self.at += 2
            low = self._hex(start)
            if not 0xDC00 <= low <= 0xDFFF:
                raise ParseError(BAD_SURROGATE, start)
            code = 0x10000 + ((code - 0xD800) << 10 | (low - 0xDC00))
        return chr(code).encode("utf-8", "surrogatepass")

    def _hex(self, start: int) -> int:
        digits = _HEX4.match(self.data, self.at)
        if digits is None:
            raise ParseError(BAD_HEX, start)
        self.at = digits.end()
        return int(digits[0], 16)

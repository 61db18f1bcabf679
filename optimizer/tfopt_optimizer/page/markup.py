"""HTML and SVG as nested calls: whatever is not Markup already is escaped, so names from a model can hold anything.

    >>> tag("p", "rows < 8 ", tag("b", "why"), class_="note")
    '<p class="note">rows &lt; 8 <b>why</b></p>'

The output is well-formed XML too, which is what the tests parse.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"meta", "link", "br", "hr", "img", "input", "col", "wbr"})
_LONGEST = 120  # characters of a name
# Neither HTML nor XML may hold these, not even escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """One element. Children: Markup, text, None (nothing) and iterables of these. Attributes: `class_`, `stroke_width`
    and so on; None leaves one out."""
    start = name + "".join(f' {_attribute(k)}="{escape(v)}"' for k, v in attributes.items() if v is not None)
    if name in _VOID:
        return Markup(f"<{start} />")
    return Markup(f"<{start}>{join(children)}</{name}>")


def join(children: Iterable[object]) -> Markup:
    return Markup("".join(_child(child) for child in children))


def escape(value: object) -> str:
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", str(value)), quote=True)


def name(text: str) -> Markup:
    """A name out of a model: set as code, and isolated, because it may be written from right to left.

    Of a very long one the ends are shown, and all of it where the pointer rests.
    """
    if len(text) <= _LONGEST:
        return tag("bdi", text, class_="name")
    return tag("bdi", f"{text[: _LONGEST - 31]}…{text[-30:]}", class_="name", title=text)


def _child(child: object) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    if isinstance(child, Iterable):
        return join(child)
    return escape(child)


def _attribute(key: str) -> str:
    return key.rstrip("_").replace("_", "-") if key != "viewBox" else key

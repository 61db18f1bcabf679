"""Reads a page of the report as a browser would, after what must hold for every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

from tfopt_optimizer.page.page import POLICY

VOID = {"meta", "br", "hr"}


class Page(HTMLParser):
    """The stack of open elements, the text, every attribute."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, key, value or "") for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "title"):
            self.text += data + " "


def read(text: str) -> Page:
    """The page, after what must hold for every page."""
    ElementTree.fromstring(text.partition("\n")[2])  # well-formed, to the letter
    assert text.startswith("<!DOCTYPE html>\n")
    found = Page(text)
    assert found.open == []
    assert {"script", "link", "img", "iframe", "object", "embed", "base", "form"}.isdisjoint(found.tags)
    links = [value for _, key, value in found.attributes if key == "href"]
    places = [value for _, key, value in found.attributes if key == "id"]
    assert len(places) == len(set(places))
    assert all(link[0] == "#" and link[1:] in places for link in links)  # within the page
    assert {"src", "action", "srcset", "data", "poster", "xlink:href"}.isdisjoint({k for _, k, _ in found.attributes})
    assert not any(key.startswith("on") for _, key, _ in found.attributes)
    assert re.findall(r"url\(|@import|https?://|//\w", text) == []
    assert ("meta", "content", POLICY) in found.attributes
    return found

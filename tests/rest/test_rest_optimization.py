"""GET /optimization: what a plan looks like to clients, and what is not sent twice."""

from __future__ import annotations

import dataclasses
import json

import faceplane
import madeplans
import pytest
import restclient
from tfopt_server.rest.app import App


class Face:
    """An app over the fake plane, and a short way to call it."""

    def __init__(self) -> None:
        self.plane = faceplane.plane()
        self.app = App(self.plane, faceplane.configured(), self.plane.metrics)

    def __call__(self, method: str, target: str = "/optimization", **headers: str) -> restclient.Answer:
        return restclient.call(self.app, method, target, b"", {k.replace("_", "-"): v for k, v in headers.items()})


@pytest.fixture
def face() -> Face:
    return Face()


FORMS = ("application/json", "text/plain", "text/html")


@pytest.mark.parametrize("form", FORMS)
def test_what_a_client_has_is_not_sent_again(face: Face, form: str) -> None:
    first = face("GET", accept=form)
    tag = first.headers["etag"]
    assert (first.headers["cache-control"], first.headers["vary"]) == ("no-cache", "Accept")
    for known in (tag, f'"other", W/{tag}', "*"):
        again = face("GET", accept=form, if_none_match=known)
        assert (again.status, again.body, again.headers.get("content-type")) == (304, b"", None)
        assert (again.headers["etag"], again.headers["vary"]) == (tag, "Accept")
    assert face("GET", accept=form, if_none_match='"other"').body == first.body
    face.plane.all_plans["new", 7] = None
    changed = face("GET", accept=form, if_none_match=tag)
    assert (changed.status, b"new" in changed.body) == (200, True)


def test_each_form_has_a_tag_of_its_own(face: Face) -> None:
    assert len({face("GET", accept=form).headers["etag"] for form in FORMS}) == 3


@pytest.mark.parametrize("target", ["/optimization", "/docs", "/openapi.json", "/monitoring/prometheus/metrics"])
def test_pages_answer_head_as_get(face: Face, target: str) -> None:
    head, get = face("HEAD", target), face("GET", target)
    assert (head.status, head.headers) == (200, get.headers)
    refused = face("DELETE", target)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")


def test_names_in_the_log_cannot_steer_a_terminal(face: Face) -> None:
    face.plane.all_plans["m", 1] = madeplans.plan(log=(f"{madeplans.EVIL} lost",))
    text = face("GET", accept="text/plain").body.decode()
    assert all(line.isprintable() for line in text.splitlines())
    assert r"\x1b[2J" in text


def test_a_plan_as_json_is_whole_and_has_null_for_errors_that_are_no_numbers(face: Face) -> None:
    def no_word(name: str) -> None:
        raise AssertionError(f"JSON has no {name}")

    broken = madeplans.candidate("litert", "t1", "rejected", None, float("inf"))
    made = face.plane.all_plans["m", 1] = madeplans.plan(madeplans.bucket(1, broken))
    shown = json.loads(face("GET").body, parse_constant=no_word)["models"][0]["plan"]
    assert shown.keys() == {f.name for f in dataclasses.fields(made)}
    (candidate,) = shown["signatures"][0]["buckets"][0]["candidates"]
    assert candidate["agreement"]["max_rel_error"] is None
    assert candidate.keys() == {f.name for f in dataclasses.fields(broken)}

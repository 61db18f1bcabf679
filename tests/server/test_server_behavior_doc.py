"""docs/server-behavior.md names a test for each claim: they must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_test_that_the_document_names_exists():
    text = (ROOT / "docs" / "server-behavior.md").read_text()
    code = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"::(test_\w+)", text))
    files = set(re.findall(r"`(\w+/test_\w+\.py)", text))
    assert len(named) > 30
    assert {name for name in named if f"def {name}(" not in code} == set()
    assert {name for name in files if not (ROOT / "tests" / name).is_file()} == set()
    placed = set(re.findall(r"`(\w+/test_\w+\.py)::(?:\w+::)*(test_\w+)", text))
    elsewhere = {(file, name) for file, name in placed if f"def {name}(" not in (ROOT / "tests" / file).read_text()}
    assert elsewhere == set()

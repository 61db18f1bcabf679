"""Why a model was not converted: one exception, whose text is for the person who ran the converter."""

from __future__ import annotations

from collections.abc import Iterable


class ConversionError(Exception):
    """All the reasons at once; `str()` has one a line. Nothing was written."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

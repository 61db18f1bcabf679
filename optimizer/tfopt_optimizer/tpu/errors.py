"""Why a model was not converted: exceptions whose text is for the person who ran the converter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


class ConversionError(Exception):
    """All the reasons at once; `str()` has one a line. Nothing was written."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))


class CompilerError(ConversionError):
    """A compiler does not take placed functions. `words`: by function, or by signature, what it says itself."""

    def __init__(self, problems: Iterable[str], words: Mapping[str, str]) -> None:
        super().__init__(problems)
        self.words = words


class Refused(ConversionError):
    """Operations that no compiler takes, in functions that the converter chose itself, so that it can choose again.
    `operations`: by signature, node -> why."""

    def __init__(self, problems: Iterable[str], operations: Mapping[str, Mapping[str, str]]) -> None:
        super().__init__(problems)
        self.operations = operations

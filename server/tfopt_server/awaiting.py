"""A plan that could not be made here and may come from elsewhere: another server that shares --plan_cache_dir, or
`tfopt optimize`.

A version whose optimizer was killed serves on plain TensorFlow; when a plan of its name appears it is taken over as one
that was made in the background is.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

_PLAN = "plan.json"


@dataclass(frozen=True)
class Awaited:
    """`folder`: where the plan would lie. `seen`: what lay there when it was last tried, "" for nothing: one that is
    damaged is not tried again and again."""

    folder: Path
    seen: str = ""

    def now(self) -> Awaited:
        """From now on only another plan than the one that is there counts."""
        return replace(self, seen=_content(self.folder))

    def there(self) -> bool:
        return _content(self.folder) not in ("", self.seen)

    def missing(self) -> bool:
        """Whether nothing lies there, so that it is worth asking a bucket for it."""
        return not _content(self.folder)


def _content(folder: Path) -> str:
    """Not when it was written: a bucket's plan is copied anew each time."""
    try:
        return hashlib.sha256((folder / _PLAN).read_bytes()).hexdigest()
    except OSError:
        return ""

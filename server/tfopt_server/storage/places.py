"""Where versions are, seen by the loader: folders of this machine, or buckets with their copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tfopt_server import repository
from tfopt_server.repository import Listing
from tfopt_server.storage.mirror import Mirror
from tfopt_server.uris import Uri


class Places:
    """`cache`: the folder for copies; `poll_s`: seconds between two looks at a bucket."""

    def __init__(self, cache: Path, poll_s: float = 30.0) -> None:
        self._cache, self._poll_s = cache, poll_s
        self._mirrors: dict[Uri, Mirror] = {}

    def look(self, base: Path | Uri) -> Listing:
        """Never raises for what it finds there: `problem` tells."""
        return repository.look(base) if isinstance(base, Path) else self._mirror(base).look()

    def fetch(self, folder: Path, say: Callable[[str], None]) -> None:
        """Brings a version's files into its folder, where they are not there already. StorageError."""
        if (mirror := self._of(folder)) is not None:
            mirror.fetch(folder, say)

    def stamp(self, folder: Path) -> object:
        """Differs when somebody changed the version."""
        mirror = self._of(folder)
        return repository.stamp(folder) if mirror is None else mirror.stamp(folder)

    def release(self, folder: Path) -> None:
        """The version is not served any more."""
        if (mirror := self._of(folder)) is not None:
            mirror.release(folder)

    def _mirror(self, uri: Uri) -> Mirror:
        if uri not in self._mirrors:
            self._mirrors[uri] = Mirror(uri, self._cache, self._poll_s)
        return self._mirrors[uri]

    def _of(self, folder: Path) -> Mirror | None:
        return next((each for each in self._mirrors.values() if each.folder == folder.parent), None)

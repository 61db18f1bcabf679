"""The plans that lie in a model, read without bringing the model: what a pipeline is built by."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from tfopt_optimizer import carried
from tfopt_optimizer import plan as plans
from tfopt_optimizer.plan import Plan

from tfopt_server import uris
from tfopt_server.storage.store import StorageError, Store

log = logging.getLogger(__name__)

_PATTERNS = tuple(f"{version}{carried.FOLDER.as_posix()}/*/{plans.FILE_NAME}" for version in ("", "*/"))


def read(model: str) -> Iterator[Plan]:
    """Those of every version at `model`, a folder or a bucket's. What cannot be read is passed over, and logged."""
    try:
        for where, document in _bucket(model) if uris.is_uri(model) else _folder(Path(model)):
            try:
                yield plans.parsed(json.loads(document), where)
            except ValueError as error:
                log.warning("passed over: %s", error)
    except (StorageError, OSError, ValueError) as error:
        log.warning("the plans of %s cannot be read here: %s", model, error)


def _folder(model: Path) -> Iterator[tuple[str, bytes]]:
    for pattern in _PATTERNS:
        for path in sorted(model.glob(pattern)):
            yield str(path), path.read_bytes()


def _bucket(model: str) -> Iterator[tuple[str, bytes]]:
    store = Store(uris.parse(model))
    for found in store.tree():
        # From the right: "assets.extra/tfopt/*/plan.json" fits in a version's folder too.
        if PurePosixPath(found.path).match(_PATTERNS[0]):
            yield f"{model}/{found.path}", b"".join(store.read(found, 0, found.size))

"""Which SavedModel a command means: of a folder or a bucket, of several versions the newest."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tfopt_server import flags, settings, uris
from tfopt_server.repository import Listing
from tfopt_server.storage.places import Places
from tfopt_server.storage.store import StorageError
from tfopt_server.uris import Uri

CACHE = flags.Flag("model_cache_dir", "str", "", "where a copy of a model in a bucket is kept")


def named(model: str, values: Mapping[str, object], environ: Mapping[str, str]) -> Path:
    """The folder of MODEL as a command line names it; `values` may have --model_cache_dir. OSError."""
    cache = Path(str(values.get(CACHE.name) or settings.cache_folder(environ) / "models"))
    try:
        base = uris.parse(model) if uris.is_uri(model) else Path(model)
    except ValueError as error:
        raise OSError(str(error)) from error
    return newest(base, cache, lambda line: print(line, file=sys.stderr))


def newest(base: Path | Uri, cache: Path, say: Callable[[str], None]) -> Path:
    """The newest SavedModel at the base path, a bucket's as a copy below `cache`. OSError says what is there."""
    places = Places(cache)
    folder = _newest(places.look(base), base)
    try:
        places.fetch(folder, say)
    except StorageError as error:
        raise OSError(error.message) from error
    return folder


def _newest(listing: Listing, base: Path | Uri) -> Path:
    if listing.versions:
        return listing.versions[max(listing.versions)]
    lacking = "; ".join(f"version {number} lacks {what}" for number, what in sorted(listing.incomplete.items()))
    raise FileNotFoundError(listing.problem or lacking or f"there is no SavedModel at {base}")

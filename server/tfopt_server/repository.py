"""What lies at a model's base path: one bare SavedModel, or numbered version folders, complete or still arriving.

`look` and `stamp` are for folders of this machine; the rest is for buckets too (storage/mirror.py). Numbers are read as
absl::SimpleAtoi reads them, which is what TensorFlow Serving does: `00000123` is version 123, `1.5` and `latest` are no
versions. Where two names are the same number, the last name in sorted order counts
(storage_path/file_system_storage_path_source.cc).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# absl strips white space at both ends and takes a sign; there is no negative version (FileSystemStoragePathSource).
_NUMBER = re.compile(r"[ \t\n\v\f\r]*\+?([0-9]+)[ \t\n\v\f\r]*", re.ASCII)
_INT64_MAX = 2**63 - 1
BARE_VERSION = 1
MODEL_FILES = ("saved_model.pb", "saved_model.pbtxt")
# A TensorFlow 1 session bundle: taken, so that its load fails with TensorFlow Serving's own text instead of waiting.
_OLD_FORMAT = "export.meta"
_SHARD = re.compile(r"variables/variables\.data-([0-9]{5})-of-([0-9]{5})")


@dataclass(frozen=True)
class Listing:
    """What was found. `problem` says why nothing can be read at all; `versions` is then empty and means nothing.

    `versions` maps each complete version to its folder, `incomplete` each unfinished one to what it lacks, `ignored`
    holds names that lost against another name of the same number.
    """

    versions: dict[int, Path]
    incomplete: dict[int, str]
    ignored: tuple[str, ...] = ()
    problem: str = ""


def version_number(name: str) -> int | None:
    """The version a folder name stands for, or None when it stands for none."""
    match = _NUMBER.fullmatch(name)
    number = int(match[1]) if match else -1
    return number if 0 <= number <= _INT64_MAX else None


def look(base: Path) -> Listing:
    """Reads the directory once. Never raises for what it finds there: `problem` tells."""
    try:
        if any((base / name).is_file() for name in MODEL_FILES):
            lacks = what_is_missing(base)
            return Listing({} if lacks else {BARE_VERSION: base}, {BARE_VERSION: lacks} if lacks else {})
        return _versions(base, sorted(child.name for child in base.iterdir() if child.is_dir()))
    except FileNotFoundError:
        return Listing({}, {}, problem=f"there is nothing at {base}")
    except OSError as error:
        return Listing({}, {}, problem=f"cannot read {base}: {error}")


def _versions(base: Path, names: list[str]) -> Listing:
    folders, ignored = numbered(names)
    lacking = {number: what_is_missing(base / name) for number, name in folders.items()}
    return Listing(
        {number: base / name for number, name in folders.items() if not lacking[number]},
        {number: lacks for number, lacks in lacking.items() if lacks},
        ignored,
    )


def numbered(names: Sequence[str]) -> tuple[dict[int, str], tuple[str, ...]]:
    """The folder of each version, and those that lost against a later name of the same number. `names`: sorted."""
    folders: dict[int, str] = {}
    ignored = []
    for name in names:
        number = version_number(name)
        if number is None:
            continue
        if number in folders:
            ignored.append(folders[number])
        folders[number] = name
    return folders, tuple(ignored)


def what_is_missing(folder: Path) -> str:
    """What a SavedModel folder still lacks, "" when it is complete."""
    names = [name for name in (_OLD_FORMAT, *MODEL_FILES) if (folder / name).is_file()]
    if names and names != [_OLD_FORMAT]:
        names += [f"variables/{child.name}" for child in (folder / "variables").glob("variables.*")]
    return lacking(names)


def lacking(names: Sequence[str]) -> str:
    """What a SavedModel still lacks that has files of these names, "" when it is complete.

    saved_model.pb is written last by TensorFlow, but a copy may bring it first; so the variables must be whole too:
    with a shard there must be the index and every other shard that its name announces.
    """
    if _OLD_FORMAT in names:
        return ""
    if not any(name in names for name in MODEL_FILES):
        return "saved_model.pb"
    shards = [m for name in names if (m := _SHARD.fullmatch(name))]
    index = "variables/variables.index" in names
    if not shards:
        return "variables/variables.data-*" if index else ""
    if not index:
        return "variables/variables.index"
    have, total = len(shards), max(int(m[2]) for m in shards)
    return "" if have >= total else f"{total - have} of {total} variable files"


def stamp(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and change times of everything in a version folder: differs when somebody changed the model."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except OSError:  # it went away between the two looks, or nobody may look: either way nothing to compare
            continue
        if not path.is_dir():
            found.append((str(path.relative_to(folder)), status.st_size, status.st_mtime_ns))
    return tuple(found)

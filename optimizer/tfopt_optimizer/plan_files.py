"""The files of a plan's folder: what they were when it was made, and whether they still are."""

from __future__ import annotations

from pathlib import Path

from tfopt_optimizer.plan import FILE_NAME, LOCK, UNFINISHED, Plan, PlanError


def checksums(directory: Path) -> dict[str, str]:
    """Size and CRC-32C of every artifact in the directory, plan.json aside: {"s0/b1/module.json": "120:9f2c11aa"}."""
    import google_crc32c

    found = {}
    for path in sorted(p for p in directory.rglob("*") if p.is_file()):
        name = path.relative_to(directory).as_posix()
        if name in (FILE_NAME, UNFINISHED, LOCK):
            continue
        crc, size = 0, 0
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                crc, size = google_crc32c.extend(crc, block), size + len(block)
        found[name] = f"{size}:{crc:08x}"
    return found


def verify(plan: Plan, directory: Path) -> None:
    """PlanError names the first artifact that is missing or is not what the plan was written with."""
    try:
        there = checksums(directory)
    except FileNotFoundError as error:  # another process puts a plan in its place
        raise PlanError(f"{error.filename}: gone while it was looked at") from error
    for name, expected in plan.files.items():
        found = there.get(name)
        if found is None:
            raise PlanError(f"{directory / name}: missing")
        if found != expected:
            raise PlanError(f"{directory / name}: damaged: size and checksum are {found}, expected {expected}")

"""Which packages of the locks have wheels for arm64: `make lock/arm64` asks the package index and writes arm64.txt.

A line per requirement of any lock: `numpy==2.5.5 wheel` or `tensorflow-cpu==2.21.0 none`. Only those that the file does
not know yet are asked for. tests/images/test_arm64.py reads it, without a network, and says what could be built there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ANSWERS = HERE / "arm64.txt"
PYTHON = "3.13"
PLATFORM = "aarch64-manylinux_2_40"  # Debian 13 has a newer C library
WHEEL, NONE = "wheel", "none"
# The same package under the name that it has there.
INSTEAD = {"tensorflow-cpu": "tensorflow"}


def requirements(lock: Path) -> tuple[str, ...]:
    """`name==version` of every line of a lock."""
    return tuple(re.findall(r"^([a-z0-9-]+==\S+)", lock.read_text(), re.MULTILINE))


def locks() -> Mapping[str, tuple[str, ...]]:
    """ "cpu/litert" -> its requirements."""
    found = sorted(HERE.glob("*/*.txt"))
    return {path.relative_to(HERE).with_suffix("").as_posix(): requirements(path) for path in found}


def answers() -> dict[str, str]:
    """What arm64.txt says."""
    lines = [line for line in ANSWERS.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split() for line in lines)


def instead(requirement: str) -> str:
    """What takes the place of a requirement on arm64, "" when nothing does."""
    name, _, version = requirement.partition("==")
    return f"{INSTEAD[name]}=={version}" if name in INSTEAD else ""


def ask(requirement: str) -> str:
    """Whether the index has a wheel of exactly this version that arm64 can use."""
    command = [
        *("uv", "pip", "compile", "-", "--quiet", "--no-deps", "--no-header", "--only-binary", ":all:"),
        *("--python-version", PYTHON, "--python-platform", PLATFORM),
    ]
    program = Path(sys.executable).parent / command[0]
    done = subprocess.run([program, *command[1:]], input=requirement, capture_output=True, text=True, check=False)
    if done.returncode and "no wheels" not in done.stderr:
        raise SystemExit(f"{requirement}: {done.stderr}")
    return NONE if done.returncode else WHEEL


def main() -> None:
    wanted = {requirement for lock in locks().values() for requirement in lock}
    wanted |= {other for requirement in wanted if (other := instead(requirement))}
    known = answers() if ANSWERS.exists() else {}
    new = sorted(wanted - set(known))
    with ThreadPoolExecutor(16) as pool:
        known |= zip(new, pool.map(ask, new), strict=True)
    lines = [f"{requirement} {known[requirement]}\n" for requirement in sorted(wanted)]
    ANSWERS.write_text(f"# Wheels for Python {PYTHON} on {PLATFORM}; written by images/arm64.py.\n" + "".join(lines))


if __name__ == "__main__":
    main()

"""Takes out of a virtual environment what a server never reads, strips its libraries, and compiles its modules.

    python3 images/slim.py /opt/tfopt

Run in the build stage of an image, never on a machine's own environment. tests/images optimizes and serves the demo
models on what is left; the sizes are those of tensorflow-cpu 2.21. Modules are compiled here because the
image is read-only and could not keep what it compiles.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

# Folders and files, by pattern below site-packages.
REMOVED = (
    "tensorflow/include",  # 230 MB of C++ headers
    "tensorflow/**/*.a",
    "jaxlib/**/*.a",
    "**/*.pyi",
    "**/tests",  # of numpy, h5py, tensorflow, openvino
    "clang",  # libclang, which only TensorFlow's own build tools load: 61 MB
    "libclang-*.dist-info/sboms",
    "numpy/_core/include",
    "openvino/include",
    "openvino/cmake",
    # Intel's GPUs and NPUs, and readers of formats that no plan is kept in: 75 MB.
    "openvino/libs/libopenvino_intel_[gn]pu_plugin.so",
    "openvino/libs/cache.json",
    "openvino/libs/libopenvino_paddle_frontend.so*",
    "openvino/libs/libopenvino_pytorch_frontend.so*",
    "openvino/libs/libopenvino_gguf_frontend.so*",
    "openvino/libs/libopenvino_jax_frontend.so*",
    "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
    "uvloop/*.pyx",
)
# Where the test folder is part of the package, not a test of it.
KEPT = ("tensorflow/python/ops/numpy_ops/tests", "jax/_src/test_util", "numpy/_core/tests/_natype.py")
# Debug symbols of these only; patched libraries (numpy.libs, scipy.libs) no longer load once stripped.
STRIPPED = (
    "tensorflow/**/*.so*",
    "grpc/**/*.so",
    "ml_dtypes/**/*.so",
    "jaxlib/**/*.so",
    "ai_edge_litert/**/*.so*",
    "uvloop/*.so",
)


def main(environment: Path) -> int:
    (site,) = environment.glob("lib/python3*/site-packages")
    before = size(site)
    remove(site)
    strip(site)
    # Unchanged files, so no need to look at their times: valid in any layer and on a read-only root.
    compileall.compile_dir(site, quiet=2, workers=0, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    print(f"{site}: {before >> 20} MB before, {size(site) >> 20} MB with compiled modules")
    return 0


def remove(site: Path) -> None:
    for pattern in REMOVED:
        for path in sorted(site.glob(pattern)):
            if path.relative_to(site).as_posix() in KEPT or not path.exists():
                continue
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def strip(site: Path) -> None:
    libraries = [p for p in _matches(site, STRIPPED) if p.is_file() and not p.is_symlink()]
    if libraries:
        subprocess.run(["strip", "--strip-unneeded", *map(str, libraries)], check=True)


def _matches(site: Path, patterns: Iterable[str]) -> list[Path]:
    return sorted({p for pattern in patterns for p in site.glob(pattern)})


def size(folder: Path) -> int:
    """Bytes of all files below `folder`, links not followed."""
    return sum(p.lstat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

"""Quantizes a model before anything else is done to it, with TensorFlow's own quantizer.

Static range, dynamic range, or weights alone, in 8 bits: `external_feature_configs { quantization_options }` goes to
tf.quantization.experimental.quantize_saved_model as it is. What comes out has its functions and their aliases, but no
objects any more: weights are constants, and Python attributes are gone.
"""

from __future__ import annotations

import dataclasses
import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu.errors import ConversionError

CHILD = "tfopt_optimizer.tpu.quantize_child"
_EXTRA = "assets.extra"
# It finds out at the end that it has none: static range of GatherV2 with op_set XLA, of MatMul with UNIFORM_QUANTIZED.
_MISSING = re.compile(r'\("(\w+)"\) at .*Failed to find the quantized function')


@dataclasses.dataclass(frozen=True)
class Quantized:
    """`calibrated_on`: where the values came from that ranges were read off, "" where none are needed. Bytes are those
    of the whole folder. `left`: kinds of operations that the quantizer cannot do with this method."""

    method: str
    signatures: tuple[str, ...]
    calibrated_on: str
    bytes_before: int
    bytes_after: int
    left: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Calls by signature that ranges may be read off, and where they come from."""

    samples: Mapping[str, Sequence[Any]]
    source: str


def quantize(source: Path, to: Path, options: bytes, calibration: Calibration, keys: Sequence[str]) -> Quantized:
    """Writes the SavedModel `to`. `options`: a serialized QuantizationOptions; `keys`: the model's signatures, all of
    which are kept unless signature_keys names some. ConversionError has TensorFlow's reason."""
    from tensorflow.compiler.mlir.quantization.tensorflow import quantization_options_pb2 as proto

    given = proto.QuantizationOptions.FromString(options)
    if not given.signature_keys:
        given.signature_keys.extend(keys)
    if missing := sorted(set(given.signature_keys) - set(keys)):
        raise ConversionError(
            f"quantization_options.signature_keys: the model has no signature {', '.join(map(repr, missing))}; "
            f"it has: {', '.join(keys)}"
        )
    method = given.quantization_method
    static = method.preset_method in (method.METHOD_UNSPECIFIED, method.METHOD_STATIC_RANGE_INT8)
    data, calibrated = _representative(given, calibration) if static else (None, "")
    left = _in_child(source, to, given, data)
    if (source / _EXTRA).is_dir():
        shutil.copytree(source / _EXTRA, to / _EXTRA, dirs_exist_ok=True)
    name = method.PresetMethod.Name(method.preset_method or method.METHOD_STATIC_RANGE_INT8)
    return Quantized(name, tuple(given.signature_keys), calibrated, _bytes(source), _bytes(to), left)


def _representative(given: Any, calibration: Calibration) -> tuple[dict[str, list[Any]] | None, str]:
    """None where the options name TFRecord files, as TfRecordRepresentativeDatasetSaver writes them."""
    if given.representative_datasets:
        files = [one.tfrecord_file_path for one in given.representative_datasets.values()]
        if missing := [f for f in files if not Path(f).is_file()]:
            raise ConversionError(f"quantization_options.representative_datasets: there is no file {missing[0]}")
        return None, ", ".join(files)
    empty = [key for key in given.signature_keys if not calibration.samples.get(key)]
    if empty:
        raise ConversionError(
            f"quantization_options: static range needs samples of signature {empty[0]!r}: give "
            "representative_datasets, or add warmup records, or name other signature_keys"
        )
    return {
        key: [dict(feeds) for feeds in calibration.samples[key]] for key in given.signature_keys
    }, calibration.source


def _in_child(source: Path, to: Path, given: Any, samples: dict[str, list[Any]] | None) -> tuple[str, ...]:
    """In a process of its own, which its passes end over some models. Kinds of operations that it has no function for
    are left as they are, and returned."""
    left: list[str] = []
    while True:
        job = pickle.dumps((str(source), str(to), given.SerializeToString(), samples))
        command = [sys.executable, "-m", CHILD]
        done = subprocess.run(command, input=job, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        if not done.returncode:
            return tuple(left)
        reason = _reason(done.returncode, done.stderr.decode(errors="replace"))
        missing = _MISSING.search(reason)
        if missing is None or missing[1] in left:
            raise ConversionError(f"quantization_options: {reason}")
        left.append(missing[1])
        spec = given.unit_wise_quantization_specs.add()
        spec.unit.add(op_type=missing[1])
        spec.quantization_method.preset_method = spec.quantization_method.METHOD_NO_QUANTIZE


def _reason(code: int, said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if code > 0 and lines:
        return lines[-1][:1000]
    told = [line for line in lines if "error:" in line.lower()]
    return f"TensorFlow's quantizer died with exit code {code}: {'; '.join(told[-2:])[:400] or 'it did not say why'}"


def _bytes(folder: Path) -> int:
    """Files behind links to folders too."""
    return sum(
        os.stat(os.path.join(where, f)).st_size for where, _, files in os.walk(folder, followlinks=True) for f in files
    )

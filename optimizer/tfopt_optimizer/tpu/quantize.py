"""Quantizes a model before anything else is done to it, with TensorFlow's own quantizer.

Static range, dynamic range, or weights alone, in 8 bits: `external_feature_configs { quantization_options }` goes to
tf.quantization.experimental.quantize_saved_model as it is. What comes out has its functions and their aliases, but no
objects any more: weights are constants, and Python attributes are gone.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tfopt_optimizer.tpu.errors import ConversionError

_EXTRA = "assets.extra"


@dataclasses.dataclass(frozen=True)
class Quantized:
    """`calibrated_on`: where the values came from that ranges were read off, "" where none are needed. Bytes are those
    of the whole folder."""

    method: str
    signatures: tuple[str, ...]
    calibrated_on: str
    bytes_before: int
    bytes_after: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Calls by signature that ranges may be read off, and where they come from."""

    samples: Mapping[str, Sequence[Any]]
    source: str


def quantize(source: Path, to: Path, options: bytes, calibration: Calibration, keys: Sequence[str]) -> Quantized:
    """Writes the SavedModel `to`. `options`: a serialized QuantizationOptions; `keys`: the model's signatures, all of
    which are kept unless signature_keys names some. ConversionError has TensorFlow's reason."""
    import tensorflow as tf
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
    try:
        tf.quantization.experimental.quantize_saved_model(
            str(source), str(to), given, representative_dataset=data, overwrite_output_directory=True
        )
    except Exception as error:  # the quantizer raises what its passes meet
        raise ConversionError(f"quantization_options: {_first_line(error)}") from error
    if (source / _EXTRA).is_dir():
        shutil.copytree(source / _EXTRA, to / _EXTRA, dirs_exist_ok=True)
    name = method.PresetMethod.Name(method.preset_method or method.METHOD_STATIC_RANGE_INT8)
    return Quantized(name, tuple(given.signature_keys), calibrated, _bytes(source), _bytes(to))


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


def _bytes(folder: Path) -> int:
    return sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:400] if lines else type(error).__name__

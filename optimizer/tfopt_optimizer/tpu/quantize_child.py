"""The other end of quantize.py: source, target, options and samples on standard input, TensorFlow's quantizer, which
may abort the process; the reason of a failure is the last line on standard error."""

from __future__ import annotations

import pickle
import sys


def main() -> int:
    import tensorflow as tf
    from tensorflow.compiler.mlir.quantization.tensorflow import quantization_options_pb2 as proto

    source, to, options, samples = pickle.load(sys.stdin.buffer)
    try:
        tf.quantization.experimental.quantize_saved_model(
            source,
            to,
            proto.QuantizationOptions.FromString(options),
            representative_dataset=samples,
            overwrite_output_directory=True,
        )
    except Exception as error:  # the quantizer raises what its passes meet
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        sys.stderr.write(f"\n{lines[0] if lines else type(error).__name__}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
